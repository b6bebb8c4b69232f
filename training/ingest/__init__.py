"""From any pile of pictures to an archive: find and label them, look at all of them, then convert by rule."""

"""From keyframes to the frames of a film."""

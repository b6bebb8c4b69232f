"""The exception for everything that the user can fix."""


class UserError(Exception):
    """A mistake in the user's input or environment. The message is one line: the cause, then the cure.

    Commands print it without a traceback and exit with code 2.
    """


class BadImage(Exception):
    """An image that cannot be used. The message is the reason, in a few words."""

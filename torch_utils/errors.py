"""The one exception that means: the user can fix this."""


class UserError(Exception):
    """A mistake in what the user gave us. The message is one line: the cause, then the cure.

    Scripts print it without a traceback and exit with code 2.
    """

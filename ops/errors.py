"""The one exception of the ops' build."""


class BuildError(RuntimeError):
    """The kernels cannot be had. The message is one line: why, and what to do."""

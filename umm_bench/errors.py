"""The one exception that a command line shows without a traceback."""


class UserError(ValueError):
    """What the user gave cannot be used; the message says in one line what is wrong, where, what to do."""

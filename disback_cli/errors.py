"""The one exception that a user is meant to read."""


class UserError(Exception):
    """A message for people: what is wrong, where, and what to type instead.

    The command line prints it without a traceback; everything else that escapes is a defect of the program.
    """

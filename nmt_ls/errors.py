"""The exception that means "the caller made a mistake": bad config, missing file, unknown key."""


class UserError(Exception):
    """A mistake of the caller's, in one or two plain lines that name the thing and the way out.

    The command line prints the message on stderr without a traceback and exits with status 2.
    """

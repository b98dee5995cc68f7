"""The errors a user can act on. Each message is one sentence: what, where, what was expected, what to do."""


class PointloomError(Exception):
    """Bad input or a bad setting. The command line prints the message alone, without a traceback."""


class ScanError(PointloomError):
    """A scan that cannot be read or checked. In a batch it is quarantined and the rest goes on."""


class StorageError(PointloomError):
    """A URI that cannot be reached, listed, read or written, or a machine without room or time: no fault of a scan."""


class SchemaError(PointloomError):
    """A blocks dataset or checkpoint that is not what this version of Pointloom reads."""


def first_line(error: BaseException) -> str:
    """The first line of what an error says, without its full stop; of an error that says nothing its type."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0].rstrip(".")


def one_line(error: BaseException) -> str:
    """All of what an error says in one line, without its full stop; of an error that says nothing its type."""
    return (" ".join(str(error).split()) or type(error).__name__).rstrip(".")

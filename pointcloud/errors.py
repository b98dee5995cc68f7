"""The errors a user can act on. Each message is one sentence: what, where, what was expected, what to do."""

_LONGEST_MESSAGE, _LONGEST_REASON = 1000, 300  # characters; what a damaged file says may be megabytes


class PointloomError(Exception):
    """Bad input or a bad setting. The command line prints the message alone, without a traceback."""

    def __init__(self, message: str = "") -> None:
        super().__init__(shortened(message, _LONGEST_MESSAGE))


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
    """What an error says in one line, shortened, without its full stop; of an error that says nothing its type."""
    return shortened((" ".join(str(error).split()) or type(error).__name__).rstrip("."), _LONGEST_REASON)


def shortened(text: str, longest: int) -> str:
    """A text of at most so many characters: of a longer one the beginning and the end, which is the shorter part."""
    if len(text) <= longest:
        return text
    end = longest // 4
    return f"{text[: longest - end - 3]} … {text[-end:]}"

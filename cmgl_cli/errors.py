"""What went wrong, where, and how to mend it: the one error type a user sees, and the exit codes.

Every error is three lines on the terminal. Rooms below the command line raise these too, so that a
notebook user reads the same sentence; bad values are also `ValueError`, as numpy users expect.
"""

import difflib
from collections.abc import Iterable

EXIT_OK = 0
EXIT_BUG = 1
EXIT_USAGE = 2
EXIT_INPUT = 3
EXIT_STALE = 4
EXIT_LOCKED = 5
EXIT_NOT_CONVERGED = 6
EXIT_INTERRUPTED = 130


class CmglError(Exception):
    """An error the user can mend.

    Parameters
    ----------
    what : str
        What went wrong, in one sentence.
    where : str
        The file, key, option, class or sample it concerns, with the offending value.
    fix : str
        What to do about it; a command that can be pasted wherever there is one.
    """

    exit_code = EXIT_BUG

    def __init__(self, what: str, where: str = "", fix: str = ""):
        super().__init__(what, where, fix)
        self.what, self.where, self.fix = what, where, fix

    def __str__(self) -> str:
        return "\n".join(line for line in (self.what, self.where, self.fix) if line)


class UsageError(CmglError, ValueError):
    """An option, a YAML key or an argument that cannot be used as it is (exit code 2)."""

    exit_code = EXIT_USAGE


class InputError(CmglError, ValueError):
    """An input file, dataset or array that is missing or invalid (exit code 3)."""

    exit_code = EXIT_INPUT


class OutputError(CmglError, OSError):
    """An output that cannot be written: disk full, quota, no permission (exit code 3)."""

    exit_code = EXIT_INPUT


class StaleError(CmglError):
    """An input artifact that was made from other inputs than the ones beside it (exit code 4)."""

    exit_code = EXIT_STALE


class LockedError(CmglError):
    """An output that another process is writing right now (exit code 5)."""

    exit_code = EXIT_LOCKED


class NotConvergedError(CmglError):
    """A solver that stopped before its tolerance (exit code 6)."""

    exit_code = EXIT_NOT_CONVERGED


def from_outside(error: BaseException) -> BaseException:
    """Return what the user can mend where the operating system refused or memory ran out; else the error itself."""
    if isinstance(error, CmglError):
        return error
    if isinstance(error, OSError) and error.errno is not None and error.filename is not None:
        return InputError(
            f"the operating system refused: {error.strerror}", str(error.filename), "check the path and its permissions"
        )
    if isinstance(error, MemoryError):
        return InputError(
            "there is not enough memory", str(error), "take fewer samples with --limit, or a machine with more"
        )
    return error


def is_plain(text: str) -> bool:
    """Return whether a text can be stored and printed: no control characters, no halves of characters."""
    return not any(character < " " or character == "\x7f" or "\ud800" <= character <= "\udfff" for character in text)


def suggest(word: str, known: Iterable[str]) -> str:
    """Return ``"did you mean 'x'?"`` for the nearest known word, or the list of known words."""
    names = sorted(known)
    near = difflib.get_close_matches(word, names, n=1, cutoff=0.5)
    return f"did you mean {near[0]!r}?" if near else f"known: {', '.join(names)}"

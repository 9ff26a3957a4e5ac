"""What went wrong, in one line, and where the rest of it can be read."""

import time
import traceback

from cluster.connection import first_line
from pipelines.artifacts import RunDirectory


def explain_failure(error: BaseException, name: str, run: str | None, verbose: bool) -> str:
    """One line for standard error.

    A caller's mistake (``ValueError``, a missing or forbidden file), also one made inside a Ray task, is its own
    message. Anything else is our mistake: its traceback is kept in the run directory.

    Args:
        error: What was raised.
        name: The stage or command, which names the log file.
        run: ``paths.run``, or None before there is a config.
        verbose: Whether the traceback is printed as well.
    """
    cause = _cause(error)
    text = "".join(traceback.format_exception(error))
    if verbose:
        return f"{_line(cause)}\n{text}"
    if isinstance(cause, OSError) and cause.filename is not None:
        return f"{cause.filename}: {str(cause.strerror).lower()}."
    if isinstance(cause, ValueError):
        return _line(cause)
    return f"{type(cause).__name__}: {first_line(cause)} {_keep(text, name, run)}"


def _cause(error: BaseException) -> BaseException:
    """The error inside Ray's own: tasks and actors wrap what they raise, some more than once."""
    inner = error
    while type(inner).__module__.startswith("ray.") or type(inner).__name__.startswith("RayTaskError"):
        deeper = getattr(inner, "cause", None) or inner.__cause__
        if not isinstance(deeper, BaseException):
            break
        inner = deeper
    return inner


def _line(error: BaseException) -> str:
    return " ".join(str(error).split()) or type(error).__name__


def _keep(text: str, name: str, run: str | None) -> str:
    """Store a traceback. Returns where, or the traceback where it cannot be stored."""
    file = f"logs/{name}-{time.strftime('%Y%m%dT%H%M%S', time.gmtime())}.txt"
    try:
        if run is None:
            raise OSError("no run directory")
        folder = RunDirectory(run)
        folder.write_bytes(file, text.encode())
    except (OSError, ValueError):
        return f"The traceback:\n{text}"
    return f"Traceback in {folder.join(file)}"

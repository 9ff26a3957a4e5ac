"""The command line: ``slatewise <stage> [--config FILE] [dotted.key=value ...]``."""

import argparse
import json
import logging
import os
import signal
import sys
import tempfile
import traceback
from collections.abc import Callable, Sequence
from types import FrameType
from typing import Any, NoReturn

from pipelines.config import Config, load_config
from pipelines.help import command_help, overview
from pipelines.registry import ENTRIES, STAGES

logger = logging.getLogger("slatewise")

Command = Callable[[Config, argparse.Namespace], Any]


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    """Run one command and exit: 0 when done, 1 with one line on stderr when not, 130 when interrupted."""
    signal.signal(signal.SIGTERM, _interrupt)
    sys.exit(run_command(list(sys.argv[1:] if arguments is None else arguments)))


def run_command(arguments: list[str]) -> int:
    """Run a command. Returns the exit status."""
    try:
        options = _parse(arguments)
        _set_up_logging()
        config = load_config(options.config, options.overrides)
        _show_config(config, options)
        result = COMMANDS[options.command](config, options)
    except KeyboardInterrupt:
        return _fail("interrupted. Run the same command again to continue.", 130)
    except BrokenPipeError:
        return 1
    except Exception as error:
        return _fail_on(error)
    if isinstance(result, int):
        return result
    if options.json:
        print(json.dumps(result, ensure_ascii=False, default=str))
    return 0


def _interrupt(number: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt


def _parse(arguments: list[str]) -> argparse.Namespace:
    """Command, config file and overrides. ``--help`` prints and exits."""
    if not arguments or arguments[0] in ("-h", "--help", "help"):
        print(overview())
        sys.exit(0)
    command = arguments[0]
    if command not in COMMANDS:
        raise ValueError(
            f"slatewise: expected one of {', '.join(COMMANDS)}, got {command!r}. See slatewise --help."
        )
    rest = arguments[1:]
    remote: list[str] = []
    if command == "submit" and "--" in rest:
        cut = rest.index("--")
        rest, remote = rest[:cut], rest[cut + 1 :]
    if "-h" in rest or "--help" in rest:
        print(command_help(command))
        sys.exit(0)
    parser = _Parser(prog=f"slatewise {command}", add_help=False)
    parser.add_argument("--config")
    parser.add_argument("--json", action="store_true")
    if command == "serve":
        parser.add_argument("--policy")
    if command == "status":
        parser.add_argument("run", nargs="?")
    parser.add_argument("overrides", nargs="*")
    options = parser.parse_intermixed_args(rest)
    options.command, options.remote = command, remote
    if command == "status" and options.run is not None and "=" in options.run:
        options.overrides, options.run = [options.run, *options.overrides], None
    return options


class _Parser(argparse.ArgumentParser):
    """Errors as ours: one line, raised."""

    def error(self, message: str) -> NoReturn:
        """Raise instead of printing the usage."""
        raise ValueError(f"{self.prog}: {message}. See {self.prog} --help.")


def _set_up_logging() -> None:
    logging.basicConfig(level=logging.WARNING, format="%(message)s", stream=sys.stderr, force=True)
    for name in ("pipelines", "cluster", "encoders", "rl", "serve", "slatewise"):
        logging.getLogger(name).setLevel(logging.INFO)


def _show_config(config: Config, options: argparse.Namespace) -> None:
    """What differs from the defaults, on stderr; the whole config lies beside each stage's output."""
    changed = {}
    default, found = _flat(Config().model_dump(mode="json")), _flat(config.model_dump(mode="json"))
    for key, value in found.items():
        if default.get(key) != value:
            changed[key] = value
    if changed and options.command not in ("status",):
        text = " ".join(f"{key}={json.dumps(value, ensure_ascii=False)}" for key, value in changed.items())
        logger.info("config: %s", text)


def _flat(content: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    out: dict[str, Any] = {}
    for key, value in content.items():
        if isinstance(value, dict) and value:
            out |= _flat(value, f"{prefix}{key}.")
        else:
            out[prefix + key] = value
    return out


def _fail(line: str, status: int = 1) -> int:
    print(f"slatewise: {line}", file=sys.stderr)
    return status


def _fail_on(error: Exception) -> int:
    """One line for what a user can cause; for the rest, one line that names the file with the traceback."""
    cause: BaseException = getattr(error, "cause", None) or error  # Ray wraps what a task raised
    if isinstance(cause, ValueError | OSError):
        return _fail(" ".join(str(cause).split()))
    handle, name = tempfile.mkstemp(prefix="slatewise-", suffix=".log")
    with os.fdopen(handle, "w") as stream:
        stream.write("".join(traceback.format_exception(error)))
    return _fail(
        f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''} (traceback in {name})"
    )


def _stage(config: Config, options: argparse.Namespace) -> Any:
    from pipelines.stages import run_stage

    return run_stage(STAGES[options.command], config)["result"]


def _run(config: Config, options: argparse.Namespace) -> Any:
    from pipelines.run import run_all

    return run_all(config)


def _demo(config: Config, options: argparse.Namespace) -> Any:
    from pipelines.demo import run_demo

    return run_demo(config, quiet=options.json)


def _serve(config: Config, options: argparse.Namespace) -> Any:
    from pipelines.serve import serve_command

    return serve_command(config, options.policy)


def _submit(config: Config, options: argparse.Namespace) -> Any:
    from pipelines.submit import submit_command

    if not options.remote:
        raise ValueError("submit: expected a stage after --, got none. Write slatewise submit -- train.")
    return submit_command(config, options.remote)


def _status(config: Config, options: argparse.Namespace) -> Any:
    from pipelines.status import run_status, status_table

    rows = run_status(options.run or config.paths.run)
    if not options.json:
        print(status_table(rows))
    return rows


COMMANDS: dict[str, Command] = {
    **dict.fromkeys(ENTRIES, _stage),
    "run": _run,
    "demo": _demo,
    "serve": _serve,
    "submit": _submit,
    "status": _status,
}

if __name__ == "__main__":
    main()

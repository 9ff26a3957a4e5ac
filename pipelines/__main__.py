"""The command line: ``slatewise <stage> [--config FILE] [dotted.key=value ...]``."""

import argparse
import json
import logging
import signal
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout
from importlib import import_module
from types import FrameType
from typing import Any, NoReturn

from pipelines.config import Config, ConfigError, load_config
from pipelines.config_keys import changed_values, describe_keys, override_text
from pipelines.failure import explain_failure
from pipelines.registry import COMMANDS, ENTRIES, STAGES, Entry

PACKAGES = ("cluster", "encoders", "pipelines", "rl", "serve")
INTERRUPTED = 130  # what a shell gives a command that Ctrl-C ended
USAGE = 2
CONTINUES = "interrupted. The same command continues."
INTERRUPTIONS = {
    "serve": "interrupted, the service has ended.",
    "submit": "interrupted. The job goes on; `ray job list` and `ray job stop` see to it.",
}


class _Parser(argparse.ArgumentParser):
    """Errors take one line, like all others."""

    def error(self, message: str) -> NoReturn:
        self.exit(USAGE, f"{self.prog}: {message}. See `{self.prog} --help`.\n")


def main(arguments: list[str] | None = None) -> int:
    """Run a command. Returns its exit status."""
    words = sys.argv[1:] if arguments is None else arguments
    if not words or words[0] in ("-h", "--help", "help"):
        print(_overview())
        return 0 if words else USAGE
    name = words[0]
    words, remote = _split_remote(words) if name == "submit" else (words, [])
    signal.signal(signal.SIGTERM, _interrupt)
    config: Config | None = None
    verbose = "-v" in words or "--verbose" in words
    _start_logging(verbose)
    try:
        name, options, config = read_command(words)
        return _execute(name, config, options, remote)
    except KeyboardInterrupt:
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # the last words are not to be cut off
        print(f"slatewise {name}: {INTERRUPTIONS.get(name, CONTINUES)}", file=sys.stderr)
        return INTERRUPTED
    except BrokenPipeError:
        return 1
    except Exception as error:
        line = explain_failure(error, name, config.paths.run if config else None, verbose)
        print(f"slatewise {name}: {line.removeprefix(f'{name}: ')}", file=sys.stderr)
        return 1


def read_command(words: list[str]) -> tuple[str, argparse.Namespace, Config]:
    """Name, options and config of a command. ``--help`` prints and exits, so does a malformed option.

    Raises:
        ConfigError: The command is unknown, or its config is not valid.
    """
    name, known = words[0], ENTRIES | COMMANDS
    if name not in known:
        raise ConfigError(f"expected one of {', '.join(known)}. See `slatewise --help`.")
    options = _parser(name, known[name]).parse_intermixed_args(words[1:])
    return name, options, load_config(options.config, _overrides(name, options))


def _execute(name: str, config: Config, options: argparse.Namespace, remote: list[str]) -> int:
    if name not in ("status", "submit", "compare"):
        changed = " ".join(override_text(key, value) for key, value in changed_values(config).items())
        logging.getLogger(__name__).info("config: %s", changed or "all defaults")
    with _clean_stdout(options.json):
        result = _result(name, config, options, remote)
    if options.json:
        print(json.dumps(_finite(result), ensure_ascii=False))
    return int(result["exit_code"]) if name == "submit" else 0


def _result(name: str, config: Config, options: argparse.Namespace, remote: list[str]) -> dict[str, Any]:
    if getattr(options, "dry_run", False):
        from pipelines.ingest_preview import preview

        return preview(config)
    if name in ENTRIES:
        from pipelines.stages import run_stage

        manifest = run_stage(STAGES[name], config)
        return {**{key: manifest[key] for key in ("stage", "skipped", "seconds")}, **manifest["result"]}
    module, _, function = COMMANDS[name].constant.partition(":")
    command = getattr(import_module(module), function)
    if name == "forget":
        return dict(command(config, options.user))
    own: dict[str, list[Any]] = {"submit": [remote], "serve": [config.serve.policy]}
    if name == "compare":
        own[name] = [options.overrides, options.page]
    result: dict[str, Any] = command(config, *own.get(name, []))
    return result


@contextmanager
def _clean_stdout(as_json: bool) -> Iterator[None]:
    """With ``--json``, what anything prints meanwhile goes to standard error."""
    if not as_json:
        yield
        return
    with redirect_stdout(sys.stderr):
        yield


def _finite(content: Any) -> Any:
    """The same with null in place of numbers that JSON has not."""
    if isinstance(content, dict):
        return {key: _finite(value) for key, value in content.items()}
    if isinstance(content, list | tuple):
        return [_finite(value) for value in content]
    if isinstance(content, float) and not abs(content) < float("inf"):
        return None
    return content


def _interrupt(number: int, frame: FrameType | None) -> NoReturn:
    raise KeyboardInterrupt


def _start_logging(verbose: bool) -> None:
    logging.basicConfig(level=logging.ERROR, format="%(message)s", stream=sys.stderr, force=True)
    for package in (*PACKAGES, "__main__"):
        logging.getLogger(package).setLevel(logging.DEBUG if verbose else logging.INFO)
    if not verbose and not sys.warnoptions:
        warnings.simplefilter("ignore")  # libraries' deprecations speak to us, not to who runs a stage


def _overrides(name: str, options: argparse.Namespace) -> list[str]:
    """The dotted overrides, with a command's own argument put at its key."""
    if name == "compare":
        return []
    overrides: list[str] = list(options.overrides)
    if name == "status" and overrides and "=" not in overrides[0]:
        overrides[0] = override_text("paths.run", overrides[0])
    if getattr(options, "policy", None) is not None:
        overrides.append(override_text("serve.policy", options.policy))
    return overrides


def _split_remote(words: list[str]) -> tuple[list[str], list[str]]:
    """The arguments of ``submit`` itself and, after ``--``, the command for the cluster."""
    if "--" not in words:
        return words, []
    cut = words.index("--")
    return words[:cut], words[cut + 1 :]


def _parser(name: str, entry: Entry) -> argparse.ArgumentParser:
    parser = _Parser(
        prog=f"slatewise {name}",
        description=f"{entry.summary}\n\nReads   {entry.reads}\nWrites  {entry.writes}\nExample {entry.example}",
        epilog=_keys(entry),
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("--config", metavar="FILE", help="YAML file of settings; a shipped one by its name")
    parser.add_argument("--json", action="store_true", help="print the result as one JSON object on stdout")
    parser.add_argument("-v", "--verbose", action="store_true", help="say more, and show tracebacks")
    if name == "serve":
        parser.add_argument("--policy", metavar="RUN", help="run directory or bundle folder to serve")
    if name == "compare":
        parser.add_argument("--page", metavar="FILE", help="also write them as a page")
        parser.add_argument("overrides", nargs="*", metavar="RUN", help="run directories")
        return parser
    if name == "forget":
        parser.add_argument("user", metavar="USER", help="the user's id, as the log has it")
    if name == "ingest":
        parser.add_argument("--dry-run", action="store_true", help="read the head, say what was understood")
    what = "RUN" if name == "status" else "dotted.key=value"
    parser.add_argument("overrides", nargs="*", metavar=what, help="settings that win over the file's")
    return parser


def _keys(entry: Entry) -> str:
    rows = [row for section in entry.sections for row in describe_keys(section)]
    if not rows:
        return ""
    width = min(44, max(len(key) + len(default) + 1 for key, default, _ in rows))
    lines = [f"  {f'{key}={default}':{width}}  {text}" for key, default, text in rows]
    return "\n".join(["settings and their defaults:", *lines])


def _overview() -> str:
    lines = ["usage: slatewise <stage> [--config FILE] [dotted.key=value ...] [--json]", "", "stages:"]
    lines += [f"  {name:14} {entry.summary}" for name, entry in ENTRIES.items()]
    lines += ["", "commands:"]
    lines += [f"  {name:14} {entry.summary}" for name, entry in COMMANDS.items()]
    lines += [
        "",
        "`slatewise <stage> --help` lists what it reads, writes and can be set to. Start with `slatewise demo`.",
    ]
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())

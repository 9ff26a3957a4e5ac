"""What ``--help`` prints: purpose, what is read and written, an example, and every key with default and reason."""

import json
from typing import Any

from pydantic import BaseModel

from pipelines.config import Config
from pipelines.registry import ENTRIES, Entry

OTHERS: dict[str, Entry] = {
    "run": Entry(
        constant="",
        summary="Do all stages from ingest to evaluate, skipping what is done.",
        reads="paths.log (and paths.items).",
        writes="the run directory, ending in report.json and report.html.",
        sections=("paths", "seed"),
        example="slatewise run --config rees46.yaml paths.log=2019-Oct.csv.gz paths.run=runs/shop",
    ),
    "demo": Entry(
        constant="",
        summary="Run the whole loop on a made-up shop whose truth is known, and show that truth.",
        reads="nothing.",
        writes="paths.run (runs/demo unless given).",
        sections=("seed", "shop"),
        example="slatewise demo seed=7",
    ),
    "serve": Entry(
        constant="",
        summary="Serve a promoted policy over HTTP until interrupted.",
        reads="--policy: a run directory or a bundle folder; paths.run unless given.",
        writes="nothing.",
        sections=("serve",),
        example="slatewise serve --policy runs/demo serve.port=8000",
    ),
    "submit": Entry(
        constant="",
        summary="Send a command to a running Ray cluster, follow its log, and exit with its status.",
        reads="the checkout, which is uploaded without what git ignores.",
        writes="what the command writes; give it a paths.run that the cluster can reach.",
        sections=("cluster",),
        example="slatewise submit cluster.dashboard_url=http://head:8265 -- train paths.run=s3://bucket/run",
    ),
    "status": Entry(
        constant="",
        summary="Say which stages of a run are done, and what an interrupted one left.",
        reads="a run directory.",
        writes="nothing.",
        sections=("paths",),
        example="slatewise status runs/demo",
    ),
}


def overview() -> str:
    """The commands, one line each."""
    lines = ["usage: slatewise <command> [--config FILE] [--json] [dotted.key=value ...]", ""]
    lines += [f"  {name:14s} {entry.summary}" for name, entry in (ENTRIES | OTHERS).items()]
    lines += ["", "`slatewise <command> --help` teaches one of them. Start with `slatewise demo`."]
    return "\n".join(lines)


def command_help(command: str) -> str:
    """All about one command."""
    entry = (ENTRIES | OTHERS)[command]
    options = {"serve": " [--policy RUN]", "status": " [RUN]", "submit": " -- <command ...>"}.get(command, "")
    lines = [
        f"usage: slatewise {command}{options} [--config FILE] [--json] [dotted.key=value ...]",
        "",
        entry.summary,
    ]
    lines += [
        "",
        f"reads    {entry.reads}",
        f"writes   {entry.writes}",
        f"example  {entry.example}",
        "",
        "settings",
    ]
    for section in entry.sections:
        lines += _settings(section)
    return "\n".join(lines)


def _settings(section: str) -> list[str]:
    """Lines ``key = default  description`` of a section, deepest first."""
    owner: Any = Config()
    info = None
    for part in section.split("."):
        info = type(owner).model_fields[part]
        owner = getattr(owner, part)
    if isinstance(owner, BaseModel):
        lines: list[str] = []
        for name in type(owner).model_fields:
            lines += _settings(f"{section}.{name}")
        return lines
    description = info.description if info is not None and info.description else ""
    if isinstance(owner, dict) and owner and all(isinstance(v, BaseModel) for v in owner.values()):
        value = type(next(iter(owner.values())))
        known = ", ".join(f"{n} ({f.description})" for n, f in value.model_fields.items())
        return [f"  {section}.NAME: {', '.join(owner)}. Each has: {known}"]
    return [f"  {section}={json.dumps(owner, ensure_ascii=False, default=str)}", f"      {description}"]

"""Stage ``ingest``: a behaviour log becomes valid behaviours in sessions and an item table."""

import hashlib
import hmac
import os
import time
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import polars as pl
import ray
from ray.exceptions import RayTaskError

from cluster.connection import connect
from encoders.columns import IngestConfig
from encoders.sessionise import SPLITS, split_starts
from encoders.validity import REASONS, check_rules
from pipelines.artifacts import ArtifactError, Folder
from pipelines.config import Config
from pipelines.ingest_files import SUFFIXES, LogFile, find_files
from pipelines.ingest_items import finish_items, items_from_counts, read_items, sum_counts
from pipelines.ingest_parts import read_ipc
from pipelines.ingest_shards import Plan, finish, settle, spread
from pipelines.progress import track
from pipelines.stages import Stage, StageContext
from rl.tasks import build_tasks

SHARD_ROWS = 300_000  # keeps a task's memory flat as the log grows


def fingerprint(config: Config) -> dict[str, Any]:
    """What decides the outcome besides config: contents of log and item table, and the pseudonym key.

    Raises:
        ArtifactError: A file is missing.
        ValueError: The key's variable is empty.
    """
    key = pseudonym_key(config.ingest)
    found = {"log": _log_files(config)}
    if config.paths.items is not None:
        found["items"] = find_files(config.paths.items, "paths.items")
    contents: dict[str, Any] = {
        what: {file.name: _sha256(file) for file in files} for what, files in found.items()
    }
    contents["pseudonym_key"] = key and hmac.digest(key, b"slatewise", hashlib.sha256).hex()
    return contents


def pseudonym_key(config: IngestConfig) -> bytes | None:
    """The HMAC key of user ids, None where none is wanted.

    Raises:
        ValueError: ``pseudonym_key_env`` names a variable that is empty.
    """
    if config.pseudonym_key_env is None:
        return None
    key = os.environ.get(config.pseudonym_key_env, "")
    if not key:
        raise ValueError(
            f"ingest.pseudonym_key_env: expected a key in the environment variable {config.pseudonym_key_env}, "
            f"found none. Set it, as `export {config.pseudonym_key_env}=$(openssl rand -hex 32)`."
        )
    return key.encode()


def execute(context: StageContext) -> dict[str, Any]:
    """Ingest the log into ``context.folder``. Returns counts for the manifest."""
    config, folder = context.config, context.folder
    check_rules(config.ingest)
    files = _log_files(config)
    tasks = build_tasks(config.rl.tasks)
    plan = Plan(
        config=config.ingest,
        behaviours=tuple(dict.fromkeys(tasks.behaviours)),
        files=tuple(files),
        num_shards=config.ingest.user_shards or _num_shards(files),
        now_us=time.time_ns() // 1000,
        key=pseudonym_key(config.ingest),
        folder=folder,
    )
    with connect(config.cluster):
        result = _ingest(plan, config)
    plan.parts.delete()
    for name in folder.files():  # what a killed worker left
        if name.endswith(".tmp"):
            folder.filesystem.delete_file(folder.join(name))
    return result


INGEST = Stage(
    name="ingest",
    inputs=(),
    sections=("ingest", "rl.tasks", "rl.slate_length"),
    execute=execute,
    help="Check a behaviour log and sort it into sessions.",
    fingerprint=fingerprint,
)


def _ingest(plan: Plan, config: Config) -> dict[str, Any]:
    shared = ray.put(plan)
    spreads = _gather([spread.remote(shared, n) for n in range(len(plan.files))], "log files")
    rows_in = sum(report["rows_in"] for report in spreads)
    _check_log(plan, rows_in, spreads, config.paths.log or "")
    shards = range(plan.num_shards)
    settled = _gather([settle.remote(shared, n) for n in shards], "user shards")
    behaviours = _sum(report["behaviours"] for report in settled)
    rejected = _sum(report["rejected"] for report in (*spreads, *settled))
    rejected = {reason: rejected[reason] for reason in REASONS if reason in rejected}
    result: dict[str, Any] = {
        "rows_in": rows_in,
        "rows_kept": sum(behaviours.values()),
        "rows_rejected": rejected,
        "num_users": sum(report["num_users"] for report in settled),
        "num_items": 0,
        "num_sessions": sum(report["num_sessions"] for report in settled),
        "behaviours": behaviours,
    }
    assert rows_in == result["rows_kept"] + sum(rejected.values()), result
    _check_rejected(plan.config, rows_in, rejected)
    result |= _write_items(plan, config)
    _check_size(config, result)
    starts = np.concatenate([read_ipc(plan.parts, f"starts-{n:05d}.arrow")["session_start"] for n in shards])
    cuts = split_starts(starts, plan.config.validation_fraction, plan.config.test_fraction)
    splits = _sum(_gather([finish.remote(shared, n, *cuts) for n in shards], "shards of Parquet"))
    result["sessions"] = {name: splits.get(name, 0) for name in SPLITS}
    return result


def _gather(refs: Sequence[Any], what: str) -> list[Any]:
    """Results in order. The first error is raised as the task raised it, and the other tasks are called off."""
    try:
        return [ray.get(ref) for ref in track(refs, len(refs), what)]
    except BaseException as error:
        for ref in refs:
            ray.cancel(ref)
        if isinstance(error, RayTaskError) and isinstance(error.cause, Exception):
            raise error.cause from None
        raise


def _log_files(config: Config) -> list[LogFile]:
    if config.paths.log is None:
        raise ArtifactError(
            "paths.log: expected a behaviour log (CSV, JSON Lines or Parquet), got none. "
            "Set it, as paths.log=log.csv.gz, or a folder, or a glob in quotes."
        )
    return find_files(config.paths.log, "paths.log")


def _sha256(file: LogFile) -> str:
    folder, _, name = file.path.rpartition("/")
    return Folder(file.filesystem, folder).sha256(name)


def _num_shards(files: Sequence[LogFile]) -> int:
    """One a ``SHARD_ROWS`` rows, judged by the size of the files, so that it does not depend on the machine."""
    rows = sum(file.size / SUFFIXES[file.suffix][1] for file in files)
    return max(1, round(rows / SHARD_ROWS))


def _write_items(plan: Plan, config: Config) -> dict[str, Any]:
    shards = range(plan.num_shards)
    seen = pl.concat([read_ipc(plan.parts, f"seen-{n:05d}.arrow")["item_id"] for n in shards])
    rejected: dict[str, int] = {}
    if config.paths.items is not None:
        files = find_files(config.paths.items, "paths.items")
        items, rejected = read_items(files, plan.config.item_table_columns, plan.config.separator)
    else:
        names = [f"texts-{n:05d}.arrow" for n in range(len(plan.files))]
        counts = sum_counts([read_ipc(plan.parts, name) for name in names if plan.parts.exists(name)])
        known = counts.filter(pl.col("item_id").is_in(seen.unique().implode()))
        items = items_from_counts(known, list(plan.config.item_columns))
    table = finish_items(items, seen)
    plan.folder.write_table("items.parquet", table, plan.config.compression)
    result: dict[str, Any] = {"num_items": table.num_rows}
    return {**result, "item_rows_rejected": rejected} if rejected else result


def _check_log(plan: Plan, rows_in: int, spreads: Sequence[Mapping[str, Any]], where: str) -> None:
    if rows_in == 0:
        raise ArtifactError(
            f"paths.log: expected behaviours, found no rows in {where}. Give a log that has some."
        )
    strangers = Counter(_sum(report["strangers"] for report in spreads))
    unknown = sum(report["rejected"].get("unknown_behaviour", 0) for report in spreads)
    if unknown and not any(report["known"] for report in spreads):
        found = ", ".join(f"{word} ({n:,})" for word, n in strangers.most_common(5)) or "none"
        raise ArtifactError(
            f"paths.log: expected behaviours of the tasks ({', '.join(plan.behaviours)}), found {found}. "
            "Map the log's words by ingest.behaviours, or name them in rl.tasks."
        )


def _check_rejected(config: IngestConfig, rows_in: int, rejected: Mapping[str, int]) -> None:
    fraction = sum(rejected.values()) / rows_in
    if fraction > config.max_rejected_fraction or fraction == 1:
        reasons = ", ".join(f"{reason} {n:,}" for reason, n in sorted(rejected.items(), key=lambda e: -e[1]))
        raise ArtifactError(
            f"ingest.max_rejected_fraction: expected at most {config.max_rejected_fraction:.1%} rejected rows, got "
            f"{fraction:.1%} of {rows_in:,} ({reasons}). Mend the mapping in `ingest`, or raise the limit."
        )


def _check_size(config: Config, result: Mapping[str, Any]) -> None:
    where = "paths.log"
    if result["num_users"] < 2:
        raise ArtifactError(f"{where}: expected at least 2 users, found 1. Check ingest.columns.user_id.")
    if result["num_items"] < 2:
        raise ArtifactError(f"{where}: expected at least 2 items, found 1. Check ingest.columns.item_id.")
    if result["num_items"] < config.rl.slate_length:
        raise ArtifactError(
            f"rl.slate_length: expected at most the number of items, {result['num_items']}, "
            f"got {config.rl.slate_length}. Lower it, or give a larger catalogue."
        )


def _sum(counts: Iterable[Mapping[str, int]]) -> dict[str, int]:
    total: Counter[str] = Counter()
    for count in counts:
        total.update(count)
    return dict(sorted(total.items()))

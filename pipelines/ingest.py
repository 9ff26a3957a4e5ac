"""Stage ``ingest``: a behaviour log becomes valid behaviours in sessions and an item table."""

import time
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from encoders.columns import IMPRESSION
from encoders.sessionise import SPLITS, split_starts
from encoders.validity import REASONS, check_rules
from pipelines.artifacts import ArtifactError, Folder, RunDirectory
from pipelines.config import Config
from pipelines.forgotten import read_forgotten
from pipelines.ingest_finish import finish
from pipelines.ingest_items import number_items, write_items, write_rare
from pipelines.ingest_parts import read_ipc
from pipelines.ingest_plan import Plan
from pipelines.ingest_profile import PAGE, add_up, profile_lines, profile_page
from pipelines.ingest_settle import settle, suppress
from pipelines.ingest_spread import spread
from pipelines.ingest_work import Work, content_of, find_work, pseudonym_key
from pipelines.ingest_workers import Workers, workers
from pipelines.stages import Stage, StageContext
from rl.tasks import build_tasks

COUNTS = ("rows_in", "rows_kept", "rows_rejected", "num_users", "num_sessions", "behaviours", "sessions")


def execute(context: StageContext) -> dict[str, Any]:
    """Ingest the log into ``context.folder``. Returns counts for the manifest."""
    config, folder = context.config, context.folder
    check_rules(config.ingest)
    work = find_work(config)
    plan = _plan(config, folder, work)
    with workers(config.cluster, plan) as crew:
        result = _ingest(plan, config, crew, work)
    plan.parts.delete()
    folder.delete_unfinished()
    return result


INGEST = Stage(
    name="ingest",
    inputs=(),
    sections=("ingest", "rl.tasks", "rl.slate_length"),
    execute=execute,
    help="Check a behaviour log and sort it into sessions.",
    fingerprint=content_of,
    keeps=lambda config: find_work(config).keeps,
)


def _plan(config: Config, folder: Folder, work: Work) -> Plan:
    tasks = build_tasks(config.rl.tasks)
    behaviours = tuple(dict.fromkeys(tasks.behaviours))
    strange = next((r.behaviour for r in config.ingest.also if r.behaviour not in behaviours), None)
    if strange is not None:
        raise ArtifactError(
            f"ingest.also: expected behaviours of the tasks ({', '.join(behaviours)}), got {strange}. "
            "Name it in rl.tasks, or drop the rule."
        )
    if not folder.exists("parts/now.json"):  # one present for all attempts
        folder.write_json("parts/now.json", time.time_ns() // 1000)
    return Plan(
        config=config.ingest,
        behaviours=(*behaviours, IMPRESSION),
        files=work.files,
        pieces=work.pieces,
        num_shards=work.num_shards,
        now_us=folder.read_json("parts/now.json"),
        key=pseudonym_key(config.ingest),
        forgotten=read_forgotten(config.paths.run),
        folder=folder,
        base=work.base,
    )


def _ingest(plan: Plan, config: Config, crew: Workers, work: Work) -> dict[str, Any]:
    spreads = crew.run(spread, [(n,) for n in range(len(plan.pieces))], "pieces of the log")
    rows_in = sum(report["rows_in"] for report in spreads)
    _check_log(plan, rows_in, spreads, config.paths.log or "")
    batches = [(n, batch) for n, report in enumerate(spreads) for batch in range(report["batches"])]
    number_items(plan, batches)
    shards = [(shard,) for shard in range(plan.num_shards)]
    kind, settled = "settled", crew.run(settle, shards, "user shards")
    if config.ingest.min_item_users > 1 or config.ingest.min_user_behaviours > 1:
        write_rare(plan)
        kind, settled = "common", crew.run(suppress, shards, "user shards without what is rare")
    rejected = _sum(report["rejected"] for report in (*spreads, *settled))
    result: dict[str, Any] = {
        "rows_in": rows_in,
        "rows_kept": sum(report["num_rows"] for report in settled),
        "rows_rejected": {reason: rejected[reason] for reason in REASONS if reason in rejected},
        "num_users": sum(report["num_users"] for report in settled),
        "num_sessions": sum(report["num_sessions"] for report in settled),
        "behaviours": _sum(report["behaviours"] for report in settled),
    }
    assert rows_in == result["rows_kept"] + sum(rejected.values()), result
    _check_rejected(plan, rows_in, rejected)
    table, rejected_items = write_items(plan, config, batches, kind)
    items: dict[str, Any] = {"num_items": table.num_rows}
    if rejected_items:
        items["item_rows_rejected"] = rejected_items
    _check_size(config, {"num_users": work.result.get("num_users", 0) + result["num_users"], **items})
    cuts = _cuts(plan, kind)
    done = crew.run(finish, [(n, kind, *cuts) for n in range(plan.num_shards)], "shards of Parquet")
    splits = _sum(shard["sessions"] for shard in done)
    result["sessions"] = {name: splits.get(name, 0) for name in SPLITS}
    if "rows_forgotten" in work.result:
        result["rows_forgotten"] = work.result["rows_forgotten"]
    result = {**result, **_add(work.result, result), **items}
    _show(plan, config, add_up(plan, [s["profile"] for s in done], result, table))
    return {**result, "log": {**work.record, "cuts_us": list(cuts)}}


def _show(plan: Plan, config: Config, profile: dict[str, Any]) -> None:
    """The profile on the terminal, and as a page."""
    tasks = config.rl.tasks
    words = {name: task.behaviour or name for name, task in tasks.items()}
    funnel = [(words[task.after], words[name]) for name, task in tasks.items() if task.after is not None]
    plan.folder.write_bytes(PAGE, profile_page(profile, funnel, f"Ingest of {config.paths.log}").encode())
    for line in profile_lines(profile, funnel):
        print(line)
    print(f"page       {RunDirectory(config.paths.run).join(f'ingest/{PAGE}')}")


def _cuts(plan: Plan, kind: str) -> tuple[int, int]:
    """Where validation and test begin; an ingest that adds keeps what was drawn."""
    if plan.base is not None:
        return plan.base.validation_from_us, plan.base.test_from_us
    starts = [read_ipc(plan.parts, f"{kind}-starts-{n:05d}.arrow")["start"] for n in range(plan.num_shards)]
    return split_starts(np.concatenate(starts), plan.config.validation_fraction, plan.config.test_fraction)


def _add(before: Mapping[str, Any], new: Mapping[str, Any]) -> dict[str, Any]:
    """Counts of an earlier ingest and of what was added to it."""
    total: dict[str, Any] = {}
    for name in COUNTS:
        if isinstance(new[name], dict):
            both = Counter(before.get(name, {}))
            both.update(new[name])
            total[name] = {key: both[key] for key in {**new[name], **before.get(name, {})}}
        else:
            total[name] = before.get(name, 0) + new[name]
    return total


def _check_log(plan: Plan, rows_in: int, spreads: Sequence[Mapping[str, Any]], where: str) -> None:
    if rows_in == 0 and plan.base is None:
        raise ArtifactError(
            f"paths.log: expected behaviours, found no rows in {where}. Give a log that has some."
        )
    strangers = Counter(_sum(report["strangers"] for report in spreads))
    unknown = sum(report["rejected"].get("unknown_behaviour", 0) for report in spreads)
    if unknown and not any(report["known"] for report in spreads):
        found = ", ".join(f"{word} ({n:,})" for word, n in strangers.most_common(5)) or "none"
        raise ArtifactError(
            f"paths.log: expected behaviours of the tasks ({', '.join(plan.behaviours[:-1])}), found {found}. "
            "Map the log's words by ingest.behaviours, or name them in rl.tasks."
        )


def _check_rejected(plan: Plan, rows_in: int, rejected: Mapping[str, int]) -> None:
    """Refuse a log of which too little is left; rows that a run holds already, or must not hold, are no flaw of one."""
    excused = ("duplicate", "forgotten") if plan.base is not None else ()
    counted = {reason: n for reason, n in rejected.items() if reason not in excused}
    fraction, limit = sum(counted.values()) / max(rows_in, 1), plan.config.max_rejected_fraction
    if fraction > limit or fraction == 1:
        reasons = ", ".join(f"{reason} {n:,}" for reason, n in sorted(counted.items(), key=lambda e: -e[1]))
        raise ArtifactError(
            f"ingest.max_rejected_fraction: expected at most {limit:.1%} rejected rows, got "
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

"""``slatewise forget USER``: remove a user's rows from every table of a run, and keep them out."""

from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq

from encoders.columns import IngestConfig
from encoders.pasts import past_texts
from encoders.sessionise import SPLITS, escaped
from encoders.store import text_key
from encoders.text import EMPTY_PAST, item_text
from pipelines.artifacts import MANIFEST, ArtifactError, RunDirectory
from pipelines.config import Config
from pipelines.embed import STORE
from pipelines.forgotten import add_forgotten
from pipelines.ingest_finish import PARQUET
from pipelines.ingest_plan import pseudonyms
from pipelines.ingest_work import pseudonym_key
from rl.policy.bundle_files import FILES as BUNDLE_FILES
from rl.policy.bundle_files import manifest_bytes

LEARNED = (
    "finetune",
    "fit-simulator",
    "train",
    "sweep",
    "evaluate",
)  # their weights and figures rest on the rows
BUNDLE = "evaluate/bundle"
ID_COLUMNS = ("user_id", "session_id", "id")  # an ``id`` may be either


def forget_command(config: Config, user: str) -> dict[str, Any]:
    """Remove a user, named by the id that the log has.

    A list in the run, which holds ids as the run writes them, keeps the user out of what is ingested later. If this
    is cut off, the same command completes it.

    Returns:
        ``user`` as the run writes it, ``rows`` removed by file, and ``retrain``: stages that learned from the rows.

    Raises:
        ArtifactError: There is no finished ingest.
        ValueError: The run has pseudonyms, and their key is missing.
    """
    run = RunDirectory(config.paths.run)
    manifest = run.manifest("ingest")
    if manifest is None:
        raise ArtifactError(f"{run.join('ingest')}: expected a finished ingest, found none. Check paths.run.")
    name = _written(run, user)
    texts = _text_keys(run, name)
    add_forgotten(config.paths.run, name)
    run.delete_unfinished()  # what a killed stage was writing may hold the user's rows
    gone = _behaviours(run, name)
    rows = {file: removed for file in list(run.files()) if (removed := _remove(run, file, name))}
    rows |= _remove_texts(run, config, texts)
    _mend_manifests(run, rows, gone)
    retrain = [stage for stage in LEARNED if run.manifest(stage) is not None]
    _print(user, rows, retrain)
    return {"user": name, "rows": rows, "retrain": retrain}


def _written(run: RunDirectory, user: str) -> str:
    """The id as the run writes it."""
    ingest = IngestConfig.model_validate(run.read_json("ingest/config.json")["ingest"])
    key = pseudonym_key(ingest)
    return user.strip() if key is None else str(pseudonyms(pl.Series([user.strip()]), key)[0])


def _behaviours(run: RunDirectory, name: str) -> pl.DataFrame:
    rows = pl.DataFrame(run.folder("ingest").read_table("behaviours"))
    return rows.filter(pl.col("user_id") == name)


def _text_keys(run: RunDirectory, name: str) -> set[bytes]:
    """Keys of the texts of the user's past; none where nothing is embedded."""
    if run.manifest("embed") is None:
        return set()
    encoder = run.read_json("embed/encoder.json")
    items = run.read_table("ingest/items.parquet").to_pylist()
    texts = past_texts(
        _behaviours(run, name), {row["item_id"]: item_text(row) for row in items}, encoder["history_items"]
    )
    prompt = encoder.get("past_prompt", "")
    return {text_key(prompt + text) for text in {*texts.sessions, *texts.users} - {EMPTY_PAST}}


def _remove(run: RunDirectory, file: str, name: str) -> int:
    """Rewrite a table without the user's rows. Returns how many they were."""
    if not file.endswith(".parquet"):
        return 0
    columns = [c for c in ID_COLUMNS if c in _schema(run, file).names]
    if not columns:
        return 0
    table = run.read_table(file)
    user = escaped(pl.Series([name]))[0]
    tests = [pl.col(c) == name for c in columns if c != "session_id"]
    tests += [pl.col(c).str.starts_with(user + mark) for c in columns if c != "user_id" for mark in ":@"]
    texts = pl.DataFrame(table.select(columns)).cast(pl.String)
    keep = ~texts.select(pl.any_horizontal(tests).fill_null(False).alias("own"))["own"]
    return _rewrite(run, file, table, keep)


def _remove_texts(run: RunDirectory, config: Config, keys: set[bytes]) -> dict[str, int]:
    """Take the vectors of the user's texts out of the embedding store. What others need is embedded again."""
    store = RunDirectory(config.encoder.store or f"{run.uri.rstrip('/')}/{STORE}")
    removed = {}
    for file in store.files() if keys else ():
        if file.endswith(".parquet") and "key" in _schema(store, file).names:
            table = store.read_table(file)
            own = pl.Series(table["key"].cast(pa.binary())).is_in(
                pl.Series(list(keys), dtype=pl.Binary).implode()
            )
            if count := _rewrite(store, file, table, ~own):
                removed[f"{STORE}/{file}"] = count
    return removed


def _schema(run: RunDirectory, file: str) -> pa.Schema:
    with run.filesystem.open_input_file(run.join(file)) as stream:
        return pq.read_schema(stream)


def _rewrite(run: RunDirectory, file: str, table: pa.Table, keep: pl.Series) -> int:
    removed = len(keep) - int(keep.sum())
    if removed:
        options = PARQUET if file.startswith("ingest/behaviours/") else {}
        run.write_table(file, table.filter(keep.to_arrow()), **options)
    return removed


def _mend_manifests(run: RunDirectory, rows: Mapping[str, int], gone: pl.DataFrame) -> None:
    """Let the manifests say what the files now are."""
    if any(file.startswith(f"{BUNDLE}/") for file in rows):
        bundle = run.folder(BUNDLE)
        bundle.write_bytes(MANIFEST, manifest_bytes({name: bundle.sha256(name) for name in BUNDLE_FILES}))
    for stage in sorted({file.split("/")[0] for file in rows} | {"ingest"}):
        manifest = run.manifest(stage)
        if manifest is None:
            continue
        folder = run.folder(stage)
        for name in _changed(stage, rows):
            if name in manifest["files"]:
                manifest["files"][name] = {"bytes": folder.size(name), "sha256": folder.sha256(name)}
        if stage == "ingest":
            also = {rule["behaviour"] for rule in run.read_json("ingest/config.json")["ingest"]["also"]}
            manifest["result"] = _without(manifest["result"], gone, also)
        folder.write_json(MANIFEST, manifest)


def _changed(stage: str, rows: Mapping[str, int]) -> Iterator[str]:
    for file in rows:
        if file.startswith(f"{stage}/"):
            yield file.removeprefix(f"{stage}/")
    if stage == BUNDLE.split("/")[0]:
        yield f"{BUNDLE.split('/')[1]}/{MANIFEST}"


def _without(result: dict[str, Any], gone: pl.DataFrame, also: set[str]) -> dict[str, Any]:
    """Ingest's counts without the rows that are gone, which are ``rows_forgotten``; ``also`` came with other rows."""
    sessions = gone.unique("session_id")
    counts = Counter(gone["behaviour"].to_list())
    splits = Counter(sessions["split"].to_list())
    rows = gone.filter(~pl.col("behaviour").is_in(sorted(also))).height
    return {
        **result,
        "rows_kept": result["rows_kept"] - rows,
        "rows_forgotten": result.get("rows_forgotten", 0) + rows,
        "num_users": result["num_users"] - gone["user_id"].n_unique(),
        "num_sessions": result["num_sessions"] - sessions.height,
        "behaviours": {word: n - counts[word] for word, n in result["behaviours"].items()},
        "sessions": {split: result["sessions"][split] - splits[split] for split in SPLITS},
    }


def _print(user: str, rows: Mapping[str, int], retrain: list[str]) -> None:
    if not rows:
        print(f"{user}: no rows found. The user is on the run's list of the forgotten all the same.")
    for file, removed in rows.items():
        print(f"{file}: {removed:,} rows removed")
    if retrain:
        print(f"learned from these rows, and to be run again: {', '.join(retrain)} (`slatewise run` does)")

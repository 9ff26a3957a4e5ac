"""``slatewise ingest --dry-run``: read the head of a log, guess what its columns are, and say what was understood."""

import re
import time
from collections.abc import Mapping
from typing import Any

import polars as pl

from encoders.columns import BEHAVIOUR_COLUMNS, IMPRESSION, MADE_COLUMNS, OPTIONAL_COLUMNS, IngestConfig
from encoders.times import parse_times
from encoders.validity import REASONS, Judged, check_rules, judge
from pipelines.artifacts import ArtifactError
from pipelines.config import Config
from pipelines.config_keys import override_text
from pipelines.ingest_files import LogFile, Piece, find_files
from pipelines.ingest_read import LINE, column_names, made_columns, read_piece, with_lines
from pipelines.ingest_spread import columns_to_read
from rl.tasks import build_tasks

HEAD_BYTES, HEAD_ROWS, SHOWN = 1 << 18, 1000, 3
NAMES = {  # letters and digits alone, lower case
    "user_id": "userid user visitorid customerid personid uid memberid clientid accountid customer",
    "item_id": "itemid item productid sku stockcode contentid movieid newsid articleid asin trackid product movie",
    "behaviour": "behaviour behavior eventtype event action behaviortype interaction activity",
    "timestamp": "timestamp eventtime time datetime date createdat invoicedate ts unixtime occurredat",
    "session_id": "sessionid usersession session visitid",
    "value": "value price amount rating unitprice revenue",
    "request_id": "requestid impressionid slateid",
    "position": "position rank slot",
    "propensity": "propensity propensityscore",
}
WORDS = {
    "view": "view pv pageview detail click viewed productview itemview",
    "cart": "cart addtocart basket addedtocart",
    "purchase": "purchase buy transaction order bought checkout sale",
    IMPRESSION: "impression shown exposure",
}


def preview(config: Config) -> dict[str, Any]:
    """Print what the head of ``paths.log`` says under the mapping, guessed where it does not fit.

    Returns:
        ``files`` and their ``columns``, the ``guessed`` settings, and of the head ``rows``, ``kept``, ``rejected`` by
        reason, and the ``words`` for behaviours that no task knows.

    Raises:
        ArtifactError: There is no log, it is empty, or a column is missing and none could be guessed.
    """
    check_rules(config.ingest)
    if config.paths.log is None:
        raise ArtifactError("paths.log: expected a behaviour log, got none. Set it, as paths.log=log.csv.gz.")
    files = find_files(config.paths.log, "paths.log", config.ingest.format)
    names = column_names(files[0], config.ingest.format)
    if names is None:
        raise ArtifactError(f"paths.log: expected rows, {files[0].name} is empty. Give a log that has some.")
    behaviours = (*dict.fromkeys(build_tasks(config.rl.tasks).behaviours), IMPRESSION)
    guessed = _guess(config.ingest, files[0], names, behaviours)
    ingest = config.ingest.model_copy(update=guessed)
    _print_mapping([file.name for file in files], names, ingest, guessed)
    columns, lines = columns_to_read(ingest, files[0], names)
    rows = _head(files[0], ingest, columns)
    rows = with_lines(rows, files[0]) if lines else rows
    judged = judge(rows.drop(LINE), ingest, behaviours, time.time_ns() // 1000)
    result = {
        "files": [file.name for file in files],
        "columns": names,
        "guessed": guessed,
        "rows": rows.height,
        "kept": int((judged.reason == 0).sum()),
        "rejected": {r: n for code, r in enumerate(REASONS, 1) if (n := int((judged.reason == code).sum()))},
        "words": _strange_words(judged),
    }
    _print_head(result, judged, behaviours)
    return result


def _head(file: LogFile, ingest: IngestConfig, columns: list[str]) -> pl.DataFrame:
    piece = Piece(0, 0, 1 if file.kind == "parquet" else -1, 1)
    frames = read_piece(file, piece, ingest.format, columns, ingest.entries, HEAD_BYTES)
    first = next(frames, None)
    if first is None:
        raise ArtifactError(f"paths.log: expected rows, {file.name} has none. Give a log that has some.")
    return first.head(HEAD_ROWS)


def _guess(
    ingest: IngestConfig, file: LogFile, names: list[str], behaviours: tuple[str, ...]
) -> dict[str, Any]:
    """Settings for columns that the mapping leaves to their own names and the log does not have."""
    made = made_columns(ingest.entries)
    wanted = [c for c in BEHAVIOUR_COLUMNS if not (c == "behaviour" and ingest.rules)]
    wanted += [c for c in OPTIONAL_COLUMNS if c in NAMES]
    free = [c for c in wanted if c not in ingest.columns and c not in names and c not in made]
    taken = {name for column in ingest.columns for name in ingest.sources(column)}
    columns: dict[str, str | list[str]] = {}
    for column in free:
        known = NAMES[column].split()
        rated = [(known.index(plain), n) for n in names if n not in taken and (plain := _plain(n)) in known]
        if rated:
            columns[column] = min(rated)[1]
            taken.add(min(rated)[1])
    if "timestamp" in free and "timestamp" not in columns:
        columns |= _by_content(ingest, file, [n for n in names if n not in taken])
    guessed: dict[str, Any] = {"columns": {**ingest.columns, **columns}} if columns else {}
    source = {**ingest.columns, **columns}.get("behaviour", "behaviour")
    if not ingest.rules and not ingest.behaviours and source in names:
        words = _head(file, ingest.model_copy(update={"entries": None}), [str(source)])[str(source)]
        mapped = _guess_words(words.unique().drop_nulls().sort().to_list(), behaviours)
        guessed |= {"behaviours": mapped} if mapped else {}
    return guessed


def _by_content(ingest: IngestConfig, file: LogFile, names: list[str]) -> dict[str, str]:
    """The first column whose texts are nearly all times."""
    rows = _head(file, ingest.model_copy(update={"entries": None}), names)
    for name in names:
        times = parse_times(rows[name], ingest.time_format, ingest.time_zone)
        if times.is_not_null().sum() > 0.9 * rows.height:
            return {"timestamp": name}
    return {}


def _guess_words(words: list[str], behaviours: tuple[str, ...]) -> dict[str, str]:
    """The log's words for behaviours that have another name here; nothing where all are known already."""
    if set(words) <= set(behaviours):
        return {}
    ours = {
        word: next((b for b in behaviours if b == word or _plain(word) in WORDS.get(b, "").split()), None)
        for word in words
    }
    found = {word: behaviour for word, behaviour in ours.items() if behaviour is not None}
    return found if any(word != behaviour for word, behaviour in found.items()) else {}


def _plain(name: str) -> str:
    return re.sub(r"[^a-z0-9]", "", name.lower())


def _strange_words(judged: Judged) -> list[str]:
    if judged.words is None:
        return []
    codes = judged.words.codes[judged.behaviour < 0]
    return sorted({judged.words.values[int(code)] for code in codes if code >= 0})[:20]


def _print_mapping(
    files: list[str], names: list[str], ingest: IngestConfig, guessed: Mapping[str, Any]
) -> None:
    print(f"{len(files)} files, first {files[0]}; columns: {', '.join(names)}")
    known = {*names, *made_columns(ingest.entries), *MADE_COLUMNS}
    for column in (*BEHAVIOUR_COLUMNS, *OPTIONAL_COLUMNS):
        if column == "behaviour" and ingest.rules:
            print("  behaviour      by ingest.rules")
        elif set(ingest.sources(column)) <= known:
            print(f"  {column:14} from {', '.join(ingest.sources(column))}")
    for section, values in guessed.items():
        print(f"guessed; if it is right, say so:  '{override_text(f'ingest.{section}', values)}'")


def _print_head(result: Mapping[str, Any], judged: Judged, behaviours: tuple[str, ...]) -> None:
    reasons = ", ".join(f"{reason} {n}" for reason, n in result["rejected"].items()) or "none"
    print(f"of the first {result['rows']:,} rows {result['kept']:,} are kept; rejected: {reasons}")
    if result["words"]:
        print(f"behaviours that no task knows: {', '.join(result['words'])}")
    users, items = judged.users.spread(judged.users.values), judged.items.spread(judged.items.values)
    when = pl.Series(judged.timestamp).cast(pl.Datetime("us"))
    for row in map(int, (judged.reason == 0).nonzero()[0][:SHOWN]):
        print(f"  {users[row]} {behaviours[int(judged.behaviour[row])]} {items[row]} at {when[row]} UTC")

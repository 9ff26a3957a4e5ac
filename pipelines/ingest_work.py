"""What an ingest has to do: all of a log, or the files that a run does not hold yet."""

import hashlib
import hmac
import json
import os
from dataclasses import dataclass
from typing import Any

from encoders.columns import IngestConfig
from pipelines.artifacts import ArtifactError, RunDirectory
from pipelines.config import Config
from pipelines.ingest_files import LogFile, Piece, Survey, cut, find_files, num_shards, survey
from pipelines.ingest_plan import Base

SETTINGS = ("ingest", "rl.tasks", "rl.slate_length")
STAGE = "ingest"
SHARDING = "xxhash64 of the user"  # a run whose users lie in other shards is not added to


@dataclass(frozen=True)
class Work:
    """What is to be read, and what the run keeps."""

    files: tuple[LogFile, ...]
    pieces: tuple[Piece, ...]
    num_shards: int
    base: Base | None  # None: the run's folder is made anew
    keeps: tuple[str, ...]  # files that stay as they are
    result: dict[str, Any]  # the base's counts
    record: dict[str, Any]  # for the manifest: the log's files, and what a later ingest must know


def content_of(config: Config) -> dict[str, Any]:
    """What decides the outcome besides config: contents of log and item table, and the pseudonym key.

    Raises:
        ArtifactError: A file is missing.
        ValueError: The key's variable is empty.
    """
    record = find_work(config).record
    return {"log": sorted(entry["content"] for entry in record["files"].values()), **_outside(config)}


def find_work(config: Config) -> Work:
    """What to do for ``paths.log``, given what the run holds.

    A file is known by its content. New files are added to a run of the same settings; where the settings or a file
    of the run have changed, the log is read anew, and then it must be whole.

    Raises:
        ArtifactError: A file is missing, or the log lacks files of the run and something has changed.
    """
    files, surveys = _look(config)
    settings = _hash({key: config.value(key) for key in SETTINGS} | _outside(config) | {"sharding": SHARDING})
    given = {
        _place(file): {"content": _content(file, seen), "bytes": file.size}
        for file, seen in zip(files, surveys, strict=True)
    }
    manifest = RunDirectory(config.paths.run).manifest(STAGE)
    before = manifest["result"].get("log") if manifest else None
    if manifest is None or before is None:
        return _whole(config, files, surveys, {"files": given, "settings": settings})
    known, contents = before["files"], {entry["content"] for entry in before["files"].values()}
    changed = [p for p in given if p in known and given[p]["content"] != known[p]["content"]]
    if settings != before["settings"] or changed:
        held = {entry["content"] for entry in given.values()}
        lost = [p for p, entry in known.items() if p not in given and entry["content"] not in held]
        if lost:
            raise ArtifactError(
                f"paths.log: expected all {len(known)} files of the run's log, as its settings or a file have changed, "
                f"got none for {lost[0]}. Give them all, or choose another paths.run."
            )
        return _whole(config, files, surveys, {"files": given, "settings": settings})
    new = [(f, s) for f, s in zip(files, surveys, strict=True) if _content(f, s) not in contents]
    added = {place: entry for place, entry in given.items() if entry["content"] not in contents}
    return _added(config, manifest, [f for f, _ in new], [s for _, s in new], added)


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


def _whole(config: Config, files: list[LogFile], surveys: list[Survey], record: dict[str, Any]) -> Work:
    shards = config.ingest.user_shards or num_shards(files)
    return Work(
        files=tuple(files),
        pieces=tuple(cut(files, surveys, config.ingest.format)),
        num_shards=shards,
        base=None,
        keeps=(),
        result={},
        record={**record, "num_shards": shards, "generation": 0},
    )


def _added(
    config: Config,
    manifest: dict[str, Any],
    files: list[LogFile],
    surveys: list[Survey],
    added: dict[str, dict[str, Any]],
) -> Work:
    before = manifest["result"]["log"]
    generation = before["generation"] + 1
    base = Base(
        RunDirectory(config.paths.run).folder(STAGE), generation, before["num_shards"], *before["cuts_us"]
    )
    return Work(
        files=tuple(files),
        pieces=tuple(cut(files, surveys, config.ingest.format)),
        num_shards=base.num_shards,
        base=base,
        keeps=tuple(manifest["files"]),
        result=manifest["result"],
        record={**before, "files": {**before["files"], **added}, "generation": generation},
    )


def _look(config: Config) -> tuple[list[LogFile], list[Survey]]:
    if config.paths.log is None:
        raise ArtifactError(
            "paths.log: expected a behaviour log (CSV, JSON Lines or Parquet), got none. "
            "Set it, as paths.log=log.csv.gz, or a folder, or a glob in quotes."
        )
    files = find_files(config.paths.log, "paths.log", config.ingest.format)
    return files, survey(files)


def _outside(config: Config) -> dict[str, Any]:
    key = pseudonym_key(config.ingest)
    contents: dict[str, Any] = {"pseudonym_key": key and hmac.digest(key, b"slatewise", hashlib.sha256).hex()}
    if config.paths.items is not None:
        files = find_files(config.paths.items, "paths.items", config.ingest.table_format())
        contents["items"] = {f.name: seen.content for f, seen in zip(files, survey(files), strict=True)}
    return contents


def _place(file: LogFile) -> str:
    return f"{file.filesystem.type_name}:{file.path}"


def _content(file: LogFile, seen: Survey) -> str:
    return _hash([seen.content, file.partitions]) if file.partitions else seen.content


def _hash(content: Any) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True, default=str).encode()).hexdigest()

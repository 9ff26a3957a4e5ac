"""What a stage is, and how it is skipped, resumed and published."""

import hashlib
import json
import logging
import time
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from typing import Any

from pipelines.artifacts import SCHEMA_VERSION, ArtifactError, Folder, RunDirectory
from pipelines.config import Config

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class StageContext:
    """What a stage's function gets: where to read, where to write, and the whole config."""

    config: Config
    run: RunDirectory
    folder: Folder  # write here; published when the function returns

    def input(self, stage: str) -> Folder:
        """The finished folder of an earlier stage."""
        return self.run.folder(stage)

    def result(self, stage: str) -> dict[str, Any]:
        """What an earlier stage reported in its manifest."""
        manifest = self.run.manifest(stage)
        assert manifest is not None, stage
        return dict(manifest["result"])


@dataclass(frozen=True)
class Stage:
    """A step from artifacts to artifacts.

    ``sections`` names the dotted config keys whose values decide the outcome; ``fingerprint`` adds what lies outside
    the run directory, such as the log's content hash. ``execute`` returns the ``result`` of the manifest.
    """

    name: str
    inputs: tuple[str, ...]
    sections: tuple[str, ...]
    execute: Callable[[StageContext], dict[str, Any]]
    help: str
    fingerprint: Callable[[Config], Mapping[str, Any]] = field(default=lambda config: {})
    keeps: Callable[[Config], Collection[str]] = field(default=lambda config: ())


def stage_key(stage: Stage, config: Config, run: RunDirectory) -> str:
    """Hash of everything that decides a stage's outcome.

    Raises:
        ArtifactError: A stage before this one has not finished.
    """
    inputs = {}
    for name in stage.inputs:
        manifest = run.manifest(name)
        if manifest is None:
            raise ArtifactError(
                f"{stage.name}: {run.join(name)} is not finished. Run `slatewise {name}` first."
            )
        inputs[name] = {file: entry["sha256"] for file, entry in manifest["files"].items()}
    content = {
        "schema_version": SCHEMA_VERSION,
        "stage": stage.name,
        "inputs": inputs,
        "config": {key: config.value(key) for key in stage.sections},
        "outside": dict(stage.fingerprint(config)),
    }
    return hashlib.sha256(json.dumps(content, sort_keys=True, default=str).encode()).hexdigest()


def run_stage(stage: Stage, config: Config) -> dict[str, Any]:
    """Run one stage unless it is already there for the same inputs and config. Returns its manifest."""
    run = RunDirectory(config.paths.run)
    run.recover(stage.name)
    key = stage_key(stage, config, run)
    manifest = run.manifest(stage.name)
    if manifest is not None and manifest["key"] == key:
        logger.info("%s: unchanged, skipped (%s)", stage.name, run.join(stage.name))
        return {**manifest, "skipped": True}
    logger.info("%s: started (%s)", stage.name, run.join(stage.name))
    started = time.monotonic()
    partial = run.partial(stage.name, key)
    partial.write_json("config.json", config.model_dump(mode="json"))
    result = stage.execute(StageContext(config=config, run=run, folder=partial))
    seconds = round(time.monotonic() - started, 1)
    entry = {"key": key, "seconds": seconds, "result": result}
    manifest = run.publish(stage.name, partial, entry, keep=stage.keeps(config))
    size = sum(entry["bytes"] for entry in manifest["files"].values())
    summary = ", ".join(f"{name} {value:,}" for name, value in result.items() if isinstance(value, int))
    logger.info(
        "%s: done in %.1f s, %.1f MB%s", stage.name, seconds, size / 1e6, f", {summary}" if summary else ""
    )
    return {**manifest, "skipped": False}

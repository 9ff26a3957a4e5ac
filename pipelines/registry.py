"""All stages by name, each imported only when it is asked for, so that the command line answers at once."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pipelines.stages import Stage


@dataclass(frozen=True)
class Entry:
    """Where a stage lies and what its help says without importing it."""

    constant: str  # module:NAME
    summary: str
    reads: str
    writes: str
    sections: tuple[str, ...]  # dotted config keys that its help lists
    example: str


ENTRIES: dict[str, Entry] = {
    "ingest": Entry(
        constant="pipelines.ingest:INGEST",
        summary="Check a behaviour log and sort it into sessions.",
        reads="paths.log (and paths.items): Parquet, CSV(.gz) or JSON Lines; a file, folder or glob.",
        writes="ingest/: behaviours/*.parquet, items.parquet, and rejected/*.parquet with a reason for each row.",
        sections=("paths", "ingest"),
        example="slatewise ingest --config rees46.yaml paths.log=2019-Oct.csv.gz paths.run=runs/shop",
    ),
    "embed": Entry(
        constant="pipelines.embed:EMBED",
        summary="Embed items and users' pasts with a language model.",
        reads="ingest/.",
        writes="embed/: items.parquet, pasts.parquet, users.parquet, encoder.json.",
        sections=("paths", "encoder", "cluster"),
        example="slatewise embed paths.run=runs/shop encoder.num_actors=2",
    ),
    "fit-simulator": Entry(
        constant="pipelines.fit_simulator:FIT_SIMULATOR",
        summary="Learn from the log how users respond to slates and when they leave.",
        reads="ingest/, embed/.",
        writes="fit-simulator/: the training ensemble, the held-out simulator, and their report.",
        sections=("paths", "rl.tasks", "rl.slate_length", "rl.history_length", "rl.simulator"),
        example="slatewise fit-simulator paths.run=runs/shop rl.simulator.num_members=6",
    ),
    "train": Entry(
        constant="pipelines.train:TRAIN",
        summary="Clone the log's choices, then improve on them by multi-task PPO in the simulator.",
        reads="ingest/, embed/, fit-simulator/.",
        writes="train/: the policy bundle that is evaluated and served.",
        sections=(
            "paths",
            "cluster",
            "rl.tasks",
            "rl.slate_length",
            "rl.history_length",
            "rl.clone",
            "rl.ppo",
        ),
        example="slatewise train paths.run=runs/shop rl.tasks.purchase.weight=3",
    ),
    "sweep": Entry(
        constant="pipelines.sweep:SWEEP",
        summary="Train many policies and show which trade-offs between tasks are worth choosing.",
        reads="ingest/, embed/, fit-simulator/.",
        writes="sweep/front.json: every trial's values and returns on the held-out simulator, the Pareto-best marked.",
        sections=("paths", "cluster", "rl.tasks", "rl.sweep"),
        example="slatewise sweep paths.run=runs/shop rl.sweep.num_trials=16",
    ),
    "evaluate": Entry(
        constant="pipelines.evaluate:EVALUATE",
        summary="Compare the policy with its rivals and say whether to promote it.",
        reads="ingest/, embed/, fit-simulator/, train/.",
        writes="evaluate/, and report.json and report.html at the top of the run directory.",
        sections=("paths", "rl.tasks", "rl.evaluation"),
        example="slatewise evaluate paths.run=runs/shop rl.evaluation.gate.max_task_loss=0.02",
    ),
}

RUN_ORDER = ("ingest", "embed", "fit-simulator", "train", "evaluate")


class _Stages(Mapping[str, "Stage"]):
    """The stages by name; looking one up imports its module."""

    def __getitem__(self, name: str) -> "Stage":
        module, _, constant = ENTRIES[name].constant.partition(":")
        stage: Stage = getattr(import_module(module), constant)
        return stage

    def __iter__(self) -> Iterator[str]:
        return iter(ENTRIES)

    def __len__(self) -> int:
        return len(ENTRIES)


STAGES: Mapping[str, "Stage"] = _Stages()

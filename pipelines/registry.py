"""All stages and commands by name, each imported only when it is asked for, so that help comes at once."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pipelines.stages import Stage


@dataclass(frozen=True)
class Entry:
    """Where a stage or command lies and what its help says without importing it."""

    constant: str  # module:NAME of a Stage, or of a function from config to result
    summary: str
    reads: str
    writes: str
    sections: tuple[str, ...]  # dotted config keys that its help lists
    example: str


ENTRIES: dict[str, Entry] = {
    "ingest": Entry(
        constant="pipelines.ingest:INGEST",
        summary="Check a behaviour log and sort it into sessions.",
        reads="paths.log (and paths.items): Parquet, CSV(.gz), JSON Lines; a file, folder or glob, local or a URI.\n"
        "        Files that the run does not hold yet are added to it. --dry-run only reads the head.",
        writes="ingest/: behaviours/*.parquet, items.parquet, rejected/*.parquet with reasons, profile.html.",
        sections=("paths", "ingest", "cluster"),
        example="slatewise ingest --config rees46.yaml paths.log=2019-Oct.csv.gz paths.run=runs/shop",
    ),
    "embed": Entry(
        constant="pipelines.embed:EMBED",
        summary="Embed items and users' pasts with a language model.",
        reads="ingest/.",
        writes="embed/: items.parquet, pasts.parquet, users.parquet, encoder.json, failed.parquet; and embeddings/.",
        sections=("paths", "encoder", "cluster"),
        example="slatewise embed paths.run=runs/shop encoder.num_actors=2",
    ),
    "finetune": Entry(
        constant="pipelines.finetune:FINETUNE_STAGE",
        summary="Tune the language model to the log, and say what it brought.",
        reads="ingest/.",
        writes="finetune/: the model, for encoder.tuned=true, and report.json with retrieval before and after.",
        sections=("paths", "finetune", "encoder", "cluster"),
        example="slatewise finetune paths.run=runs/shop finetune.method=lora",
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
        writes="train/: the weights of the clone and of the policy, and the learning curve.",
        sections=(
            "paths",
            "cluster",
            "rl.tasks",
            "rl.slate_length",
            "rl.history_length",
            "rl.clone_share",
            "rl.temperature",
            "rl.clone",
            "rl.tilt",
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
        writes="evaluate/, with the bundle that serves; report.json and report.html at the top of the run directory.",
        sections=("paths", "rl.tasks", "rl.evaluation"),
        example="slatewise evaluate paths.run=runs/shop rl.evaluation.gate.max_task_loss=0.02",
    ),
}

COMMANDS: dict[str, Entry] = {
    "serve": Entry(
        constant="pipelines.serve:serve_command",
        summary="Answer requests for slates over HTTP with a trained policy.",
        reads="The policy bundle of --policy RUN, which is checked file by file and replayed before it serves.",
        writes="nothing; it answers until interrupted.",
        sections=("serve", "cluster"),
        example="slatewise serve --policy runs/shop serve.port=8000",
    ),
    "run": Entry(
        constant="pipelines.run:run_all",
        summary="Run every stage from the log to the report, skipping what is there already.",
        reads="paths.log and paths.items.",
        writes="All of the run directory; the result is report.html at its top.",
        sections=("seed", "paths", "cluster"),
        example="slatewise run --config rees46.yaml paths.log=2019-Oct.csv.gz paths.run=runs/shop",
    ),
    "demo": Entry(
        constant="pipelines.demo:run_demo",
        summary="Run everything on a made-up shop, then show the truth that only a made-up shop can tell.",
        reads="Nothing.",
        writes="runs/demo unless paths.run says otherwise.",
        sections=("seed", "paths", "shop"),
        example="slatewise demo seed=1 paths.run=runs/demo-1",
    ),
    "submit": Entry(
        constant="pipelines.submit:submit_command",
        summary="Send a stage to a running Ray cluster, follow its log, and end with its exit status.",
        reads="This checkout, which travels with the job; files that git ignores stay here.",
        writes="What the stage writes. Its paths must be ones that the cluster's hosts see.",
        sections=("cluster",),
        example="slatewise submit cluster.dashboard_url=http://head:8265 -- train paths.run=s3://bucket/run",
    ),
    "compare": Entry(
        constant="pipelines.compare:compare_runs",
        summary="Put the reports of several runs side by side.",
        reads="report.json of each run directory named.",
        writes="Nothing; with --page FILE, one self-contained page.",
        sections=(),
        example="slatewise compare runs/shop runs/shop-greedier --page compare.html",
    ),
    "forget": Entry(
        constant="pipelines.forget:forget_command",
        summary="Remove a user's rows from every table of a run, keep them out, and say what must be retrained.",
        reads="USER, the id as the log has it; with pseudonyms, their key's variable.",
        writes="The run's tables without the user, and forgotten.json, which later ingests heed.",
        sections=("paths.run", "encoder.store"),
        example="slatewise forget 512475445 paths.run=runs/shop",
    ),
    "status": Entry(
        constant="pipelines.status:run_status",
        summary="Say which stages of a run are done, when, how long they took and what an interruption left.",
        reads="The manifests of the run directory.",
        writes="Nothing.",
        sections=("paths.run",),
        example="slatewise status runs/demo",
    ),
}

OPTIONAL = (
    "finetune",
    "sweep",
)  # stages that no other needs; `run` adds finetune where encoder.tuned asks for it
RUN_ORDER = ("ingest", "embed", "fit-simulator", "train", "evaluate")


def run_order(tuned: bool) -> tuple[str, ...]:
    """The stages from log to report, in order; ``tuned`` adds the one that tunes the language model."""
    return ("ingest", "finetune", *RUN_ORDER[1:]) if tuned else RUN_ORDER


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

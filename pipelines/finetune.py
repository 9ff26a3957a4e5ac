"""Stage ``finetune``: the language model learns the shop's domain from the log before it embeds."""

import logging
import shutil
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import torch
from numpy.typing import NDArray

from encoders.language_model import LanguageModel, choose_pooling
from encoders.model_files import ModelFiles, resolve_model
from encoders.text import item_text
from encoders.tuning import Tuner, retrieval_gains
from encoders.tuning_loop import TuningData, tune
from encoders.tuning_pairs import NextItems, items_together, next_items
from pipelines.artifacts import Folder
from pipelines.config import Config
from pipelines.model import DECISIVE, FINETUNE, prompts
from pipelines.stages import Stage, StageContext
from rl.evaluation.intervals import Bootstrap, mean_intervals

logger = logging.getLogger(__name__)

CHECKPOINT = "checkpoint.safetensors"
MODEL = "model"
METRICS = ("hit@10", "ndcg@10")
# What sentence-transformers keeps beside the weights, and embed reads: pooling, prompts, further layers.
BESIDE = (
    "modules.json",
    "config_sentence_transformers.json",
    "sentence_bert_config.json",
    "1_Pooling/config.json",
)


def _finetune(context: StageContext) -> dict[str, Any]:
    config = context.config
    files = resolve_model(config.encoder.model)
    data, test = read_tuning_data(context.input("ingest"), config, files)
    if len(test) == 0:
        raise ValueError("finetune: expected test sessions of a user with a past, found none.")
    curve = _run(context, files, data)
    with tempfile.TemporaryDirectory() as place:
        tuned = _copy_model(context.folder.folder(MODEL), Path(place))
        before, after = (_gains(config, of, data.items, test) for of in (files, tuned))
    parts = {"before": before, "after": after, "difference": after - before}
    judged = {name: _estimates(samples, test, config.seed) for name, samples in parts.items()}
    context.folder.write_json("report.json", {"curve": curve, **judged})
    _show(judged)
    context.folder.filesystem.delete_file(context.folder.join(CHECKPOINT))
    return {
        "base_model": files.name,
        "weights_sha256": tuned.weights_sha256,
        "num_train": len(data.train),
        "num_item_pairs": len(data.together),
        "num_steps": int(curve[-1]["step"]),
        "num_judged": len(test),
        **judged,
    }


def read_tuning_data(ingest: Folder, config: Config, files: ModelFiles) -> tuple[TuningData, NextItems]:
    """What is learned from training sessions and checked on validation ones, and what test sessions judge."""
    settings, seed = config.finetune, config.seed
    item_prompt, past_prompt = prompts(config.encoder, files)
    table = ingest.read_table("items.parquet")
    ids: list[str] = table.column("item_id").to_pylist()
    plain = [item_text(row) for row in table.to_pylist()]
    by_id, index = dict(zip(ids, plain, strict=True)), {identity: row for row, identity in enumerate(ids)}
    columns = ["user_id", "session_id", "item_id", "behaviour", "timestamp", "split"]
    found: dict[str, list[NextItems]] = {"train": [], "validation": [], "test": []}
    together = [np.zeros((0, 2), np.int64)]
    for name in ingest.folder("behaviours").files():
        shard = pl.DataFrame(ingest.read_table(f"behaviours/{name}", columns=columns))
        part = next_items(shard, by_id, index, config.encoder.history_items, settings.pairs_per_session, seed)
        for split, moments in part.items():
            found[split].append(moments)
        train = shard.filter(pl.col("split") == "train")
        together.append(items_together(train, index, settings.pairs_per_session, seed))
    joined = {split: _join(parts, past_prompt) for split, parts in found.items()}
    data = TuningData(
        [item_prompt + text for text in plain],
        joined["train"],
        joined["validation"],
        np.concatenate(together),
    )
    return data, _some(joined["test"], settings.num_judged)


def _join(parts: list[NextItems], prompt: str) -> NextItems:
    return NextItems(
        [prompt + text for part in parts for text in part.history],
        np.concatenate([np.zeros(0, np.int64), *(part.item for part in parts)]),
        [user for part in parts for user in part.user],
    )


def _some(moments: NextItems, count: int) -> NextItems:
    """At most ``count`` of them, evenly spread over the users."""
    rows = np.linspace(0, len(moments) - 1, min(count, len(moments))).astype(int)
    return NextItems(
        [moments.history[row] for row in rows], moments.item[rows], [moments.user[row] for row in rows]
    )


def _run(context: StageContext, files: ModelFiles, data: TuningData) -> list[dict[str, float]]:
    """Tune here, or on Ray Train's workers; the model then lies in the stage's folder."""
    config = context.config
    if config.finetune.num_workers == 1 and config.encoder.num_gpus == 0:
        return tune_and_save(config, context.folder, files, data, "cpu")
    from pipelines.finetune_workers import tune_on_workers

    tune_on_workers(context, files)
    curve: list[dict[str, float]] = context.folder.read_json("curve.json")
    return curve


def tune_and_save(
    config: Config, folder: Folder, files: ModelFiles, data: TuningData, device: str, *, first: bool = True
) -> list[dict[str, float]]:
    """Tune in this process, one of several perhaps; the first of them writes the model."""
    pooling = choose_pooling(config.encoder.pooling, files)
    tuner = Tuner(files, pooling, config.finetune, seed=config.seed, device=device)
    curve = tune(
        tuner,
        data,
        config.finetune,
        seed=config.seed,
        load=lambda: folder.read_bytes(CHECKPOINT) if folder.exists(CHECKPOINT) else None,
        save=lambda content: folder.write_bytes(CHECKPOINT, content),
        report=_show_check if first else lambda row: None,
    )
    if first:
        _save_model(tuner, files, folder)
        folder.write_json("curve.json", curve)
    return curve


def _save_model(tuner: Tuner, files: ModelFiles, folder: Folder) -> None:
    with tempfile.TemporaryDirectory() as place:
        tuner.save(place)
        for name in BESIDE:
            if (files.directory / name).is_file():
                Path(place, name).parent.mkdir(exist_ok=True)
                shutil.copy(files.directory / name, Path(place, name))
        for path in sorted(Path(place).rglob("*")):
            if path.is_file():
                folder.write_bytes(f"{MODEL}/{path.relative_to(place).as_posix()}", path.read_bytes())


def _copy_model(model: Folder, place: Path) -> ModelFiles:
    """The tuned model in a folder of this machine."""
    for name in model.files():
        (place / name).parent.mkdir(exist_ok=True)
        (place / name).write_bytes(model.read_bytes(name))
    return resolve_model(str(place))


def _gains(config: Config, files: ModelFiles, items: list[str], test: NextItems) -> NDArray[np.float64]:
    """Hit rate and NDCG at 10 of the item nearest to each history, as ``embed`` would place them. [B, 2]."""
    encoder = config.encoder
    model = LanguageModel(
        files,
        pooling=encoder.pooling,
        precision=encoder.precision,
        max_tokens=encoder.max_tokens,
        batch_tokens=encoder.batch_tokens,
        device="cuda" if encoder.num_gpus > 0 and torch.cuda.is_available() else "cpu",
    )
    gains = retrieval_gains(model.encode(test.history).vectors, model.encode(items).vectors, test.item)
    return np.stack(gains, axis=1)


def _estimates(samples: NDArray[np.float64], test: NextItems, seed: int) -> dict[str, Any]:
    """Mean of each metric, with its interval over users."""
    _, users = np.unique(test.user, return_inverse=True)
    estimates = mean_intervals(samples, users.astype(np.int64), Bootstrap(seed=seed))
    return {name: e.to_json() for name, e in zip(METRICS, estimates, strict=True)}


def _show_check(row: dict[str, float]) -> None:
    loss = f"loss {row['loss']:.3f}, " if "loss" in row else ""
    logger.info("finetune: step %d, %sndcg@10 %.4f on validation sessions", row["step"], loss, row["ndcg"])


def _show(judged: dict[str, Any]) -> None:
    for name, metrics in judged.items():
        shown = "  ".join(
            f"{metric} {e['mean']:.4f} [{e['low']:.4f}, {e['high']:.4f}]" for metric, e in metrics.items()
        )
        logger.info("finetune: %-10s %s", name, shown)


def _fingerprint(config: Config) -> dict[str, str]:
    return {"weights_sha256": resolve_model(config.encoder.model).weights_sha256}


FINETUNE_STAGE = Stage(
    name=FINETUNE,
    inputs=("ingest",),
    sections=("seed", "finetune", *(f"encoder.{name}" for name in DECISIVE if name != "tuned")),
    execute=_finetune,
    help="Tune the language model to the log, and say what it brought.",
    fingerprint=_fingerprint,
)

"""The language model of a run: as configured, or as ``slatewise finetune`` left it."""

from pathlib import Path
from tempfile import gettempdir

import pyarrow.fs as pafs

from encoders.config import EncoderConfig
from encoders.model_files import ModelFiles, default_prompts, resolve_model
from pipelines.artifacts import ArtifactError, RunDirectory

FINETUNE = "finetune"
# Settings that decide the vectors, a GPU among them because it may bring bf16; speed and place do not.
DECISIVE = (
    *("model", "tuned", "pooling", "precision", "max_tokens", "num_gpus"),
    *("history_items", "item_prompt", "past_prompt", "images"),
)


def find_model(encoder: EncoderConfig, run_uri: str) -> ModelFiles:
    """The files of the model that embeds.

    A tuned model is named ``<base> tuned``, with the key of the stage that tuned it as its revision.

    Raises:
        ModelError: No place has the model.
        ArtifactError: The tuned model is asked for and not there.
    """
    if not encoder.tuned:
        return resolve_model(encoder.model)
    run = RunDirectory(run_uri)
    manifest = run.manifest(FINETUNE)
    if manifest is None:
        raise ArtifactError(
            f"encoder.tuned: {run.join(FINETUNE)} is not finished. Run `slatewise finetune` first."
        )
    key = str(manifest["key"])[:16]
    files = resolve_model(str(_local(run, key)))
    return ModelFiles(f"{encoder.model} tuned", files.directory, f"finetune {key}", files.weights_sha256)


def prompts(config: EncoderConfig, files: ModelFiles) -> tuple[str, str]:
    """What goes before each item and each past."""
    document, query = default_prompts(files)
    return (
        document if config.item_prompt is None else config.item_prompt,
        query if config.past_prompt is None else config.past_prompt,
    )


def _local(run: RunDirectory, key: str) -> Path:
    """Folder of the tuned model on this machine; fetched once where the run lies elsewhere."""
    source = run.join(f"{FINETUNE}/model")
    if isinstance(run.filesystem, pafs.LocalFileSystem):
        return Path(source)
    target = Path(gettempdir(), f"slatewise-model-{key}")
    if not (target / "config.json").is_file():
        names = run.folder(f"{FINETUNE}/model").files()
        for name in sorted(names, key=lambda name: name == "config.json"):  # last: it says that all is there
            path = target / name
            path.parent.mkdir(parents=True, exist_ok=True)
            partial = path.with_name(path.name + ".tmp")
            partial.write_bytes(run.folder(f"{FINETUNE}/model").read_bytes(name))
            partial.replace(path)
    return target

"""Fine-tuning on several workers, or on GPUs, by Ray Train."""

import re
from typing import Any

from cluster.connection import connect
from encoders.model_files import ModelError, ModelFiles, resolve_model
from pipelines.artifacts import Folder, open_filesystem
from pipelines.config import Config, build_config
from pipelines.stages import StageContext


def tune_on_workers(context: StageContext, files: ModelFiles) -> None:
    """Tune on ``finetune.num_workers`` workers; the first writes model and curve into the stage's folder.

    Raises:
        ModelError: A worker's host has other weights than this one.
    """
    config = context.config
    with connect(config.cluster):
        import ray
        from ray.train import RunConfig, ScalingConfig
        from ray.train.torch import TorchTrainer

        gpu = config.encoder.num_gpus > 0
        trainer = TorchTrainer(
            _work,
            train_loop_config={
                "config": config.model_dump(mode="json"),
                "ingest": _uri(context, context.input("ingest")),
                "folder": _uri(context, context.folder),
                "weights_sha256": files.weights_sha256,
            },
            scaling_config=ScalingConfig(num_workers=config.finetune.num_workers, use_gpu=gpu),
            run_config=RunConfig(storage_path=_uri(context, context.folder.folder("ray"))),
        )
        try:
            trainer.fit()
        except ray.exceptions.RayError as error:
            raise _cause(error) from error
    context.folder.folder("ray").delete()


def _work(arguments: dict[str, Any]) -> None:
    """One worker: the same data, other batches, gradients averaged."""
    import torch
    from ray.train import get_context
    from ray.train.torch import get_device

    from pipelines.finetune import read_tuning_data, tune_and_save

    torch.set_num_threads(1)
    config: Config = build_config(arguments["config"])
    files = resolve_model(config.encoder.model)
    if files.weights_sha256 != arguments["weights_sha256"]:
        raise ModelError(
            f"encoder.model: expected weights {arguments['weights_sha256'][:16]} on every host, got "
            f"{files.weights_sha256[:16]} in {files.directory}. Install the same model there."
        )
    data, _ = read_tuning_data(Folder(*open_filesystem(arguments["ingest"])), config, files)
    first = get_context().get_world_rank() == 0
    folder = Folder(*open_filesystem(arguments["folder"]))
    tune_and_save(config, folder, files, data, str(get_device()), first=first)


def _uri(context: StageContext, folder: Folder) -> str:
    """A folder's place as workers open it."""
    run = context.run
    if "://" not in run.uri:
        return folder.path
    return run.uri.rstrip("/") + folder.path.removeprefix(run.path)


def _cause(error: Exception) -> Exception:
    found = re.search(r"ModelError: (.+)", str(error))
    return ModelError(found.group(1)) if found else error

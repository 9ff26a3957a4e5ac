"""Ensembles as files: safetensors for weights, JSON for shapes."""

import json
import zlib

import numpy as np
from numpy.typing import NDArray
from safetensors.torch import load as load_safetensors
from safetensors.torch import save as save_safetensors

from rl.simulator.response_model import ResponseModel
from rl.simulator.shape import ResponseShape
from rl.simulator.simulation import Ensemble
from rl.tasks import Tasks


def ensemble_files(ensemble: Ensemble) -> dict[str, bytes]:
    """The files ``ensemble.json`` and ``ensemble.safetensors``, by name."""
    tensors = {"past_mean": ensemble.past_mean, "past_projection": ensemble.past_projection}
    for index, member in enumerate(ensemble.members):
        tensors |= {f"{index}.{name}": value for name, value in member.state_dict().items()}
    shapes = [member.shape.model_dump(mode="json") for member in ensemble.members]
    text = json.dumps(
        {"members": shapes, "max_steps": ensemble.max_steps, "pessimism": ensemble.pessimism}, indent=2
    )
    weights = save_safetensors({name: value.contiguous().clone() for name, value in tensors.items()})
    return {"ensemble.json": text.encode(), "ensemble.safetensors": weights}


def load_ensemble(files: dict[str, bytes], tasks: Tasks) -> Ensemble:
    """The ensemble that ``ensemble_files`` wrote.

    Raises:
        ValueError: It was fitted to another number of tasks.
    """
    settings = json.loads(files["ensemble.json"])
    tensors = load_safetensors(files["ensemble.safetensors"])
    members = []
    for index, content in enumerate(settings["members"]):
        shape = ResponseShape.model_validate(content)
        if len(shape.parents) != len(tasks):
            raise ValueError(
                f"fit-simulator: expected {len(tasks)} tasks, the fitted one has {len(shape.parents)}. Fit it again."
            )
        prefix = f"{index}."
        state = {n.removeprefix(prefix): t for n, t in tensors.items() if n.startswith(prefix)}
        member = ResponseModel(shape, state["item_features"], state["item_texts"])
        try:
            member.load_state_dict(state)
        except RuntimeError as error:
            raise ValueError(
                f"fit-simulator: expected the weights of this version's response model, {' '.join(str(error).split())} "
                "Delete the fit-simulator folder and run again."
            ) from error
        members.append(member.eval().requires_grad_(False))
    return Ensemble(
        members=tuple(members),
        tasks=tasks,
        past_mean=tensors["past_mean"],
        past_projection=tensors["past_projection"],
        max_steps=settings["max_steps"],
        pessimism=settings["pessimism"],
    )


def user_bucket(user_ids: list[str], buckets: int = 1000) -> NDArray[np.int64]:
    """A stable number below ``buckets`` for each user, so that splits by user survive new logs. int64 [n]."""
    return np.array([zlib.crc32(user.encode()) % buckets for user in user_ids], dtype=np.int64)

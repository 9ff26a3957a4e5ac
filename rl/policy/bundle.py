"""The policy bundle: one directory that holds all that service needs, each file under its hash."""

import io
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from numpy.typing import NDArray
from pydantic import ValidationError
from safetensors.torch import load as load_safetensors
from safetensors.torch import save as save_safetensors
from torch import Tensor

from encoders.state import States
from rl.policy.bundle_files import (
    FILES,
    MANIFEST,
    BundleError,
    ReadableFolder,
    bundle_version,
    checked_files,
    manifest_bytes,
    read_manifest,
    sha256,
)
from rl.policy.network import PolicyShape, SlatePolicy
from rl.policy.plackett_luce import sample_slates, slate_log_prob
from rl.tasks import Tasks

PROBE_TOLERANCE = 1e-4  # nats; another processor's rounding is far below, another policy far above
_PROBES = ("past", "history_items", "history_tasks", "task_weights", "slates", "log_prob")


class WritableFolder(Protocol):
    """Where a bundle is written."""

    def write_bytes(self, name: str, data: bytes) -> None:
        """Write a file."""

    def write_json(self, name: str, content: Any) -> None:
        """Write a JSON file."""

    def write_table(self, name: str, table: pa.Table) -> None:
        """Write a Parquet file."""

    def read_bytes(self, name: str) -> bytes:
        """Content of a file."""


@dataclass(frozen=True)
class Bundle:
    """A loaded policy with all that it needs to answer requests."""

    version: str
    policy: SlatePolicy
    tasks: Tasks
    items: pa.Table  # item_id and text columns, in the order of the item index
    item_index: dict[str, int]
    users: dict[str, int]  # row of user_pasts by user id
    user_pasts: NDArray[np.float32]  # [U, D]
    empty_past: NDArray[np.float32]  # [D]
    encoder: dict[str, Any]
    config: dict[str, Any]
    verdict: dict[str, Any]


def write_bundle(
    folder: WritableFolder,
    policy: SlatePolicy,
    *,
    items: pa.Table,
    embeddings: NDArray[np.float32],
    users: pa.Table,
    encoder: Mapping[str, Any],
    config: Mapping[str, Any],
    verdict: Mapping[str, Any],
    tasks: Tasks,
    probes: States,
    task_weights: NDArray[np.float32],
    seed: int = 0,
) -> str:
    """Write a policy and all that its service needs, the manifest last. Returns the policy version.

    Args:
        folder: Where to; what lies there under the same names is replaced.
        policy: In any mode; left as it was.
        items: ``item_id`` and text columns, in the order of the item index. N rows.
        embeddings: Text embeddings of the items. float32 [N, D].
        users: ``user_id`` and ``embedding``, the user's whole past.
        encoder: Model, revision, pooling and ``empty_past``, the embedding of no past [D].
        config: The resolved config.
        verdict: The gate's ``promote`` and ``reasons``.
        tasks: K tasks in the policy's order.
        probes: States that loading replays. B rows, at least one.
        task_weights: Of the probes. float32 [B, K].
        seed: Draws the probes' slates.

    Raises:
        ValueError: Sizes differ, ids repeat, or there is no probe.
    """
    _check_sizes(policy, items, embeddings, users, encoder, tasks, probes, task_weights)
    folder.write_bytes("policy.safetensors", save_safetensors(_weights(policy)))
    folder.write_json("shape.json", {"policy": policy.shape.model_dump(), "tasks": _tasks_json(tasks)})
    folder.write_table("items.parquet", _with_vectors(items, embeddings))
    folder.write_table("users.parquet", users.select(["user_id", "embedding"]))
    folder.write_json("encoder.json", dict(encoder))
    folder.write_json("config.json", dict(config))
    folder.write_json("verdict.json", dict(verdict))
    folder.write_bytes("probes.safetensors", save_safetensors(_probe(policy, probes, task_weights, seed)))
    hashes = {name: sha256(folder.read_bytes(name)) for name in FILES}
    folder.write_bytes(MANIFEST, manifest_bytes(hashes))
    return bundle_version(hashes)


def load_bundle(folder: ReadableFolder) -> Bundle:
    """A bundle, after its hashes were checked and its probes replayed.

    Raises:
        BundleError: A file is missing, unknown or changed, the schema version is another, or the policy
            gives the probes other log-probabilities than when it was written.
    """
    manifest = read_manifest(folder)
    content = checked_files(folder, manifest)
    shape, tasks = _read_shape(content["shape.json"], folder.path)
    items = pq.read_table(io.BytesIO(content["items.parquet"]))
    users = pq.read_table(io.BytesIO(content["users.parquet"]))
    policy = SlatePolicy(shape, _vectors(items, shape.text_width))
    policy.load_state_dict(load_safetensors(content["policy.safetensors"]))
    policy.eval().requires_grad_(False)
    _replay(policy, load_safetensors(content["probes.safetensors"]), folder.path)
    encoder = json.loads(content["encoder.json"])
    return Bundle(
        version=manifest.version,
        policy=policy,
        tasks=tasks,
        items=items.drop_columns(["embedding"]),
        item_index={item: row for row, item in enumerate(items["item_id"].to_pylist())},
        users={user: row for row, user in enumerate(users["user_id"].to_pylist())},
        user_pasts=_vectors(users, shape.text_width),
        empty_past=np.asarray(encoder["empty_past"], dtype=np.float32),
        encoder=encoder,
        config=json.loads(content["config.json"]),
        verdict=json.loads(content["verdict.json"]),
    )


def _check_sizes(
    policy: SlatePolicy,
    items: pa.Table,
    embeddings: NDArray[np.float32],
    users: pa.Table,
    encoder: Mapping[str, Any],
    tasks: Tasks,
    probes: States,
    task_weights: NDArray[np.float32],
) -> None:
    shape = policy.shape
    _expect("tasks", len(tasks), shape.num_tasks)
    _expect("items", items.num_rows, shape.num_items)
    _expect("item embeddings", embeddings.shape, (shape.num_items, shape.text_width))
    _expect("encoder.empty_past", len(encoder.get("empty_past", ())), shape.text_width)
    _expect("probes' history", probes.history_items.shape[1], shape.history_length)
    _expect("probes' task weights", task_weights.shape, (len(probes), shape.num_tasks))
    _expect("distinct item ids", len(set(items["item_id"].to_pylist())), items.num_rows)
    _expect("distinct user ids", len(set(users["user_id"].to_pylist())), users.num_rows)
    if len(probes) == 0:
        raise ValueError("bundle: expected at least one probe state, got none. Take states of the log.")


def _expect(what: str, got: object, expected: object) -> None:
    if got != expected:
        raise ValueError(f"bundle: {what}: expected {expected}, got {got}.")


def _weights(policy: SlatePolicy) -> dict[str, Tensor]:
    return {name: value.detach().cpu().contiguous() for name, value in policy.state_dict().items()}


def _tasks_json(tasks: Tasks) -> dict[str, Any]:
    return {
        "names": list(tasks.names),
        "behaviours": list(tasks.behaviours),
        "weights": tasks.weights.tolist(),
        "parents": list(tasks.parents),
        "signs": tasks.signs.tolist(),
        "pays_value": tasks.pays_value.tolist(),
    }


def _with_vectors(items: pa.Table, embeddings: NDArray[np.float32]) -> pa.Table:
    flat = pa.array(np.ascontiguousarray(embeddings, dtype=np.float32).reshape(-1))
    return items.append_column("embedding", pa.FixedSizeListArray.from_arrays(flat, embeddings.shape[1]))


def _vectors(table: pa.Table, width: int) -> NDArray[np.float32]:
    """Column ``embedding`` as a writable array. float32 [rows, D]."""
    column = table["embedding"].combine_chunks()
    flat = column.flatten().to_numpy(zero_copy_only=False)
    return np.array(flat, dtype=np.float32).reshape(table.num_rows, width)  # [rows, D]


def _probe(
    policy: SlatePolicy, states: States, task_weights: NDArray[np.float32], seed: int
) -> dict[str, Tensor]:
    probe = {
        "past": torch.from_numpy(np.ascontiguousarray(states.past, dtype=np.float32)),
        "history_items": torch.from_numpy(np.ascontiguousarray(states.history_items)),
        "history_tasks": torch.from_numpy(np.ascontiguousarray(states.history_tasks)),
        "task_weights": torch.from_numpy(np.ascontiguousarray(task_weights, dtype=np.float32)),
    }
    logits = _probe_logits(policy, probe)
    length = min(policy.shape.slate_length, policy.shape.num_items)
    slates = sample_slates(logits, length, torch.Generator().manual_seed(seed))
    return {**probe, "slates": slates, "log_prob": slate_log_prob(logits, slates)}


def _probe_logits(policy: SlatePolicy, probe: Mapping[str, Tensor]) -> Tensor:
    device = policy.item_embeddings.device
    training = policy.training
    policy.eval()
    with torch.no_grad():
        past, items, history_tasks, weights = (probe[name].to(device) for name in _PROBES[:4])
        logits = policy.logits(past, items, history_tasks, weights).cpu()
    policy.train(training)
    return logits


def _replay(policy: SlatePolicy, probe: Mapping[str, Tensor], where: str) -> None:
    if set(probe) != set(_PROBES):
        raise BundleError(
            f"{where}/probes.safetensors: expected {', '.join(_PROBES)}, found {sorted(probe)}."
        )
    log_prob = slate_log_prob(_probe_logits(policy, probe), probe["slates"])
    furthest = float((log_prob - probe["log_prob"]).abs().nan_to_num(torch.inf).max())
    if furthest > PROBE_TOLERANCE:
        raise BundleError(
            f"{where}: expected the probes' log-probabilities within {PROBE_TOLERANCE:g}, got one "
            f"{furthest:.3g} away: what trained is not what would serve. Write the bundle again."
        )


def _read_shape(data: bytes, where: str) -> tuple[PolicyShape, Tasks]:
    content = json.loads(data)
    try:
        shape = PolicyShape.model_validate(content["policy"])
    except ValidationError as error:
        raise BundleError(f"{where}/shape.json: expected the sizes of a policy, {error}.") from error
    tasks = content["tasks"]
    return shape, Tasks(
        names=tuple(tasks["names"]),
        behaviours=tuple(tasks["behaviours"]),
        weights=np.asarray(tasks["weights"], dtype=np.float32),
        parents=tuple(tasks["parents"]),
        signs=np.asarray(tasks["signs"], dtype=np.float32),
        pays_value=np.asarray(tasks["pays_value"], dtype=np.bool_),
        limits=np.full(len(tasks["names"]), np.inf, dtype=np.float32),  # training's affair
    )

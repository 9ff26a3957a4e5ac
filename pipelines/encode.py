"""Texts through a pool of Ray Data actors into the embedding store."""

import logging
import math
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import pyarrow as pa

from cluster.connection import connect
from encoders.config import EncoderConfig
from encoders.model_files import ModelError
from encoders.store import EmbeddingStore, Space, text_key
from pipelines.artifacts import open_filesystem
from pipelines.config import Config
from pipelines.model import find_model
from pipelines.progress import track

BATCH_TEXTS = 512  # texts a shard of the store: what an interruption may cost an actor
BLOCKS_AN_ACTOR = 8  # few and large, yet enough that actors end together
MIN_TEXTS = 1024  # an actor takes seconds to start: no more of them than have this much to do

_PROBLEMS = pa.list_(pa.struct([("text", pa.string()), ("reason", pa.string())]))


@dataclass(frozen=True)
class Job:
    """What an actor needs besides the texts."""

    encoder: EncoderConfig
    run_uri: str  # where a tuned model lies
    space: Space
    store_uri: str
    num_threads: int


def encode_texts(texts: Sequence[str], config: Config, space: Space, store_uri: str) -> dict[str, str]:
    """Encode distinct texts into the store. What is done stays done if this is interrupted.

    Returns:
        Why the model could not take a text, by text; mostly empty.

    Raises:
        ModelError: An actor found no model, or other weights than this process has.
    """
    problems: dict[str, str] = {}
    with connect(config.cluster):
        import ray

        try:
            for found in _stream(texts, config, space, store_uri):
                problems.update({problem["text"]: problem["reason"] for problem in found})
        except ray.exceptions.RayError as error:
            raise _cause(error) from error
    return problems


def _stream(
    texts: Sequence[str], config: Config, space: Space, store_uri: str
) -> Iterator[list[dict[str, str]]]:
    """Run the actors; yields the problems of each batch as it is done."""
    import ray
    from ray.data import ActorPoolStrategy, DataContext

    DataContext.get_current().enable_progress_bars = False
    logging.getLogger("ray.data").setLevel(logging.WARNING)
    logging.getLogger("ray.data._internal.progress").setLevel(logging.ERROR)  # warns of bars being off
    encoder = config.encoder
    hosts = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    num_cpus = max(1, min(encoder.num_cpus, max(int(host.get("CPU", 1)) for host in hosts)))
    num_actors = _num_actors(encoder, len(texts), num_cpus, hosts)
    blocks = _blocks(texts, num_actors)
    done = ray.data.from_arrow(blocks).map_batches(
        EncodeTexts,
        fn_constructor_args=(Job(encoder, config.paths.run, space, store_uri, num_cpus),),
        batch_size=BATCH_TEXTS,
        batch_format="pyarrow",
        compute=ActorPoolStrategy(size=num_actors),
        num_cpus=num_cpus,
        num_gpus=encoder.num_gpus or None,
    )
    batches = done.iter_batches(batch_size=None, batch_format="pyarrow", prefetch_batches=0)
    for batch in track(batches, len(blocks), "texts encoded, blocks"):
        yield from batch.column("problems").to_pylist()


def _num_actors(encoder: EncoderConfig, num_texts: int, num_cpus: int, hosts: list[dict[str, float]]) -> int:
    """As many as configured, else as the hosts have room for, unless there is little to do."""
    if encoder.num_actors is not None:
        return encoder.num_actors
    resource, share = ("GPU", encoder.num_gpus) if encoder.num_gpus > 0 else ("CPU", num_cpus)
    room = sum(int(host.get(resource, 0) // share) for host in hosts)
    return max(1, min(room, math.ceil(num_texts / MIN_TEXTS)))


def _blocks(texts: Sequence[str], num_actors: int) -> list[pa.Table]:
    """Tables of texts of like length, longest first: little padding, and actors end together."""
    ordered = sorted(texts, key=len, reverse=True)
    batches = math.ceil(len(ordered) / BATCH_TEXTS)
    rows = BATCH_TEXTS * math.ceil(batches / (num_actors * BLOCKS_AN_ACTOR))
    starts = range(0, len(ordered), rows)
    return [pa.table({"text": pa.array(ordered[start : start + rows], pa.string())}) for start in starts]


def _cause(error: Exception) -> Exception:
    """The model's error inside an actor, else Ray's own. Of an actor that died at its start only the text is left."""
    found = re.search(r"ModelError: (.+)", str(error))
    return ModelError(found.group(1)) if found else error


class EncodeTexts:
    """A Ray Data actor: the model in memory, its vectors written to the store as they come."""

    def __init__(self, job: Job) -> None:
        import torch

        from encoders.language_model import LanguageModel

        torch.set_num_threads(job.num_threads)
        files, space = find_model(job.encoder, job.run_uri), job.space
        if files.weights_sha256 != space.weights_sha256:
            raise ModelError(
                f"encoder.model: expected weights {space.weights_sha256[:16]} on every host, got "
                f"{files.weights_sha256[:16]} in {files.directory}. Install the same model there."
            )
        self._model = LanguageModel(
            files,
            pooling=space.pooling,
            precision=space.precision,
            max_tokens=space.max_tokens,
            batch_tokens=job.encoder.batch_tokens,
            device="cuda" if job.encoder.num_gpus > 0 else "cpu",
        )
        self._store = EmbeddingStore(*open_filesystem(job.store_uri), space)

    def __call__(self, batch: pa.Table) -> pa.Table:
        """Encode a batch of texts. Returns the problems; the vectors are in the store."""
        texts: list[str] = batch.column("text").to_pylist()
        encoded = self._model.encode(texts)
        whole = [row for row in range(len(texts)) if row not in encoded.problems]
        if whole:
            self._store.append(
                [text_key(texts[row]) for row in whole], encoded.vectors[whole], encoded.cut[whole]
            )
        problems = [{"text": texts[row], "reason": reason} for row, reason in encoded.problems.items()]
        return pa.table({"problems": pa.array([problems], _PROBLEMS)})

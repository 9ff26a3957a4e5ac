"""Texts and pictures through a pool of Ray Data actors into the embedding store."""

import logging
import math
import re
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from cluster.connection import connect
from encoders.config import EncoderConfig
from encoders.model_files import ModelError, ModelFiles
from encoders.store import EmbeddingStore, Space, picture_key, text_key
from pipelines.artifacts import ArtifactError, open_filesystem
from pipelines.config import Config
from pipelines.model import find_model
from pipelines.progress import track

BATCH_ROWS = 512  # texts a shard of the store: what an interruption may cost an actor
BLOCKS_AN_ACTOR = 8  # few and large, yet enough that actors end together
PICTURE_READERS = 8  # files read at a time
MIN_TEXTS = 1024  # an actor takes seconds to start: no more of them than have this much to do

_PROBLEMS = pa.list_(pa.struct([("source", pa.string()), ("reason", pa.string())]))


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
    ordered = sorted(texts, key=len, reverse=True)  # like lengths together, and actors end together
    return _run(EncodeTexts, pa.table({"text": pa.array(ordered, pa.string())}), config, space, store_uri)


def encode_pictures(places: Sequence[str], config: Config, space: Space, store_uri: str) -> dict[str, str]:
    """The same for pictures at distinct paths or URIs; the reasons are by place."""
    table = pa.table({"place": pa.array(places, pa.string())})
    return _run(EncodePictures, table, config, space, store_uri)


def _run(
    actor: type["EncodeTexts | EncodePictures"], rows: pa.Table, config: Config, space: Space, store_uri: str
) -> dict[str, str]:
    """Send rows through actors. Returns the problems."""
    problems: dict[str, str] = {}
    with connect(config.cluster):
        import ray

        try:
            for found in _stream(actor, rows, config, space, store_uri):
                problems.update({problem["source"]: problem["reason"] for problem in found})
        except ray.exceptions.RayError as error:
            raise _cause(error) from error
    return problems


def _stream(
    actor: type["EncodeTexts | EncodePictures"], rows: pa.Table, config: Config, space: Space, store_uri: str
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
    num_actors = _num_actors(encoder, len(rows), num_cpus, hosts)
    blocks = _blocks(rows, num_actors)
    done = ray.data.from_arrow(blocks).map_batches(
        actor,
        fn_constructor_args=(Job(encoder, config.paths.run, space, store_uri, num_cpus),),
        batch_size=BATCH_ROWS,
        batch_format="pyarrow",
        compute=ActorPoolStrategy(size=num_actors),
        num_cpus=num_cpus,
        num_gpus=encoder.num_gpus or None,
    )
    batches = done.iter_batches(batch_size=None, batch_format="pyarrow", prefetch_batches=0)
    for batch in track(batches, len(blocks), "encoded, blocks"):
        yield from batch.column("problems").to_pylist()


def _num_actors(encoder: EncoderConfig, num_texts: int, num_cpus: int, hosts: list[dict[str, float]]) -> int:
    """As many as configured, else as the hosts have room for, unless there is little to do."""
    if encoder.num_actors is not None:
        return encoder.num_actors
    resource, share = ("GPU", encoder.num_gpus) if encoder.num_gpus > 0 else ("CPU", num_cpus)
    room = sum(int(host.get(resource, 0) // share) for host in hosts)
    return max(1, min(room, math.ceil(num_texts / MIN_TEXTS)))


def _blocks(rows: pa.Table, num_actors: int) -> list[pa.Table]:
    """The rows in few parts of whole batches, in their order."""
    batches = math.ceil(len(rows) / BATCH_ROWS)
    size = BATCH_ROWS * math.ceil(batches / (num_actors * BLOCKS_AN_ACTOR))
    return [rows.slice(start, size) for start in range(0, len(rows), size)]


def _cause(error: Exception) -> Exception:
    """The model's error inside an actor, else Ray's own. Of an actor that died at its start only the text is left."""
    found = re.search(r"ModelError: (.+)", str(error))
    return ModelError(found.group(1)) if found else error


class EncodeTexts:
    """A Ray Data actor: the model in memory, its vectors written to the store as they come."""

    def __init__(self, job: Job) -> None:
        from encoders.language_model import LanguageModel

        files, self._store = _begin(job)
        space = job.space
        self._model = LanguageModel(
            files,
            pooling=space.pooling,
            precision=space.precision,
            max_tokens=space.max_tokens,
            batch_tokens=job.encoder.batch_tokens,
            device=_device(job),
        )

    def __call__(self, batch: pa.Table) -> pa.Table:
        """Encode a batch of texts. Returns the problems; the vectors are in the store."""
        texts: list[str] = batch.column("text").to_pylist()
        encoded = self._model.encode(texts)
        whole = [row for row in range(len(texts)) if row not in encoded.problems]
        if whole:
            keys = [text_key(texts[row]) for row in whole]
            self._store.append(keys, encoded.vectors[whole], encoded.cut[whole])
        return _problem_table({texts[row]: reason for row, reason in encoded.problems.items()})


class EncodePictures:
    """The same for pictures, read from where they lie."""

    def __init__(self, job: Job) -> None:
        from encoders.clip import PictureModel

        files, self._store = _begin(job)
        self._model = PictureModel(files, job.space.precision, _device(job))

    def __call__(self, batch: pa.Table) -> pa.Table:
        """Encode a batch of pictures. Returns the problems; the vectors are in the store."""
        data, problems = read_pictures(batch.column("place").to_pylist())
        vectors, unreadable = self._model.encode(list(data.values()))
        names = list(data)
        problems |= {names[row]: reason for row, reason in unreadable.items()}
        whole = [row for row in range(len(names)) if row not in unreadable]
        if whole:
            keys = [picture_key(data[names[row]]) for row in whole]
            self._store.append(keys, vectors[whole], np.zeros(len(whole), np.bool_))
        return _problem_table(problems)


def read_pictures(places: Sequence[str]) -> tuple[dict[str, bytes], dict[str, str]]:
    """Bytes of the files by path or URI, and why some cannot be read."""
    data: dict[str, bytes] = {}
    problems: dict[str, str] = {}

    def read(place: str) -> None:
        try:
            filesystem, path = open_filesystem(place)
            with filesystem.open_input_stream(path) as stream:
                data[place] = bytes(stream.read())
        except (ArtifactError, OSError, pa.ArrowInvalid) as error:
            problems[place] = f"not a readable file: {' '.join(str(error).split())}"

    with ThreadPoolExecutor(PICTURE_READERS) as threads:
        list(threads.map(read, places))
    return {place: data[place] for place in places if place in data}, problems


def _begin(job: Job) -> tuple[ModelFiles, EmbeddingStore]:
    """The model's files, checked, and the store, in an actor that starts."""
    import torch

    torch.set_num_threads(job.num_threads)
    files = find_model(job.encoder, job.run_uri)
    if files.weights_sha256 != job.space.weights_sha256:
        raise ModelError(
            f"encoder.model: expected weights {job.space.weights_sha256[:16]} on every host, got "
            f"{files.weights_sha256[:16]} in {files.directory}. Install the same model there."
        )
    return files, EmbeddingStore(*open_filesystem(job.store_uri), job.space)


def _device(job: Job) -> str:
    return "cuda" if job.encoder.num_gpus > 0 else "cpu"


def _problem_table(problems: dict[str, str]) -> pa.Table:
    rows = [{"source": source, "reason": reason} for source, reason in problems.items()]
    return pa.table({"problems": pa.array([rows], _PROBLEMS)})

"""The steps of fine-tuning: batches, checks on later sessions, checkpoints, and the best weights at the end."""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from numpy.typing import NDArray
from safetensors.torch import load as load_tensors
from safetensors.torch import save as save_tensors
from torch import Tensor

from encoders.config import FinetuneConfig
from encoders.tuning import Tuner, contrastive_loss, retrieval_gains
from encoders.tuning_pairs import NextItems, log_popularity

WARM_UP = 0.1  # of the steps
WEIGHT_DECAY = 0.01


@dataclass(frozen=True)
class TuningData:
    """What is learned and what decides when to stop."""

    items: list[str]  # [N] texts
    train: NextItems
    validation: NextItems
    together: NDArray[np.int64]  # [P, 2]


@dataclass
class _Progress:
    """Where tuning stands."""

    step: int = 0
    best: float = -1.0  # NDCG on validation sessions
    waited: int = 0  # checks without gain
    curve: list[dict[str, float]] = field(default_factory=list)
    stopped: bool = False


def learning_rate(step: int, config: FinetuneConfig) -> float:
    """Rises over a tenth of the steps, then falls to 0 on a line."""
    warm = max(1, round(WARM_UP * config.num_steps))
    if step < warm:
        return config.learning_rate * (step + 1) / warm
    return config.learning_rate * (config.num_steps - step) / max(1, config.num_steps - warm)


def tune(
    tuner: Tuner,
    data: TuningData,
    config: FinetuneConfig,
    *,
    seed: int,
    load: Callable[[], bytes | None],
    save: Callable[[bytes], None],
    report: Callable[[dict[str, float]], None] = lambda row: None,
) -> list[dict[str, float]]:
    """Tune until the steps are done or checks stop gaining; the tuner then holds the best weights.

    With ``torch.distributed`` started, each worker draws batches of its own and gradients are averaged. What was
    saved is continued with the same batches, so that an interruption changes nothing.

    Args:
        load: The latest checkpoint, or None.
        save: Keeps a checkpoint, whole or not at all; called on the first worker.
        report: Told of each check.

    Returns:
        The learning curve: ``step``, mean ``loss`` since the last check, ``ndcg`` on validation sessions.

    Raises:
        ValueError: There is nothing to learn from or nothing to check on.
    """
    _check_data(data)
    state = _State(tuner, config)
    state.restore(load())
    progress = state.progress
    draw = _Batches(data, config, seed)
    if not progress.curve:
        _check(tuner, data, config, state, {})
        report(progress.curve[-1])
    losses: list[float] = []
    while progress.step < config.num_steps and not progress.stopped:
        losses.append(_step(tuner, state, draw, config))
        if progress.step % config.check_every == 0 or progress.step == config.num_steps:
            _check(tuner, data, config, state, {"loss": float(np.mean(losses))})
            report(progress.curve[-1])
            losses.clear()
            if _rank() == 0:
                save(state.to_bytes())
    state.take_best()
    return progress.curve


def _step(tuner: Tuner, state: "_State", draw: "_Batches", config: FinetuneConfig) -> float:
    loss = draw.loss(tuner, state.progress.step)
    loss.backward()  # type: ignore[no-untyped-call]
    _average([value.grad for value in tuner.parameters.values() if value.grad is not None])
    torch.nn.utils.clip_grad_norm_(list(tuner.parameters.values()), 1.0)
    for group in state.optimizer.param_groups:
        group["lr"] = learning_rate(state.progress.step, config)
    state.optimizer.step()
    state.optimizer.zero_grad()
    state.progress.step += 1
    return float(loss.detach())


def _check(
    tuner: Tuner, data: TuningData, config: FinetuneConfig, state: "_State", losses: dict[str, float]
) -> None:
    """NDCG on validation sessions; keeps the weights if they are the best so far."""
    progress, judged = state.progress, max(1, config.num_judged // 4)
    rows = np.linspace(0, len(data.validation) - 1, min(judged, len(data.validation))).astype(int)
    queries = tuner.embed([data.validation.history[row] for row in rows])
    _, ndcg = retrieval_gains(queries, tuner.embed(data.items), data.validation.item[rows])
    value = _from_first(float(ndcg.mean()))
    progress.curve.append({"step": progress.step, **losses, "ndcg": value})
    if value > progress.best:
        progress.best, progress.waited = value, 0
        state.keep_best()
    else:
        progress.waited += 1
        progress.stopped = progress.waited >= config.patience


class _Batches:
    """Losses of batches that the step alone decides, whatever ran before."""

    def __init__(self, data: TuningData, config: FinetuneConfig, seed: int) -> None:
        self._data, self._config, self._seed = data, config, seed
        self._num_pairs = config.batch_pairs if len(data.together) else 0
        parts = ((config.batch_histories, data.train.item), (self._num_pairs, data.together[:, 1]))
        drawn = sum(size * np.exp(log_popularity(items, len(data.items))) for size, items in parts)  # [N]
        self._popularity = config.popularity_correction * np.log(drawn / np.sum(drawn))

    def loss(self, tuner: Tuner, step: int) -> Tensor:
        data = self._data
        dice = np.random.default_rng((self._seed, step, _rank()))
        rows = dice.integers(len(data.train), size=self._config.batch_histories)
        histories = [data.train.history[row] for row in rows]
        pairs = data.together[dice.integers(max(1, len(data.together)), size=self._num_pairs)]  # [P, 2]
        items = np.concatenate([data.train.item[rows], pairs[:, 1]])  # [B + P], each others' negatives
        vectors = tuner.vectors([data.items[item] for item in items])
        loss = self._contrast(tuner, histories, vectors, items)
        if self._num_pairs:
            first, order = (
                [data.items[item] for item in pairs[:, 0]],
                np.roll(np.arange(len(items)), -len(rows)),
            )
            loss = loss + self._contrast(tuner, first, vectors[torch.from_numpy(order)], items[order])
        if self._config.language_modelling > 0:
            loss = loss + self._config.language_modelling * tuner.language_loss(histories, dice)
        return loss

    def _contrast(
        self, tuner: Tuner, queries: Sequence[str], vectors: Tensor, items: NDArray[np.int64]
    ) -> Tensor:
        device = vectors.device
        popularity = torch.from_numpy(self._popularity[items]).float().to(device)
        ids = torch.from_numpy(items).to(device)
        return contrastive_loss(tuner.vectors(queries), vectors, ids, popularity, self._config.temperature)


class _State:
    """Optimizer, best weights and progress: what a checkpoint holds."""

    def __init__(self, tuner: Tuner, config: FinetuneConfig) -> None:
        self._parameters = tuner.parameters
        self.optimizer = torch.optim.AdamW(
            self._parameters.values(), lr=config.learning_rate, weight_decay=WEIGHT_DECAY
        )
        self.progress = _Progress()
        self._best: dict[str, Tensor] = {}

    def keep_best(self) -> None:
        self._best = {name: value.detach().clone() for name, value in self._parameters.items()}

    def take_best(self) -> None:
        self._put(self._best)

    def to_bytes(self) -> bytes:
        """The checkpoint as safetensors, progress in its metadata."""
        tensors: dict[str, Tensor] = {}
        for name, value in self._parameters.items():
            tensors[f"now.{name}"] = value.detach()
            tensors[f"best.{name}"] = self._best[name]
            for part, moment in self.optimizer.state[value].items():
                tensors[f"{part}.{name}"] = moment
        content = {name: value.cpu().contiguous() for name, value in tensors.items()}
        content[_PROGRESS] = torch.frombuffer(
            bytearray(json.dumps(vars(self.progress)).encode()), dtype=torch.uint8
        )
        return bytes(save_tensors(content))

    def restore(self, data: bytes | None) -> None:
        """Continue where a checkpoint stands; None begins anew."""
        if data is None:
            return
        content = load_tensors(data)
        self.progress = _Progress(**json.loads(bytes(content.pop(_PROGRESS).numpy())))
        parts: dict[str, dict[str, Tensor]] = {}
        for name, value in content.items():
            part, _, parameter = name.partition(".")
            parts.setdefault(part, {})[parameter] = value
        self._put(parts.pop("now"))
        self._best = parts.pop("best")
        for name, parameter in self._parameters.items():
            moments = {part: values[name] for part, values in parts.items() if name in values}
            if moments:  # a pooler that nothing reads has none
                self.optimizer.state[parameter] = {
                    part: value if part == "step" else value.to(parameter.device)
                    for part, value in moments.items()
                }

    @torch.no_grad()
    def _put(self, weights: dict[str, Tensor]) -> None:
        for name, value in self._parameters.items():
            value.copy_(weights[name])


_PROGRESS = "progress"


def _check_data(data: TuningData) -> None:
    for what, part in (("training", data.train), ("validation", data.validation)):
        if len(part) == 0:
            raise ValueError(
                f"finetune: expected {what} sessions of a user with a past, found none. Take a longer log."
            )


def _rank() -> int:
    return dist.get_rank() if dist.is_initialized() else 0


def _average(gradients: Sequence[Tensor]) -> None:
    """Mean over the workers, in one message."""
    if not dist.is_initialized() or dist.get_world_size() == 1:
        return
    flat: Any = torch.cat([gradient.reshape(-1) for gradient in gradients])
    dist.all_reduce(flat)
    flat /= dist.get_world_size()
    start = 0
    for gradient in gradients:
        gradient.copy_(flat[start : start + gradient.numel()].view_as(gradient))
        start += gradient.numel()


def _from_first(value: float) -> float:
    """The first worker's value, on all of them: they stop together."""
    if not dist.is_initialized():
        return value
    shared = torch.tensor([value], dtype=torch.float64)
    if dist.get_backend() == "nccl":
        shared = shared.cuda()
    dist.broadcast(shared, 0)
    return float(shared.item())

"""From a request to a slate with its exact propensities. No HTTP, no Ray."""

import math
import secrets
from uuid import uuid4

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from encoders.state import session_history
from rl.policy.bundle import Bundle
from rl.policy.plackett_luce import sample_slates, slate_log_prob
from serve.schema import Act, RecommendedItem, RecommendRequest, RecommendResponse, RequestError


class Ranker:
    """Draws slates from a bundle's policy. Not safe for several threads at once: one generator, one device."""

    def __init__(self, bundle: Bundle, seed: int | None = None) -> None:
        """``seed`` None draws one, so that replicas and restarts do not repeat each other."""
        self.bundle = bundle
        self.item_ids: list[str] = bundle.items["item_id"].to_pylist()
        self._generator = torch.Generator().manual_seed(secrets.randbits(63) if seed is None else seed)
        self._past = torch.from_numpy(np.vstack([bundle.user_pasts, bundle.empty_past]))  # [U + 1, D]
        with torch.inference_mode():
            self._keys = bundle.policy.item_keys()

    @torch.inference_mode()
    def recommend(self, request: RecommendRequest) -> RecommendResponse:
        """A slate drawn from the policy.

        Raises:
            RequestError: An item, behaviour or task is unknown, all task weights are 0, or there are fewer
                candidates than items wanted.
        """
        weights = self._task_weights(request.task_weights)  # [1, K]
        queries = self._queries(request)  # [1, K, W]
        barred = self._barred(request)  # [N] or None
        length = self._length(request, barred)
        logits = self._logits(queries, weights)  # [1, N]
        if barred is not None:
            logits = logits.masked_fill(barred, -torch.inf)
        slate = sample_slates(logits, length, self._generator)  # [1, k]
        log_prob = slate_log_prob(logits, slate)[0]  # [k]
        return self._response(request, slate[0], log_prob, queries[0])

    def _queries(self, request: RecommendRequest) -> Tensor:
        row = self.bundle.users.get(request.user_id or "", -1)  # -1: the empty past, last of all
        items, tasks = self._history(request.history)
        return self.bundle.policy.queries(
            self._past[row][None], torch.from_numpy(items)[None], torch.from_numpy(tasks)[None], self._keys
        )

    def _logits(self, queries: Tensor, weights: Tensor) -> Tensor:
        """``SlatePolicy.logits`` from queries that are already there, in double precision. [1, N]."""
        mixed = (queries * weights[..., None]).sum(1)  # [1, W]
        return (mixed @ self._keys.keys.T + weights @ self._keys.biases.T).double()

    def _history(self, acts: list[Act]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        known_items, known_behaviours = self.bundle.item_index, self.bundle.tasks.index
        items, tasks = [], []
        for place, act in enumerate(acts):
            item, task = known_items.get(act.item_id), known_behaviours.get(act.behaviour)
            if item is None:
                raise RequestError(f"history[{place}].item_id: expected a known item, got {act.item_id!r}.")
            if task is None:
                raise RequestError(
                    f"history[{place}].behaviour: expected one of {', '.join(known_behaviours)}, "
                    f"got {act.behaviour!r}."
                )
            items.append(item)
            tasks.append(task)
        return session_history(items, tasks, self.bundle.policy.shape.history_length)

    def _task_weights(self, wanted: dict[str, float] | None) -> Tensor:
        """Weights that sum to 1. float32 [1, K]."""
        tasks = self.bundle.tasks
        if wanted is None:
            return torch.from_numpy(tasks.weights)[None]
        unknown = next((name for name in wanted if name not in tasks.names), None)
        if unknown is not None:
            raise RequestError(f"task_weights.{unknown}: expected one of {', '.join(tasks.names)}.")
        values = np.array([wanted.get(name, 0.0) for name in tasks.names], dtype=np.float64)
        largest = values.max()
        if largest <= 0:
            raise RequestError("task_weights: expected a weight above 0, got 0 for every task.")
        values /= largest  # first, so that the sum cannot overflow
        return torch.from_numpy((values / values.sum()).astype(np.float32))[None]

    def _barred(self, request: RecommendRequest) -> Tensor | None:
        """Which items may not be shown. bool [N], or None where all may."""
        index = self.bundle.item_index
        if request.candidates is None and not request.exclusions:
            return None
        barred = torch.full((len(self.item_ids),), request.candidates is not None)
        for place, item in enumerate(request.candidates or ()):
            if item not in index:
                raise RequestError(f"candidates[{place}]: expected a known item, got {item!r}.")
            barred[index[item]] = False
        rows = [index[item] for item in request.exclusions if item in index]  # others are never shown anyway
        barred[rows] = True
        return barred

    def _length(self, request: RecommendRequest, barred: Tensor | None) -> int:
        available = len(self.item_ids) - (0 if barred is None else int(barred.sum()))
        if available == 0:
            raise RequestError("candidates: expected at least one after exclusions, got none.")
        if request.k is None:
            return min(self.bundle.policy.shape.slate_length, available)
        if request.k > available:
            raise RequestError(
                f"k: expected at most {available}, the number of candidates left, got {request.k}."
            )
        return request.k

    def _response(
        self, request: RecommendRequest, slate: Tensor, log_prob: Tensor, queries: Tensor
    ) -> RecommendResponse:
        scores = queries @ self._keys.keys[slate].T + self._keys.biases[slate].T  # [K, k]
        names = self.bundle.tasks.names
        items = [
            RecommendedItem.model_construct(
                item_id=self.item_ids[item],
                propensity=propensity,
                scores=dict(zip(names, by_task, strict=True)),
            )
            for item, propensity, by_task in zip(
                slate.tolist(), log_prob.exp().tolist(), scores.T.tolist(), strict=True
            )
        ]
        total = float(log_prob.sum())
        return RecommendResponse.model_construct(
            request_id=uuid4().hex,
            policy_version=self.bundle.version,
            known_user=request.user_id in self.bundle.users,
            items=items,
            propensity=math.exp(total),
            log_propensity=total,
        )

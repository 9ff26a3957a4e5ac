"""The policy as RLlib sees it: actor, critic, and the clone as a reference."""

from collections.abc import Callable
from typing import Any

import torch
from ray.rllib.core.columns import Columns
from ray.rllib.core.rl_module.apis import InferenceOnlyAPI, ValueFunctionAPI
from ray.rllib.core.rl_module.torch.torch_rl_module import TorchRLModule
from torch import Tensor, nn

from rl.policy.balance import TaskBalance
from rl.policy.candidates import Candidates, draw_candidates
from rl.policy.critic import Critic
from rl.policy.fragments import STATE_COLUMNS
from rl.policy.limits import LimitPrices
from rl.policy.network import ItemKeys, PolicyShape, SlatePolicy, candidate_keys, scores
from rl.policy.plackett_luce import best_slates, sample_slates, slate_log_prob

LoadItemEmbeddings = Callable[[], Tensor]
_SCORED_AT_ONCE = 32  # states whose whole catalogue is scored at once; bounds memory
_NEWEST_SHARE = 0.3  # of a call's states in the running share of each item: other users come with every round


class SlateModule(TorchRLModule, InferenceOnlyAPI, ValueFunctionAPI):  # type: ignore[misc]
    """Samplers hold the actor alone; learners also the critic and the clone that the KL price refers to.

    ``model_config`` holds ``shape`` (PolicyShape), ``load_item_embeddings`` (returns float32 [N, D]),
    ``summary_width`` (F), ``critic_width``, ``popart_rate``, ``kl_price``, ``limits`` (see ``LimitPrices``),
    ``balance`` (see ``TaskBalance``) and ``num_candidates`` (C; a larger catalogue is sampled and learned on
    candidates). The item table is no part of the state: neither weight syncs nor checkpoints carry it.
    """

    def setup(self) -> None:
        """Builds the networks."""
        config = self.model_config
        shape: PolicyShape = config["shape"]
        embeddings = config["load_item_embeddings"]()
        self.slate_length = shape.slate_length
        self.actor = SlatePolicy(shape, embeddings)
        self._keys: ItemKeys | None = None
        self._reference_keys: ItemKeys | None = None
        self._wanted: Tensor | None = None  # [N] how often the policy showed each item of late
        self._drawn: tuple[Candidates, ItemKeys] | None = None  # what slates are drawn from now
        self._learned: list[Candidates] = []  # what the slates of the round were drawn from
        if not self.inference_only:
            self.reference = SlatePolicy(shape, embeddings).requires_grad_(False)
            self.reference.load_state_dict(self.actor.state_dict())
            self.critic = Critic(
                text_width=shape.text_width,
                summary_width=config["summary_width"],
                num_tasks=shape.num_tasks,
                slate_length=shape.slate_length,
                width=config["critic_width"],
                rate=config["popart_rate"],
            )
            self.register_buffer("kl_price", torch.tensor(float(config["kl_price"])))
            self.limit_prices = LimitPrices(torch.tensor(config["limits"]))
            self.balance = TaskBalance(config["balance"], shape.num_tasks)
        self.train(self.training)

    def train(self, mode: bool = True) -> "SlateModule":
        """As torch's, but ids are never hidden here: samplers and learners must agree on probabilities."""
        super().train(mode)
        for name, child in self.named_children():
            if name in ("actor", "reference"):
                child.eval()
        return self

    def get_non_inference_attributes(self) -> list[str]:
        """What samplers do not need."""
        return ["critic", "reference", "kl_price", "limit_prices", "balance"]

    def set_state(self, state: dict[str, Any]) -> None:
        """Takes weights over; item keys computed from the old ones go."""
        self._keys = self._reference_keys = self._drawn = None
        super().set_state(state)

    def set_clone(self, state: dict[str, Tensor]) -> None:
        """Puts the clone's weights into the actor and, where there is one, the reference."""
        self._keys = self._reference_keys = self._drawn = None
        self.actor.load_state_dict(state)
        if not self.inference_only:
            self.reference.load_state_dict(state)

    def compute_values(self, batch: dict[str, Any], embeddings: Any = None) -> Tensor:
        """Return of each task, in units of reward. [B, K]."""
        critic: Critic = self.critic
        values, _ = critic.predict(critic.inputs(batch, self.actor.item_embeddings))
        return values

    @torch.no_grad()
    def reference_readings(self, batch: dict[str, Any]) -> Tensor:
        """How the clone reads the states; a round computes it once. [B, key_width + K]."""
        if self._reference_keys is None:
            self._reference_keys = self.reference.item_keys()
        return self.reference.reading(*_state(batch), self._reference_keys)

    @torch.no_grad()
    def reference_logits(self, batch: dict[str, Any]) -> Tensor:
        """The clone's scores of what the actor's are of, from column ``reference_readings``. [B, N or C]."""
        if self._reference_keys is None:
            self._reference_keys = self.reference.item_keys()
        keys = self._reference_keys
        if not self._learned:
            return scores(batch["reference_readings"], keys)

        def score(rows: dict[str, Any], candidates: Candidates) -> Tensor:
            return scores(rows["reference_readings"], candidate_keys(keys, candidates)) + candidates.offsets

        return self._by_candidates(batch, score, ("reference_readings",))

    @torch.no_grad()
    def draw_candidates(self, batch: dict[str, Any]) -> Candidates | None:
        """What slates will be drawn from until the next call; None for a catalogue that is small enough.

        Items are drawn by how often the policy shows them in the given states, and did in those of earlier calls.
        """
        count, num_items = self.model_config["num_candidates"], self.actor.shape.num_items
        if count >= num_items:
            return None
        wanted = torch.zeros(num_items, device=batch["past"].device)
        for start in range(0, len(batch["past"]), _SCORED_AT_ONCE):
            rows = {name: values[start : start + _SCORED_AT_ONCE] for name, values in batch.items()}
            wanted += self._cached_logits(rows).softmax(-1).sum(0)
        self._wanted = wanted if self._wanted is None else self._wanted.lerp(wanted, _NEWEST_SHARE)
        candidates = draw_candidates(self._wanted, count)
        self._drawn = (candidates, candidate_keys(self._item_keys(), candidates))
        return candidates

    def learn_on(self, candidates: list[Candidates]) -> None:
        """What the next batches' slates were drawn from: column ``drawn_from`` counts in it; empty for everything."""
        self._learned = candidates

    def _forward_inference(self, batch: dict[str, Any], **kwargs: Any) -> dict[str, Tensor]:
        return {Columns.ACTIONS: best_slates(self._cached_logits(batch), self.slate_length)}

    def _forward_exploration(self, batch: dict[str, Any], **kwargs: Any) -> dict[str, Tensor]:
        if self._drawn is None:
            logits = self._cached_logits(batch)
            slates = items = sample_slates(logits, self.slate_length)
        else:
            candidates, keys = self._drawn
            with torch.no_grad():
                logits = self.actor.logits(*_state(batch), keys=keys) + candidates.offsets
            slates = sample_slates(logits, self.slate_length)
            items = candidates.items[slates]
        return {Columns.ACTIONS: items, Columns.ACTION_LOGP: slate_log_prob(logits, slates)}

    def _forward_train(self, batch: dict[str, Any], **kwargs: Any) -> dict[str, Tensor]:
        logits = self.actor_logits(batch)
        values, rewards = self.critic(batch["critic_inputs"])
        return {"logits": logits, "values": values, "immediate_rewards": rewards}

    def actor_logits(self, batch: dict[str, Any]) -> Tensor:
        """The actor's scores of all items, or of the candidates that each row's slate was drawn from. [B, N or C]."""
        if not self._learned:
            return self.actor.logits(*_state(batch))

        def score(rows: dict[str, Any], candidates: Candidates) -> Tensor:
            return self.actor.candidate_logits(*_state(rows), candidates)

        return self._by_candidates(batch, score, STATE_COLUMNS)

    def _by_candidates(
        self,
        batch: dict[str, Any],
        score: Callable[[dict[str, Any], Candidates], Tensor],
        names: tuple[str, ...],
    ) -> Tensor:
        """Scores of each row's candidates; -inf beyond them where rows have fewer than others."""
        if len(self._learned) == 1:
            return score(batch, self._learned[0])
        columns = {name: batch[name] for name in names}
        order, parts = [], []
        for index, candidates in enumerate(self._learned):
            rows = (batch["drawn_from"] == index).nonzero()[:, 0]
            order.append(rows)
            parts.append(score({name: column[rows] for name, column in columns.items()}, candidates))
        width = max(part.shape[1] for part in parts)
        padded = [nn.functional.pad(part, (0, width - part.shape[1]), value=-torch.inf) for part in parts]
        return torch.cat(padded)[torch.cat(order).argsort()]

    @torch.no_grad()
    def _item_keys(self) -> ItemKeys:
        if self._keys is None:
            self._keys = self.actor.item_keys()
        return self._keys

    @torch.no_grad()
    def _cached_logits(self, batch: dict[str, Any]) -> Tensor:
        return self.actor.logits(*_state(batch), keys=self._item_keys())


def _state(batch: dict[str, Any]) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    past, items, tasks, weights = (batch[name] for name in STATE_COLUMNS)
    return past, items, tasks, weights

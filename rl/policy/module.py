"""The policy as RLlib sees it: actor, critic, and the clone as a reference."""

from collections.abc import Callable
from typing import Any

import torch
from ray.rllib.core.columns import Columns
from ray.rllib.core.rl_module.apis import InferenceOnlyAPI, ValueFunctionAPI
from ray.rllib.core.rl_module.torch.torch_rl_module import TorchRLModule
from torch import Tensor

from rl.policy.critic import Critic
from rl.policy.network import ItemKeys, PolicyShape, SlatePolicy
from rl.policy.plackett_luce import best_slates, sample_slates, slate_log_prob

LoadItemEmbeddings = Callable[[], Tensor]


class SlateModule(TorchRLModule, InferenceOnlyAPI, ValueFunctionAPI):  # type: ignore[misc]
    """Samplers hold the actor alone; learners also the critic and the clone that the KL price refers to.

    ``model_config`` holds ``shape`` (PolicyShape), ``load_item_embeddings`` (returns float32 [N, D]),
    ``summary_width`` (F), ``critic_width``, ``popart_rate`` and ``kl_price``. The item table is no part of
    the state: neither weight syncs nor checkpoints carry it.
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
        return ["critic", "reference", "kl_price"]

    def set_state(self, state: dict[str, Any]) -> None:
        """Takes weights over; item keys computed from the old ones go."""
        self._keys = self._reference_keys = None
        super().set_state(state)

    def set_clone(self, state: dict[str, Tensor]) -> None:
        """Puts the clone's weights into the actor and, where there is one, the reference."""
        self._keys = self._reference_keys = None
        self.actor.load_state_dict(state)
        if not self.inference_only:
            self.reference.load_state_dict(state)

    def compute_values(self, batch: dict[str, Any], embeddings: Any = None) -> Tensor:
        """Return of each task, in units of reward. [B, K]."""
        values, _ = self.predict_rewards(batch)
        return values

    def predict_rewards(self, batch: dict[str, Any]) -> tuple[Tensor, Tensor]:
        """Return of each task [B, K] and immediate reward of each position [B, L, K], in units of reward."""
        critic: Critic = self.critic
        return critic.predict(batch, self.actor.item_embeddings)

    @torch.no_grad()
    def reference_logits(self, batch: dict[str, Any]) -> Tensor:
        """The clone's scores. [B, N]."""
        if self._reference_keys is None:
            self._reference_keys = self.reference.item_keys()
        return self.reference.logits(*_state(batch), keys=self._reference_keys)

    def _forward_inference(self, batch: dict[str, Any], **kwargs: Any) -> dict[str, Tensor]:
        return {Columns.ACTIONS: best_slates(self._cached_logits(batch), self.slate_length)}

    def _forward_exploration(self, batch: dict[str, Any], **kwargs: Any) -> dict[str, Tensor]:
        logits = self._cached_logits(batch)
        slates = sample_slates(logits, self.slate_length)
        return {Columns.ACTIONS: slates, Columns.ACTION_LOGP: slate_log_prob(logits, slates)}

    def _forward_train(self, batch: dict[str, Any], **kwargs: Any) -> dict[str, Tensor]:
        logits = self.actor.logits(*_state(batch))
        values, rewards = self.critic(batch, self.actor.item_embeddings)
        return {"logits": logits, "values": values, "immediate_rewards": rewards}

    @torch.no_grad()
    def _cached_logits(self, batch: dict[str, Any]) -> Tensor:
        if self._keys is None:
            self._keys = self.actor.item_keys()
        return self.actor.logits(*_state(batch), keys=self._keys)


def _state(batch: dict[str, Any]) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    return batch["past"], batch["history_items"], batch["history_tasks"], batch["task_weights"]

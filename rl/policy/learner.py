"""PPO over slates: a ratio and a clip a position, one critic for all tasks, a price for leaving the clone."""

from typing import Any

import torch
from ray.rllib.algorithms.ppo.torch.ppo_torch_learner import PPOTorchLearner
from ray.rllib.core import DEFAULT_MODULE_ID
from ray.rllib.core.learner.learner import ENTROPY_KEY, POLICY_LOSS_KEY, VF_LOSS_KEY
from ray.rllib.utils.metrics import NUM_ENV_STEPS_SAMPLED_LIFETIME
from torch import Tensor

from rl.policy.advantage import clipped_objective
from rl.policy.balance import project_conflicts
from rl.policy.config import PPOSettings
from rl.policy.connector import FragmentsToBatch, RoundToBatch
from rl.policy.moments import average
from rl.policy.plackett_luce import slate_terms
from rl.policy.safety import NOT_FINITE

_PRICE_STEP = 1.5  # factor by which the KL price moves towards its target


class MultiTaskPPOLearner(PPOTorchLearner):  # type: ignore[misc]
    """``learner_config_dict`` holds ``settings`` (PPOSettings) and ``num_steps``, the run's steps in all."""

    def build(self) -> None:
        """Reads the settings."""
        super().build()
        self.settings: PPOSettings = self.config.learner_config_dict["settings"]
        self._actor_stopped = False
        self._broken = False  # an update of the round was refused, and so are those after it
        self._clone_kls: list[Tensor] = []
        self._entropy = self.settings.entropy
        self._task_losses: Tensor | None = (
            None  # [K] of the minibatch, where tasks are weighed by their gradients
        )
        self._orders = torch.Generator().manual_seed(0)  # the same for all learners
        self._measured = False  # GradNorm has seen the round's gradients
        self._batches = self.make_connector()
        if self._learner_connector is not None:
            self._learner_connector.append(self._batches)

    def make_connector(self) -> RoundToBatch:
        """What makes the train batch."""
        return FragmentsToBatch(self.settings)

    def learning_rate(self) -> float:
        """At the start."""
        return self.settings.learning_rate

    def get_parameters(self, module: Any) -> list[torch.nn.Parameter]:
        """Those that learn: not the clone's."""
        return [parameter for parameter in module.parameters() if parameter.requires_grad]

    def configure_optimizers_for_module(self, module_id: str, config: Any = None) -> None:
        """Adam, each step in one pass over the weights."""
        parameters = self.get_parameters(self._module[module_id])
        self.register_optimizer(
            module_id=module_id,
            optimizer=torch.optim.Adam(parameters, fused=True),
            params=parameters,
            lr_or_lr_schedule=config.lr,
        )

    def before_gradient_based_update(self, *, timesteps: dict[str, Any]) -> None:
        """Starts a round: learning rate and entropy bonus by how much of the run is done."""
        super().before_gradient_based_update(timesteps=timesteps)
        settings = self.settings
        done = timesteps.get(NUM_ENV_STEPS_SAMPLED_LIFETIME, 0) / self.config.learner_config_dict["num_steps"]
        left = 1.0 - min(float(done), 1.0)
        self._entropy = settings.final_entropy + left * (settings.entropy - settings.final_entropy)
        share = settings.final_learning_rate + left * (1.0 - settings.final_learning_rate)
        for _, optimizer in self.get_optimizers_for_module(DEFAULT_MODULE_ID):
            self._set_optimizer_lr(optimizer, lr=self.learning_rate() * share)
        self._actor_stopped = self._broken = self._measured = False
        self._clone_kls = []

    def _update(self, batch: dict[str, Any]) -> tuple[Any, Any, Any]:
        """A gradient step on numbered rows of the round."""
        minibatch = {module_id: self._batches.minibatch(numbered) for module_id, numbered in batch.items()}
        taken: tuple[Any, Any, Any] = super()._update(minibatch)
        return taken

    def compute_loss_for_module(
        self, *, module_id: str, config: Any, batch: dict[str, Any], fwd_out: dict[str, Tensor]
    ) -> Tensor:
        """Scalar loss of a minibatch: actor and critic, which share no weight."""
        module = self.module[module_id].unwrapped()
        actor, actor_metrics = self._actor_loss(module, batch, fwd_out["logits"])
        value = (fwd_out["values"] - batch["value_targets"]).square().mean()
        reward = (fwd_out["immediate_rewards"] - batch["reward_targets"]).square().mean()
        if actor_metrics["update_kl"] > self.settings.max_update_kl:
            self._actor_stopped = True
        metrics = {
            **actor_metrics,
            VF_LOSS_KEY: value.detach(),
            "immediate_reward_loss": reward.detach(),
            "actor_stopped": float(self._actor_stopped),
        }
        self.metrics.log_dict(metrics, key=module_id, window=1)
        loss: Tensor = actor + self.settings.value_coefficient * (value + reward)
        return loss

    def _actor_loss(
        self, module: Any, batch: dict[str, Any], logits: Tensor
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Clipped objective summed over positions; entropy and KL a position."""
        reference = module.reference_logits(batch) if self.settings.kl > 0 else None
        terms = slate_terms(logits, batch["slates"], reference)
        log_ratio = terms.log_prob - batch["log_probs"]  # [M, L]
        length = log_ratio.shape[-1]
        entropy = terms.entropy.mean() / length
        loss = -self._entropy * entropy
        clip = self.settings.clip_range
        if self.settings.balance in ("gradnorm", "pcgrad"):
            objectives = clipped_objective(log_ratio.unsqueeze(-1), batch["advantages"], clip)  # [M, L, K]
            self._task_losses = -objectives.sum(1).mean(0)
            self._mean_weights = batch["task_weights"].mean(0).clamp_min(1e-6)
            objective = objectives.sum(-1)
        else:
            objective = clipped_objective(log_ratio, batch["advantages"].sum(-1), clip)
        if self.settings.balance != "pcgrad":  # which adds the tasks' gradients itself
            loss = loss - objective.sum(-1).mean()
        metrics = {
            POLICY_LOSS_KEY: -objective.detach().mean(),
            ENTROPY_KEY: entropy.detach(),
            "update_kl": average((-log_ratio.detach()).sum(-1).mean()),
            "clipped": ((log_ratio.detach().exp() - 1).abs() > self.settings.clip_range).float().mean(),
        }
        if terms.kl is not None:
            clone_kl = terms.kl.mean() / length
            loss = loss + module.kl_price * clone_kl
            self._clone_kls.append(clone_kl.detach())
            metrics |= {"clone_kl": clone_kl.detach(), "kl_price": module.kl_price.clone()}
        return loss, metrics

    def compute_gradients(self, loss_per_module: dict[str, Any], **kwargs: Any) -> dict[Any, Tensor]:
        """Gradients of the loss; under PCGrad also the tasks' own, cleared of what works against another task's."""
        if self._task_losses is None:
            gradients: dict[Any, Tensor] = super().compute_gradients(loss_per_module, **kwargs)
            return gradients
        losses, self._task_losses = self._task_losses, None
        module = self.module[DEFAULT_MODULE_ID].unwrapped()
        if self.settings.balance == "gradnorm":
            if not self._measured:
                self._measured = True
                pulls = self._task_gradients(losses, [module.actor.query.weight]).norm(dim=-1)
                module.balance.restore(pulls / self._mean_weights)
            gradients = super().compute_gradients(loss_per_module, **kwargs)
            return gradients
        parameters = self.get_parameters(module.actor)
        pulls = self._task_gradients(losses, parameters)
        gradients = super().compute_gradients(loss_per_module, **kwargs)
        orders = torch.stack([torch.randperm(len(losses), generator=self._orders) for _ in losses])
        summed = project_conflicts(pulls, orders)
        sizes = [parameter.numel() for parameter in parameters]
        for parameter, pull in zip(parameters, torch.split(summed, sizes), strict=True):
            ref = self.get_param_ref(parameter)
            own = gradients[ref]
            gradients[ref] = pull.view_as(parameter) + (0.0 if own is None else own)
        return gradients

    def _task_gradients(self, losses: Tensor, parameters: list[torch.nn.Parameter]) -> Tensor:
        """Gradient of each task's loss, over all learners. float32 [K, P]."""
        rows = []
        for loss in losses:
            parts = torch.autograd.grad(loss, parameters, retain_graph=True, materialize_grads=True)
            rows.append(torch.cat([part.flatten() for part in parts]))
        return average(torch.stack(rows))

    def apply_gradients(self, gradients_dict: dict[Any, Tensor]) -> None:
        """Takes the optimizer's step, unless a gradient is no finite number. Then the round's weights stand.

        Once a round went too far, the critic alone learns on. All learners agree on when, for they compare the
        same averaged KL. Gradients of the actor are taken away, not set to 0, as Adam's momentum would move it
        still.
        """
        norm = torch.nn.utils.get_total_norm(gradients_dict.values())
        self._broken = self._broken or not bool(torch.isfinite(norm))
        self.metrics.log_value((DEFAULT_MODULE_ID, NOT_FINITE), float(self._broken), window=1)
        if self._broken:
            return
        if self._actor_stopped:
            module = self.module[DEFAULT_MODULE_ID].unwrapped()
            actor = {self.get_param_ref(parameter) for parameter in module.actor.parameters()}
            for parameter in module.actor.parameters():
                parameter.grad = None
            gradients_dict = {ref: grad for ref, grad in gradients_dict.items() if ref not in actor}
        super().apply_gradients(gradients_dict)

    def after_gradient_based_update(self, *, timesteps: dict[str, Any]) -> None:
        """Ends a round: moves the KL price towards its target."""
        super().after_gradient_based_update(timesteps=timesteps)
        self._batches.forget()
        target = self.settings.kl_target
        if target is None or not self._clone_kls:
            return
        price = self.module[DEFAULT_MODULE_ID].unwrapped().kl_price
        distance = average(torch.stack(self._clone_kls).mean())
        if distance > target * _PRICE_STEP:
            price.mul_(_PRICE_STEP)
        elif distance < target / _PRICE_STEP:
            price.div_(_PRICE_STEP)

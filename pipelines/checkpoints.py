"""Where training stands, kept so that a restart goes on from there."""

import logging
from typing import TYPE_CHECKING

import torch
from safetensors.torch import load as load_safetensors
from safetensors.torch import save as save_safetensors

from pipelines.artifacts import Folder
from pipelines.judge import Record
from rl.policy.network import SlatePolicy

if TYPE_CHECKING:
    from rl.policy.algorithm import Trainer

logger = logging.getLogger(__name__)


def clearly_below(look: Record, best: float, error: float, tolerance: float) -> bool:
    """Whether a look's return lies below another by more than that one's ``tolerance``, and by more than an error."""
    return look["held_out/weighted"] < best - max(error, tolerance * abs(best))


def clearly_worse(look: Record, other: Record, tolerance: float) -> bool:
    """Whether a look breaks limits of costs more than another does, or as much and returns clearly less."""
    if look["held_out/excess"] != other["held_out/excess"]:
        return look["held_out/excess"] > other["held_out/excess"]
    return clearly_below(look, other["held_out/weighted"], other["held_out/error"], tolerance)


class Progress:
    """Where training stands; written as a checkpoint folder and a JSON file that names it, the file last."""

    def __init__(
        self, folder: Folder | None, trainer: "Trainer", clone: SlatePolicy, tolerance: float
    ) -> None:
        """``tolerance`` is ``rl.ppo.judge_tolerance``."""
        self.folder = folder
        self.tolerance = tolerance
        self.trainer = trainer
        self.policy = clone
        self.best = {name: value.clone() for name, value in clone.state_dict().items()}
        self.best_iteration, self.best_return = 0, float("-inf")  # round kept, highest return seen
        self.best_excess = float("inf")  # of costs over their limits, the least seen
        self.iteration = 0
        self.curve: list[Record] = []
        if folder is not None and folder.exists("progress.json"):
            state = folder.read_json("progress.json")
            self.iteration, self.curve = state["iteration"], state["curve"]
            self.best_iteration, self.best_return = state["best_iteration"], state["best_return"]
            self.best_excess = state["best_excess"]
            self.best = load_safetensors(folder.read_bytes(f"{state['checkpoint']}-best.safetensors"))
            trainer.algorithm.restore_from_path(
                folder.join(state["checkpoint"]), filesystem=folder.filesystem
            )
            logger.info("train: continues from iteration %d", self.iteration)

    @property
    def kept(self) -> Record:
        """The look at the policy that is kept. There is one after the first ``note``."""
        return next(record for record in self.curve if record["iteration"] == self.best_iteration)

    def note(self, iteration: int, record: Record, state: dict[str, torch.Tensor]) -> None:
        """Add an evaluation and write a checkpoint.

        The latest policy that is not clearly below the highest return is the one to keep: later ones have learned
        more, and the held-out simulator, fitted on few sessions, hardly sees what they gain. Clearly is by more than
        ``tolerance`` of that return, and by more than a standard error. A policy that breaks limits of costs is kept
        only while none broke them less.
        """
        self.iteration = iteration
        self.curve.append(record)
        if record["held_out/excess"] < self.best_excess:
            self.best_excess, self.best_return = record["held_out/excess"], float("-inf")
        if record["held_out/excess"] == self.best_excess:
            first = self.best_return == float("-inf")
            if first or not clearly_below(record, self.best_return, record["held_out/error"], self.tolerance):
                self.best, self.best_iteration = state, iteration
            self.best_return = max(self.best_return, record["held_out/weighted"])
        if self.folder is None:
            return
        name = f"checkpoint-{iteration:06d}"
        self.folder.folder(name).delete()
        self.trainer.algorithm.save_to_path(self.folder.join(name), filesystem=self.folder.filesystem)
        self.folder.write_bytes(f"{name}-best.safetensors", save_safetensors(self.best))
        before = (
            self.folder.read_json("progress.json")["checkpoint"]
            if self.folder.exists("progress.json")
            else None
        )
        self.folder.write_json(
            "progress.json",
            {
                "checkpoint": name,
                "iteration": iteration,
                "curve": self.curve,
                "best_iteration": self.best_iteration,
                "best_return": self.best_return,
                "best_excess": self.best_excess,
            },
        )
        if before and before != name:
            self.folder.folder(before).delete()
            self.folder.filesystem.delete_file(self.folder.join(f"{before}-best.safetensors"))

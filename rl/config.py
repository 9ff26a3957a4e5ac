"""The ``rl`` section: tasks, slate, simulator, policy, evaluation and sweep."""

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from rl.evaluation.config import EvaluationConfig
from rl.levers import LeversConfig
from rl.policy.config import CloneConfig, DQNSettings, PPOSettings, TiltConfig
from rl.simulator.config import SimulatorConfig
from rl.sweep import SweepConfig
from rl.tasks import TaskConfig


class RLConfig(BaseModel):
    """What is learned, from what, and how it is judged."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    algorithm: Literal["ppo", "dqn"] = Field(
        "ppo", description="Learning algorithm: a policy by PPO, or item values by DQN (SlateQ)."
    )
    tasks: dict[str, TaskConfig] = Field(
        {
            "view": TaskConfig(weight=0.2),
            "cart": TaskConfig(weight=0.3, after="view"),
            "purchase": TaskConfig(weight=0.5, after="cart"),
        },
        description="Objectives by name; see rl.tasks.NAME.weight.",
    )
    slate_length: int = Field(5, ge=1, le=100, description="Items shown at once, L.")
    history_length: int = Field(
        32, ge=1, le=512, description="Latest behaviours of the session a state holds, H."
    )
    clone_share: float = Field(
        0.3,
        ge=0,
        lt=1,
        description="How far trained weights go back to the clone's: training goes beyond the log. 0 with levers.",
    )
    temperature: float = Field(
        0.3,
        gt=0,
        description="Trained clone and policy divide their scores by it: below 1 slates are surer, and explore less.",
    )
    simulator: SimulatorConfig = SimulatorConfig()
    clone: CloneConfig = CloneConfig()
    tilt: TiltConfig = TiltConfig()
    ppo: PPOSettings = PPOSettings()
    dqn: DQNSettings = DQNSettings()
    levers: LeversConfig = LeversConfig()
    evaluation: EvaluationConfig = EvaluationConfig()
    sweep: SweepConfig = SweepConfig()

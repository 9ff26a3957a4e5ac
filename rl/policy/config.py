"""Settings of the policy, its start and PPO."""

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

Balance = Literal["fixed", "uncertainty", "gradnorm", "pcgrad"]


class CloneConfig(BaseModel):
    """The policy's start: learned from the log's acted-on items."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    num_epochs: int = Field(
        6,
        ge=1,
        description="Passes over the log's targets; the best on validation is kept, fewer tried if it comes early.",
    )
    batch_size: int = Field(512, ge=1, description="Targets a step of the optimiser.")
    max_targets: int = Field(200_000, ge=1, description="Targets a pass at most.")
    learning_rate: float = Field(2e-3, gt=0, description="Peak of the one-cycle schedule.")
    forgetting: tuple[Annotated[float, Field(ge=0)], ...] = Field(
        (0.15, 0.6),
        min_length=1,
        description="Shares of the weights that a pass at the peak takes away; the best on validation is kept.",
    )
    near_share: float = Field(
        0.8,
        ge=0,
        le=1,
        description="Share of targets asked for right before their first act; the others from further back.",
    )
    newcomer_price: float = Field(
        0.01,
        ge=0,
        lt=1,
        description="Share of validation's NDCG@10 that lists may lose to items that training never met.",
    )
    weight_concentration: float = Field(
        2.0, gt=0, description="How close drawn task weights stay to the configured."
    )


class TiltConfig(BaseModel):
    """The search for a tilt of the clone, the rival that a trained policy has to match."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    num_generations: int = Field(15, ge=0, description="Generations of tilts; 0 searches none.")
    num_tilts: int = Field(32, ge=8, description="Tilts a generation.")
    num_sessions: int = Field(32, ge=1, description="Simulated sessions that a tilt is judged by.")
    num_candidates: int = Field(
        2048, ge=1, description="Items a generation draws slates from; a larger catalogue is sampled."
    )
    num_directions: int = Field(
        12, ge=1, description="Leading directions of the item embeddings, along which the clone is tilted."
    )


class PPOSettings(BaseModel):
    """Multi-task PPO against the simulator."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    num_iterations: int = Field(
        125, ge=1, description="Rounds of sampling and learning: many small ones, few settle too early."
    )
    num_seeds: int = Field(
        4,
        ge=1,
        description="Trainings side by side, alike but for their seed; the mean of their weights is kept.",
    )
    num_env_runners: int = Field(0, ge=0, description="Remote samplers; 0 samples in the driver.")
    num_learners: int = Field(0, ge=0, description="Remote learners; 0 learns in the driver.")
    num_threads: int = Field(
        1,
        ge=1,
        description="Torch threads of the driver; 2 are a third faster alone, and crawl on a busy machine.",
    )
    num_gpus_per_learner: float = Field(0.0, ge=0, description="GPUs a learner.")
    num_sessions: int = Field(256, ge=1, description="Sessions a sampler steps at once, in one batch.")
    fragment_steps: int = Field(20, ge=1, description="Slates of each session a round; values bridge cuts.")
    num_candidates: int = Field(
        2048,
        ge=1,
        description="Items a round draws slates from; a larger catalogue is sampled, weighted anew.",
    )
    num_epochs: int = Field(2, ge=1, description="Passes over a round's steps; more drift off the data.")
    num_minibatches: int = Field(4, ge=1, description="Gradient steps a pass.")
    learning_rate: float = Field(
        5e-4, gt=0, description="Adam's step at the start; a large one settles on a few items early."
    )
    final_learning_rate: float = Field(0.1, gt=0, le=1, description="Share of it left at the end; linear.")
    grad_clip: float = Field(1.0, gt=0, description="Largest gradient norm; rare rewards make rare spikes.")
    discount: float = Field(
        0.98, gt=0, le=1, description="Worth of a reward a slate later; less is steadier."
    )
    gae_decay: float = Field(0.95, ge=0, le=1, description="Lambda: 1 trusts returns, 0 the critic.")
    clip_range: float = Field(0.2, gt=0, lt=1, description="Trusted change of a position's probability.")
    credit: Literal["slate", "position"] = Field(
        "slate",
        description="A position answers for the slate's rewards, or its own: where items do not compete.",
    )
    scale: Literal["round", "session"] = Field(
        "round",
        description="One scale for all advantages, or one for each session's task weights: to serve every trade-off.",
    )
    balance: Balance = Field(
        "fixed",
        description="How tasks share the gradient: by weights, these over the returns' uncertainty, GradNorm, PCGrad.",
    )
    value_coefficient: float = Field(
        0.5, ge=0, description="Share of the critic's loss, which has own weights."
    )
    entropy: float = Field(
        0.1,
        ge=0,
        description="Bonus a nat of a position's entropy, at the start; a small one settles on few items early.",
    )
    final_entropy: float = Field(0.002, ge=0, description="The same at the end, reached linearly.")
    kl: float = Field(
        0.005, ge=0, description="Price a nat a position of leaving the clone; with a target, the first."
    )
    kl_target: float | None = Field(
        None,
        gt=0,
        description="Nats a position from the clone that the price steers to; None fixes the price.",
    )
    max_update_kl: float = Field(
        0.4,
        gt=0,
        description="Nats a slate from the sampling policy beyond which a round leaves the actor.",
    )
    critic_width: int = Field(128, ge=1, description="Units of each hidden layer of the critic.")
    popart_rate: float = Field(
        0.1, gt=0, le=1, description="Share of a round in the targets' running moments."
    )
    weight_concentration: float = Field(
        5.0, gt=0, description="How close drawn task weights stay to the configured."
    )
    weight_draw_share: float = Field(
        0.1,
        ge=0,
        le=1,
        description="Share of sessions that draw their task weights, so that a request may choose its own.",
    )
    judge_every: int = Field(10, ge=1, description="Rounds between looks at the held-out simulator.")
    judge_tolerance: float = Field(
        0.2,
        ge=0,
        le=1,
        description="Share of the best return there that a later policy may miss and still be kept.",
    )
    judge_patience: int = Field(
        60, ge=1, description="Rounds further below the best there than that which end training."
    )
    max_loss: float = Field(
        100.0,
        gt=0,
        description="Loss, in units of the targets' variance, beyond which training stops; 1 is usual.",
    )
    min_entropy: float = Field(
        0.005, ge=0, description="Nats a position below which training stops: nothing new would be tried."
    )
    exploit_drop: float = Field(
        0.3,
        gt=0,
        description="Fall of the held-out return, as a share of its best, that ends training if training's rises.",
    )
    num_judge_sessions: int = Field(400, ge=10, description="Validation sessions played at each look.")


class DQNSettings(BaseModel):
    """DQN against the simulator. Rounds, samplers, learners, discount and looks are those of ``rl.ppo``."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    replay_rounds: int = Field(8, ge=1, description="Latest rounds that learning draws from.")
    num_updates: int = Field(16, ge=1, description="Gradient steps a round.")
    batch_rows: int = Field(1024, ge=1, description="Steps a gradient step.")
    learning_rate: float = Field(1e-3, gt=0, description="Adam's step at the start; falls as PPO's does.")
    target_rounds: int = Field(
        2, ge=1, description="Rounds between copies of the networks that give targets."
    )
    temperature: float = Field(
        0.02,
        gt=0,
        description="Worth of a nat of a logit, in deviations of the return: low is greedy, high explores.",
    )

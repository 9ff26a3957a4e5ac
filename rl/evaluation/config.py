"""Settings of evaluation and of the gate."""

from pydantic import BaseModel, ConfigDict, Field


class GateConfig(BaseModel):
    """When a policy may be promoted."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    max_task_loss: float = Field(0.05, ge=0, le=1, description="Relative loss any single task may suffer.")
    max_ranking_loss: float = Field(
        0.2,
        ge=0,
        le=1,
        description="Relative loss of NDCG a task may suffer; more than its return, as it is a proxy.",
    )
    min_effective_sample_size: float = Field(
        100.0, ge=1, description="Off-policy estimates on less than this count as no evidence."
    )
    min_auc: float = Field(
        0.55, ge=0, le=1, description="A simulator below this on a task's later data knows too little."
    )
    max_drift: float = Field(
        0.25, ge=0, description="Largest relative gap between simulated and logged return or session length."
    )


class EvaluationConfig(BaseModel):
    """What is measured and how precisely."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    k: int = Field(10, ge=1, description="Length of the list that ranking metrics look at.")
    num_sessions: int = Field(2000, ge=50, description="Sessions played per policy, simulated or true.")
    num_bootstrap: int = Field(500, ge=100, description="Bootstrap resamples of an interval.")
    confidence: float = Field(0.95, gt=0.5, lt=1, description="Coverage of every interval.")
    max_states: int = Field(50_000, ge=100, description="Test states ranked at most, the earliest first.")
    batch_scores: int = Field(
        8_000_000, ge=1000, description="Scores held at once, states times items; 4 bytes each, a few copies."
    )
    num_neighbours: int = Field(100, ge=1, description="Similar items that item-kNN keeps per item.")
    max_importance_weight: float = Field(
        20.0, gt=0, description="Cap of the clipped off-policy estimate's weights."
    )
    gate: GateConfig = GateConfig()

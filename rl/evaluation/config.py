"""Settings of evaluation and of the gate."""

from typing import Literal

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
    logged: Literal["require", "report"] = Field(
        "require",
        description="Whether logged slates with propensities must show the gain, or are only reported beside the "
        "simulator's, which flatters whatever was trained in one like it.",
    )
    confidence: float = Field(
        0.95, gt=0.5, lt=1, description="One-sided: of bounds on what logged slates say of gain and tasks."
    )
    min_effective_share: float = Field(
        0.1,
        ge=0,
        le=1,
        description="Share of the logged slates that must speak for the policy: below, intervals fail.",
    )
    min_effective_sample_size: float = Field(
        500.0,
        ge=1,
        description="Logged slates' worth below which off-policy intervals are not to be trusted.",
    )
    max_unsupported: float = Field(
        0.01, ge=0, le=1, description="Share of what the policy shows that the log may never show."
    )
    max_propensity_error: float = Field(
        0.05, ge=0, description="Relative amount by which logged propensities may be too small, for sure."
    )
    gain_of_interest: float = Field(
        0.05, gt=0, description="Relative gain worth waiting for: what refusals plan more slates for."
    )
    max_exposure_loss: float = Field(
        0.5, ge=0, le=1, description="Relative loss of exposure any item group may suffer against today."
    )
    max_parity_gap: float = Field(
        1e-3, gt=0, description="Largest gap between judged and served log-probabilities, nats."
    )
    min_auc: float = Field(
        0.55, ge=0, le=1, description="A simulator below this on a task's later data knows too little."
    )
    max_drift: float = Field(
        0.25, ge=0, description="Largest relative gap between simulated and logged return or session length."
    )


class RivalsConfig(BaseModel):
    """Settings of the rivals that learn; the defaults did best on the validation sessions of two public logs."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    num_neighbours: int = Field(100, ge=1, description="Similar items that item-kNN keeps per item.")
    recent_share: float = Field(
        0.1, gt=0, le=1, description="Latest share of the sessions before the test that count as recent."
    )
    als_factors: int = Field(128, ge=1, description="Width of ALS factors.")
    als_regularization: float = Field(1.0, ge=0, description="L2 price of ALS factors.")
    als_alpha: float = Field(10.0, gt=0, description="Confidence of ALS in an act, in units of none.")
    als_iterations: int = Field(15, ge=1, description="Sweeps of ALS.")
    bpr_factors: int = Field(64, ge=1, description="Width of BPR factors.")
    bpr_learning_rate: float = Field(0.05, gt=0, description="Step of BPR's stochastic descent.")
    bpr_regularization: float = Field(0.01, ge=0, description="L2 price of BPR factors.")
    bpr_iterations: int = Field(100, ge=1, description="Passes of BPR over the train split.")
    sasrec_width: int = Field(64, ge=1, description="Width of SASRec.")
    sasrec_length: int = Field(50, ge=2, description="Latest items that SASRec reads.")
    sasrec_epochs: int = Field(30, ge=1, description="Passes of SASRec over the train users at most.")
    sasrec_patience: int = Field(3, ge=1, description="Passes without gain on validation that end SASRec.")
    sasrec_negatives: int = Field(
        1024, ge=1, description="Items that a SASRec batch draws to tell the next one from; all where fewer."
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
        1_000_000, ge=1000, description="Scores held at once, states times items; 4 bytes each, a few copies."
    )
    num_threads: int = Field(
        1,
        ge=1,
        description="Threads of torch in fitting, play and scoring; two crawl where anything else runs.",
    )
    max_importance_weight: float = Field(
        20.0, gt=0, description="Cap of the clipped off-policy estimate's weights."
    )
    rivals: RivalsConfig = RivalsConfig()
    gate: GateConfig = GateConfig()

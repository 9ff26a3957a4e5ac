"""How a foreign log's columns become ours: the mapping that YAML holds."""

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator

BEHAVIOUR_COLUMNS = ("user_id", "item_id", "behaviour", "timestamp")
OPTIONAL_COLUMNS = ("session_id", "value", "request_id", "position", "propensity", "policy_version")
IMPRESSION = "impression"
ITEM_PRICE = "price"
ITEM_GROUP = "group"


class Filter(BaseModel):
    """A rule on one column of the log. All given conditions must hold."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    column: str
    matches: str | None = Field(None, description="Regular expression that the text must match.")
    above: float | None = Field(None, description="Exclusive lower bound on the number.")
    below: float | None = Field(None, description="Exclusive upper bound on the number.")


class BehaviourRule(Filter):
    """Rows that satisfy the filter are this behaviour. The first rule that holds wins."""

    behaviour: str


class IngestConfig(BaseModel):
    """Mapping, validity, sessions and splits of a log."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    columns: dict[str, str] = Field(
        {}, description="Our column: the log's column. What is not named keeps its own name."
    )
    behaviours: dict[str, str] = Field(
        {}, description="The log's behaviour: ours. Empty keeps the log's words."
    )
    rules: list[BehaviourRule] = Field(
        [], description="Behaviour from column values, for logs without such a column."
    )
    keep: list[Filter] = Field([], description="Rows that fail one of these are rejected as `filtered`.")
    item_columns: dict[str, str] = Field(
        {}, description="Item column: the log's column, for logs that carry item text in each row."
    )
    item_table_columns: dict[str, str] = Field(
        {}, description="Item column: the column of paths.items. Empty keeps all columns and their names."
    )
    separator: str = Field(
        ",", min_length=1, max_length=1, description="Character between the fields of CSV files."
    )
    time_format: str = Field("auto", description="auto, epoch_s, epoch_ms, epoch_us, or a strptime format.")
    time_zone: str = Field("UTC", description="Zone of times that name none.")
    session_gap_s: int = Field(1800, ge=1, description="A longer pause starts a new session.")
    max_rejected_fraction: float = Field(0.5, ge=0, le=1, description="More rejected rows fail the stage.")
    max_behaviours_per_minute: int = Field(600, ge=1, description="Above this rate a user is no human.")
    validation_fraction: float = Field(
        0.1, gt=0, lt=0.5, description="Share of sessions before test, by start time."
    )
    test_fraction: float = Field(0.2, gt=0, lt=0.5, description="Share of latest sessions, by start time.")
    pseudonym_key_env: str | None = Field(
        None, description="Environment variable with the HMAC key of user ids."
    )
    user_shards: int | None = Field(None, ge=1, description="Shards by user; None takes one a 300,000 rows.")
    compression: Literal["zstd", "snappy", "none"] = Field("zstd", description="Codec of the Parquet output.")

    @field_validator("columns")
    @classmethod
    def _known_columns(cls, columns: dict[str, str]) -> dict[str, str]:
        known = BEHAVIOUR_COLUMNS + OPTIONAL_COLUMNS
        unknown = next((name for name in columns if name not in known), None)
        if unknown is not None:
            raise ValueError(
                f"expected keys among {', '.join(known)}, got {unknown}; item text goes to item_columns"
            )
        return columns

    @field_validator("item_columns")
    @classmethod
    def _no_item_id(cls, columns: dict[str, str]) -> dict[str, str]:
        if "item_id" in columns:
            raise ValueError("expected item text, got item_id; it is mapped in ingest.columns")
        return columns

    def source(self, column: str) -> str:
        """The log's name of one of our columns."""
        return self.columns.get(column, column)

    def required_sources(self) -> list[str]:
        """Columns a log must have: the four of a behaviour, and all that the mapping names."""
        plain = [c for c in BEHAVIOUR_COLUMNS if not (c == "behaviour" and self.rules)]
        named = [rule.column for rule in (*self.rules, *self.keep)]
        names = [self.source(c) for c in plain] + list(self.columns.values()) + named
        return list(dict.fromkeys(names + list(self.item_columns.values())))

    def optional_sources(self) -> list[str]:
        """Columns a log may have, by our own names."""
        return [column for column in OPTIONAL_COLUMNS if column not in self.columns]

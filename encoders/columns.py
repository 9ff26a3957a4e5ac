"""How a foreign log's columns become ours: the mapping that YAML holds."""

from collections.abc import Iterable
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator

BEHAVIOUR_COLUMNS = ("user_id", "item_id", "behaviour", "timestamp")
OPTIONAL_COLUMNS = ("session_id", "value", "request_id", "position", "propensity", "policy_version")
IMPRESSION = "impression"
ITEM_PRICE = "price"
ITEM_GROUP = "group"
LINE_COLUMN = "@line"  # FILE:LINE of a row, for logs whose rows are requests of their own
PLACE_COLUMN = "@place"  # number of an entry in its row's list, from 0
MADE_COLUMNS = (LINE_COLUMN, PLACE_COLUMN)


class Format(BaseModel):
    """How the files of a table are written."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: Literal["auto", "csv", "jsonl", "parquet"] = Field(
        "auto", description="auto goes by the file's name."
    )
    separator: str = Field(",", min_length=1, max_length=4, description="Between the fields of CSV files.")
    header: list[str] | None = Field(
        None, description="Column names of CSV files that have no line with them, all in order."
    )
    quotes: bool = Field(True, description="Whether a CSV field may stand in double quotes.")
    encoding: Literal["utf-8", "latin-1", "cp1252", "utf-16"] = Field(
        "utf-8", description="Of CSV and JSON Lines. A row with other bytes is rejected as unreadable."
    )


class Filter(BaseModel):
    """A rule on one column of the log. All given conditions must hold; without any, the column must say something."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    column: str
    matches: str | None = Field(None, description="Regular expression that the text must match.")
    above: float | None = Field(None, description="Exclusive lower bound on the number.")
    below: float | None = Field(None, description="Exclusive upper bound on the number.")


class BehaviourRule(Filter):
    """Rows that satisfy the filter are this behaviour; a rule without a column always holds."""

    column: str | None = None  # type: ignore[assignment]
    behaviour: str


class Entries(BaseModel):
    """A column with a list in each row: each entry becomes a row."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    column: str = Field(description="The log's column that holds the list.")
    separator: str = Field(" ", min_length=1, description="Between the entries.")
    pattern: str = Field(
        r"(?P<item_id>.+)", description="Regular expression of an entry; its named groups become columns."
    )


class ItemProperties(BaseModel):
    """An item table with one row for each property of an item, the latest of which holds."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str = Field("property", description="Column with the property's name.")
    value: str = Field("value", description="Column with its value.")
    time: str | None = Field(None, description="Column with a number that grows with time.")


class IngestConfig(BaseModel):
    """Mapping, validity, sessions and splits of a log."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    format: Format = Format()
    columns: dict[str, str | list[str]] = Field(
        {}, description="Our column: the log's, or several that are joined. What is not named keeps its name."
    )
    entries: Entries | None = Field(None, description="Where each row holds a list of items.")
    behaviours: dict[str, str] = Field(
        {}, description="The log's behaviour: ours. Empty keeps the log's words."
    )
    rules: list[BehaviourRule] = Field(
        [], description="Behaviour from column values, for logs without such a column. The first that holds."
    )
    also: list[BehaviourRule] = Field(
        [], description="Behaviours that a row is besides its own, such as the click on what it shows."
    )
    keep: list[Filter] = Field([], description="Rows that fail one of these are rejected as `filtered`.")
    first_position: int = Field(0, ge=0, description="The log's number of the first place of a slate.")
    item_columns: dict[str, str] = Field(
        {}, description="Item column: the log's column, for logs that carry item text in each row."
    )
    item_format: Format | None = Field(None, description="Of paths.items; None takes the log's.")
    item_table_columns: dict[str, str] = Field(
        {}, description="Item column: the column of paths.items. Empty keeps all columns and their names."
    )
    item_properties: ItemProperties | None = Field(
        None,
        description="Where paths.items has one row a property; item_table_columns then names properties.",
    )
    time_format: str = Field("auto", description="auto, epoch_s, epoch_ms, epoch_us, or a strptime format.")
    time_zone: str = Field("UTC", description="Zone of times that name none.")
    session_gap_s: int = Field(1800, ge=1, description="A longer pause starts a new session.")
    max_rejected_fraction: float = Field(0.5, ge=0, le=1, description="More rejected rows fail the stage.")
    max_behaviours_per_minute: int = Field(600, ge=1, description="Above this rate a user is no human.")
    min_item_users: int = Field(
        1, ge=1, description="Rows of items that fewer users acted on are rejected as `rare_item`."
    )
    min_user_behaviours: int = Field(
        1, ge=1, description="Users with fewer rows left are rejected as `rare_user`."
    )
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
    def _known_columns(cls, columns: dict[str, str | list[str]]) -> dict[str, str | list[str]]:
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

    def sources(self, column: str) -> list[str]:
        """The log's names of one of our columns."""
        names = self.columns.get(column, column)
        return [names] if isinstance(names, str) else names

    def required_sources(self) -> list[str]:
        """Columns a log must have: the four of a behaviour, and all that the mapping names."""
        plain = [c for c in BEHAVIOUR_COLUMNS if not (c == "behaviour" and self.rules)]
        names = [name for c in dict.fromkeys([*plain, *self.columns]) for name in self.sources(c)]
        names += [rule.column for rule in (*self.rules, *self.also, *self.keep) if rule.column]
        return list(dict.fromkeys([*names, *self.item_columns.values()]))

    def optional_sources(self) -> list[str]:
        """Columns a log may have, by our own names."""
        return [column for column in OPTIONAL_COLUMNS if column not in self.columns]

    def table_format(self) -> Format:
        """The item table's format."""
        return self.item_format or self.format


def in_file(columns: Iterable[str], entries: Entries | None, made: Iterable[str]) -> list[str]:
    """Those of the columns that the file itself must hold; ``made`` are the ones that entries' groups make."""
    names = [c for c in columns if c not in MADE_COLUMNS and c not in set(made)]
    return list(dict.fromkeys([*names, *([entries.column] if entries else [])]))

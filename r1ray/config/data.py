"""Datasets and the curriculum."""

from typing import Any, Literal

from r1ray.config.base import PositiveFloat, PositiveInt, StrictModel


class SourceConfig(StrictModel):
    """One dataset: its schema, where it is, and the names of its columns."""

    source: str
    """A name in `r1ray.data.sources.SOURCES`, or `package.module:SOURCE` of an `r1ray.data.base.Source`."""
    path: str | None = None
    """Hub name, or a local .jsonl / .json / .parquet file, or a folder of such files; null for sources that generate problems."""
    subset: str | None = None
    split: str = "train"
    columns: dict[str, str] = {}
    """{our name: column of the dataset}; overrides the source's defaults."""
    weight: PositiveFloat = 1.0
    """Share of draws, relative to the other sources."""
    limit: PositiveInt | None = None
    """Use only the first `limit` usable rows; null: all."""
    accuracy_component: str = "accuracy"
    """The reward component that decides whether a completion is correct."""
    extract: str | None = None
    """How the final answer of a completion is extracted: a name in `r1ray.reward.answers.EXTRACTORS` or an import path; null: the
    verifier's default."""
    args: dict[str, Any] = {}
    """Arguments of the source (its `Args`); every source takes those of `r1ray.data.base.SourceArgs`."""


class CurriculumConfig(StrictModel):
    """Which problems are drawn next, depending on the model's results on earlier ones."""

    name: str
    """A name in r1ray.data.curriculum.CURRICULA, or `package.module:function`."""
    args: dict[str, Any]
    """Its `Args`."""


class DataConfig(StrictModel):
    train: dict[str, SourceConfig]
    curriculum: CurriculumConfig
    max_prompt_length: PositiveInt
    """Tokens."""
    overlong_prompt: Literal["drop", "cut", "error"]
    """What happens to a problem with a longer prompt: it is dropped, the start of its question is removed, or the run ends."""
    shuffle: bool
    """Shuffle each source in every epoch."""

"""Problems."""

from typing import Any, Literal

from r1ray.config.base import AbovePositive, Positive, Strict


class SourceConfig(Strict):
    """One dataset: a name in r1ray.data.SOURCES, where it is, which columns hold what."""

    source: str
    path: str | None = None
    """Hub name, or a local .jsonl / .json / .parquet file or a folder of them; null for generators."""
    subset: str | None = None
    split: str = "train"
    columns: dict[str, str] = {}
    """{our name: column in the file}, over the source's defaults."""
    weight: AbovePositive = 1.0
    """Share in a mixture, relative to the others."""
    limit: Positive | None = None
    accuracy: str = "accuracy"
    """The reward component that says whether a completion is correct."""
    extract: str | None = None
    """How a completion's final answer is read: a name in r1ray.reward.answers or an import path; null: as its verifier does."""
    args: dict[str, Any] = {}
    """Passed to the source (generators)."""


class CurriculumConfig(Strict):
    """Which problems come next, by what the model did with earlier ones."""

    name: str
    """A name in r1ray.data.curriculum.CURRICULA, or `package.module:function`."""
    args: dict[str, Any]


class DataConfig(Strict):
    train: dict[str, SourceConfig]
    curriculum: CurriculumConfig
    max_prompt_length: Positive
    overlong_prompt: Literal["drop", "cut", "error"]
    shuffle: bool

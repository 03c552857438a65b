"""The model."""

from typing import Annotated

from pydantic import BeforeValidator

from r1ray.config.base import AbovePositive, NotEmpty, Positive, Strict

ALL_LINEAR = "all-linear"


class ModelFacts(Strict):
    """What config checks need of a model that is named by hub id and not on this disk; compared with the real one at load."""

    context_length: Positive
    num_attention_heads: Positive
    num_key_value_heads: Positive
    vocab_size: Positive
    tied: bool


class LoraConfig(Strict):
    """Low-rank adapters (arXiv 2106.09685): the change that is learned is alpha / rank times B A, A [rank, in], B [out, rank]."""

    rank: Positive
    alpha: AbovePositive
    targets: Annotated[list[NotEmpty], BeforeValidator(lambda value: [value] if isinstance(value, str) else value)]
    """What linear layers of the transformer blocks are called (q_proj, ...), or `all-linear`: every one."""


class ModelConfig(Strict):
    path: str
    """`builtin`, a local folder or a hub name."""
    template: str
    """A name in r1ray.data.templates: `r1_zero`, `chat` (the tokenizer's own), `none`, ...; or `package.module:function`."""
    facts: ModelFacts | None
    lora: LoraConfig | None
    """Train adapters on top of frozen weights; null: train the weights."""

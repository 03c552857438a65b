"""The model."""

from typing import Annotated

from pydantic import BeforeValidator

from r1ray.config.base import NotEmpty, PositiveFloat, PositiveInt, StrictModel

ALL_LINEAR = "all-linear"


class ModelProperties(StrictModel):
    """What the config check needs to know of a hub model that is not on this disk; compared with the model when it is loaded."""

    context_length: PositiveInt
    num_attention_heads: PositiveInt
    num_key_value_heads: PositiveInt
    vocab_size: PositiveInt
    tie_word_embeddings: bool


class LoraConfig(StrictModel):
    """Low-rank adapters (arXiv 2106.09685): the learned update is alpha / rank times B A, A [rank, in], B [out, rank]."""

    rank: PositiveInt
    alpha: PositiveFloat
    targets: Annotated[list[NotEmpty], BeforeValidator(lambda value: [value] if isinstance(value, str) else value)]
    """Names of the linear layers of the transformer blocks that are adapted (q_proj, ...), or `all-linear` for all of them."""


class ModelConfig(StrictModel):
    path: str
    """`builtin`, a local folder or a hub name."""
    template: str
    """A name in r1ray.data.templates: `r1_zero`, `chat` (the tokenizer's own), `none`, ...; or `package.module:function`."""
    properties: ModelProperties | None
    lora: LoraConfig | None
    """Train adapters on top of frozen weights; null: train the weights."""

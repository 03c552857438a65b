"""The model."""

from r1ray.config.base import Positive, Strict


class ModelFacts(Strict):
    """What config checks need of a model that is named by hub id and not on this disk; compared with the real one at load."""

    context_length: Positive
    num_attention_heads: Positive
    num_key_value_heads: Positive
    vocab_size: Positive
    tied: bool


class ModelConfig(Strict):
    path: str
    """`builtin`, a local folder or a hub name."""
    template: str
    """`r1_zero`, `chat` (the tokenizer's own) or `none`; or `module:function`."""
    facts: ModelFacts | None

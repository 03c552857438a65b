"""The base model that ships with r1ray: a Qwen2 with a million parameters that solves Countdown and gives up too early.

Rebuild the tokenizer with `python -m r1ray.builtin.tokenizer FOLDER` and the weights with
`python -m r1ray.main recipe=builtin_base`, whose last checkpoint is the model.
"""

from pathlib import Path


def path() -> Path:
    """The model folder: config, tokenizer and weights as transformers and vLLM load them."""
    return Path(__file__).parent

"""The base model that ships with r1ray: a Qwen2 of a million parameters that knows Countdown and gives up too early.

Rebuild the tokenizer with `python -m r1ray.builtin.tokenizer FOLDER` and the weights with
`python -m r1ray.main recipe=builtin_base`, whose last checkpoint is the model.
"""

from pathlib import Path


def path() -> Path:
    """The model folder: config, tokenizer and weights as transformers and vLLM load them."""
    return Path(__file__).parent


def folder_of(path_or_name: str) -> str:
    """What `model.path` means to those who load from it: the model folder for `builtin`, anything else as it is."""
    return str(path()) if path_or_name == "builtin" else path_or_name

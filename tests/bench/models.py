"""Models of the benchmarks: Qwen2 shapes with random weights and the built-in tokenizer."""

from pathlib import Path
from typing import Any

SHAPES: dict[str, dict[str, Any]] = {
    "25M": {
        "vocab_size": 2048,
        "hidden_size": 512,
        "intermediate_size": 1408,
        "num_hidden_layers": 8,
        "num_attention_heads": 8,
        "num_key_value_heads": 4,
    },
    "1M": {
        "vocab_size": 640,
        "hidden_size": 128,
        "intermediate_size": 448,
        "num_hidden_layers": 4,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
    },
}


def make_model(folder: Path, shape: dict[str, Any]) -> int:
    """Random weights and the built-in tokenizer; returns the number of parameters."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer, Qwen2Config
    from transformers.utils.logging import disable_progress_bar

    from r1ray import builtin

    disable_progress_bar()
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(
        Qwen2Config(**shape, max_position_embeddings=1024, tie_word_embeddings=True)
    )
    model.save_pretrained(folder)
    AutoTokenizer.from_pretrained(builtin.path()).save_pretrained(folder)
    return sum(p.numel() for p in model.parameters())

"""Recognises mixtures of experts, which r1ray does not train. Imports nothing, so that the check can use it."""

import re
from collections.abc import Mapping
from typing import Any

COUNTS = ("n_routed_experts", "num_experts", "num_local_experts", "moe_num_experts")
"""Keys of a config.json with the number of experts per layer."""
NAMES = re.compile(
    r"deepseek-(v[2-9]|r1(?!.*(qwen|llama)))|-a\d+(\.\d+)?b\b|mixtral|moe\b|gpt-oss|kimi-k2|glm-4\.[5-9]|glm-5|llama-4|minimax-m|dbrx|jamba|grok",
    re.IGNORECASE,
)
"""Hub names of such models, where the name shows it."""

REASON = (
    "r1ray's trainer (DeepSpeed without expert parallelism) supports dense models only: the 671B of DeepSeek-V3 and R1 would need "
    "more than 9 TB of GPU memory for weights and optimizer (14 bytes a weight), and weight sync to vLLM is untested for experts "
    "(transformers stores them fused and under other names)"
)


def experts_of(config: Mapping[str, Any]) -> int:
    """The largest number of routed experts per layer in a config.json; 0 for a dense model."""
    inner = config.get("text_config") or {}
    return max(int(where.get(name) or 0) for where in (config, inner) for name in COUNTS)

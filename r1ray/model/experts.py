"""Which models are mixtures of experts, which r1ray does not train. Imports nothing, so that the check can ask."""

import re
from collections.abc import Mapping
from typing import Any

COUNTS = ("n_routed_experts", "num_experts", "num_local_experts", "moe_num_experts")
"""Where a config.json says how many experts a layer has."""
NAMES = re.compile(
    r"deepseek-(v[2-9]|r1(?!.*(qwen|llama)))|-a\d+(\.\d+)?b\b|mixtral|moe\b|gpt-oss|kimi-k2|glm-4\.[5-9]|glm-5|llama-4|minimax-m|dbrx|jamba|grok",
    re.IGNORECASE,
)
"""Hub names of such models, as far as names tell."""

REASON = (
    "r1ray's trainer, DeepSpeed without expert parallelism, is for dense models: the 671B of DeepSeek-V3 and R1 would need more "
    "than 9 TB of GPU memory for weights and optimiser (14 bytes a weight), and that experts, which transformers fuses under "
    "names of its own, reach vLLM whole has never been shown"
)


def experts_of(config: Mapping[str, Any]) -> int:
    """The most routed experts of a layer by a config.json; 0 for a dense model."""
    inner = config.get("text_config") or {}
    return max(int(where.get(name) or 0) for where in (config, inner) for name in COUNTS)

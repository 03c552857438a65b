"""Small samples and the GRPO configuration of conf/, for tests of algorithms, packing and the forward pass."""

from pathlib import Path
from typing import Any

import numpy as np
import yaml

from r1ray.config import AlgoConfig
from r1ray.types import Sample, Score

CONF = Path(__file__).parents[2] / "conf"


def algo_config(**overrides: Any) -> AlgoConfig:
    return AlgoConfig(**yaml.safe_load((CONF / "algo/grpo.yaml").read_text()) | overrides)


def score(reward: float, *, usable: bool = True) -> Score:
    return Score(reward=reward, correct=None, parts={}, statuses={}, usable=usable, seconds=0.0)


def sample(
    length: int,
    *,
    prompt: int = 1,
    reward: float = 0.0,
    usable: bool = True,
    group: str = "g",
    index: int = 0,
    seed: int = 0,
    **fields: Any,
) -> Sample:
    """`length` random tokens of which the first `prompt` are the prompt."""
    rng = np.random.default_rng((seed, index))
    mask_T = np.ones(length, np.float32)
    mask_T[:prompt] = 0
    return Sample(
        **{
            "token_ids_T": rng.integers(0, 50, length).astype(np.int32),
            "mask_T": mask_T,
            "rollout_logprobs_T": -rng.random(length).astype(np.float32) * mask_T,
            "temperature": 1.0,
            "group_id": group,
            "index": index,
            "score": score(reward, usable=usable),
            **fields,
        }
    )

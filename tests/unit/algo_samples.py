"""Small samples and the algorithms of conf/, for tests of algorithms, packing and the forward pass."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from r1ray.config import AlgoConfig
from r1ray.config.tree import merge
from r1ray.types import Completion, Group, Problem, Sample, Score

CONF = Path(__file__).parents[2] / "conf"


def algo_option(name: str) -> dict[str, Any]:
    """conf/algo/NAME.yaml with its defaults list, as Hydra composes it."""
    own = yaml.safe_load((CONF / f"algo/{name}.yaml").read_text())
    values: dict[str, Any] = {}
    for parent in own.pop("defaults", []):
        values |= {} if parent == "_self_" else algo_option(parent)
    return merge(values, own)


def algo_config(option: str = "grpo", **overrides: Any) -> AlgoConfig:
    return AlgoConfig(**merge(algo_option(option), overrides))


def score(reward: float, *, usable: bool = True) -> Score:
    return Score(reward=reward, correct=None, components={}, statuses={}, usable=usable, seconds=0.0)


def group_of(corrects: Sequence[int | None], *, rewards: Sequence[float] | None = None) -> Group:
    """A group of one-token completions; None: could not be scored."""
    problem = Problem(
        id="p", source="s", messages=(), prompt_ids_T=np.array([1], np.int32), verifier="none", payload={}
    )
    completion = Completion(
        token_ids_T=np.array([0], np.int32),
        rollout_logprobs_T=np.zeros(1, np.float32),
        temperature=1.0,
        text="",
        finish_reason="stop",
        versions=(),
    )
    earned = [float(correct or 0) for correct in corrects] if rewards is None else rewards
    scores = tuple(
        replace(score(reward, usable=correct is not None), correct=None if correct is None else bool(correct))
        for correct, reward in zip(corrects, earned, strict=True)
    )
    return Group(problem=problem, completions=(completion,) * len(scores), scores=scores)


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
    """`length` random tokens, of which the first `prompt` are the prompt."""
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

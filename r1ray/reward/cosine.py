"""Cosine-scaled reward (Demystifying Long CoT, arXiv 2502.03373, 4.2; the form and the defaults are Open-R1's function).

    R = low + (high - low) / 2 * (1 + cos(pi * length / max_length))

A right completion earns from `max_correct` (short) down to `min_correct` (at the limit), a wrong one from `min_wrong` up to
`max_wrong`: being wrong costs less when it was thought about for longer. Lengths are in tokens, and beyond the limit nothing
changes any more (Open-R1's goes back up there).
"""

import math
from collections.abc import Sequence

from r1ray.reward.base import RewardContext
from r1ray.types import Completion, Problem


def cosine(
    problem: Problem,
    completions_G: Sequence[Completion],
    context: RewardContext,
    *,
    min_correct: float = 0.5,
    max_correct: float = 1.0,
    min_wrong: float = -1.0,
    max_wrong: float = -0.5,
    max_length: int | None = None,
) -> list[float | None]:
    """None for a completion whose correctness is not known. `max_length` in tokens; None: the longest completion that is
    sampled.
    """
    limit = max_length or context.max_response_length
    rewards_G: list[float | None] = []
    for completion, correct in zip(completions_G, context.correct_G, strict=True):
        low, high = (min_correct, max_correct) if correct else (max_wrong, min_wrong)
        scaled = low + (high - low) / 2 * (1 + math.cos(math.pi * min(1.0, len(completion.token_ids_T) / limit)))
        rewards_G.append(None if correct is None else scaled)
    return rewards_G

"""Cosine-scaled reward (Demystifying Long CoT, arXiv 2502.03373, 4.2; the form and the defaults are Open-R1's function).

    R = low + (high - low) / 2 * (1 + cos(pi * length / max_length))

A correct completion earns from `max_correct` (short) down to `min_correct` (at the limit), an incorrect one from `min_incorrect`
up to `max_incorrect`: an incorrect answer costs less after longer reasoning. Lengths are in tokens. Beyond the limit the reward
stays constant (Open-R1's rises again there).
"""

import math
from collections.abc import Sequence

from r1ray.config.base import PositiveInt
from r1ray.plugin import Args, arguments
from r1ray.reward.base import RewardContext
from r1ray.types import Completion, Problem


class CosineArgs(Args):
    min_correct: float = 0.5
    max_correct: float = 1.0
    min_incorrect: float = -1.0
    max_incorrect: float = -0.5
    max_length: PositiveInt | None = None
    """Tokens; null: rollout.max_response_length."""


@arguments(CosineArgs)
def cosine(
    problem: Problem, completions_G: Sequence[Completion], context: RewardContext, args: CosineArgs
) -> list[float | None]:
    """None for a completion whose correctness is not known."""
    limit = args.max_length or context.max_response_length
    rewards_G: list[float | None] = []
    for completion, correct in zip(completions_G, context.correct_G, strict=True):
        low, high = (args.min_correct, args.max_correct) if correct else (args.max_incorrect, args.min_incorrect)
        scaled = low + (high - low) / 2 * (1 + math.cos(math.pi * min(1.0, len(completion.token_ids_T) / limit)))
        rewards_G.append(None if correct is None else scaled)
    return rewards_G

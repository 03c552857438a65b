"""Length reward of Kimi k1.5 (arXiv 2501.12599, 2.3.3): among the completions to one prompt, the short ones earn more.

    lambda = 0.5 - (length - shortest) / (longest - shortest)        correct: lambda        incorrect: min(0, lambda)

Lengths are in tokens (Open-R1 counts characters), and the group is the completions to one prompt. Kimi turns it on after a warm-up.
Light-R1 (arXiv 2503.10460) pushes correct completions less to be short (`correct_scale` below 1); by how much is not published.
"""

from collections.abc import Sequence

from r1ray.config.base import Fraction
from r1ray.plugin import Args, arguments
from r1ray.reward.base import RewardContext
from r1ray.types import Completion, Problem


class LengthArgs(Args):
    correct_scale: Fraction = 1.0
    """The share of lambda that a correct completion earns."""


@arguments(LengthArgs)
def length(
    problem: Problem, completions_G: Sequence[Completion], context: RewardContext, args: LengthArgs
) -> list[float | None]:
    """Between -0.5 and 0.5; 0 for all when all are equally long; None for a completion whose correctness is not known."""
    lengths_G = [len(completion.token_ids_T) for completion in completions_G]
    shortest, longest = min(lengths_G), max(lengths_G)
    if shortest == longest:
        return [None if correct is None else 0.0 for correct in context.correct_G]
    rewards_G: list[float | None] = []
    for num_tokens, correct in zip(lengths_G, context.correct_G, strict=True):
        share = 0.5 - (num_tokens - shortest) / (longest - shortest)
        rewards_G.append(None if correct is None else args.correct_scale * share if correct else min(0.0, share))
    return rewards_G

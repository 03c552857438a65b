"""Length reward of Kimi k1.5 (arXiv 2501.12599, 2.3.3): among the completions to one prompt, the short ones earn more.

    lambda = 0.5 - (length - shortest) / (longest - shortest)        right: lambda        wrong: min(0, lambda)

Lengths are in tokens (Open-R1 counts characters), and the group is the completions to one prompt. Kimi turns it on after a warm-up.
Light-R1 (arXiv 2503.10460) pushes right completions less hard to be short; by how much is not published (`right` below 1).
"""

from collections.abc import Sequence

from r1ray.reward.base import RewardContext
from r1ray.types import Completion, Problem


def length(
    problem: Problem, completions_G: Sequence[Completion], context: RewardContext, *, right: float = 1.0
) -> list[float | None]:
    """Between -0.5 and 0.5; 0 for all when all are equally long; None for a completion whose correctness is not known.

    `right`, from 0 to 1, is how much of lambda a right completion gets.
    """
    if not 0 <= right <= 1:
        raise ValueError(f"right={right} has to be from 0 to 1: the share of lambda that a right completion gets")
    lengths_G = [len(completion.token_ids_T) for completion in completions_G]
    shortest, longest = min(lengths_G), max(lengths_G)
    if shortest == longest:
        return [None if correct is None else 0.0 for correct in context.correct_G]
    rewards_G: list[float | None] = []
    for num_tokens, correct in zip(lengths_G, context.correct_G, strict=True):
        share = 0.5 - (num_tokens - shortest) / (longest - shortest)
        rewards_G.append(None if correct is None else right * share if correct else min(0.0, share))
    return rewards_G

"""Soft overlong punishment (DAPO, arXiv 2503.14476, equation 13): a completion that comes near the limit loses up to 1.

0                                       length <= max_length - cache
(max_length - cache - length) / cache   length <= max_length
-1                                      beyond
"""

from collections.abc import Sequence

from r1ray.reward.base import RewardContext
from r1ray.types import Completion, Problem


def overlong(
    problem: Problem,
    completions_G: Sequence[Completion],
    context: RewardContext,
    *,
    cache: int,
    max_length: int | None = None,
) -> list[float]:
    """Between -1 and 0. The paper has a cache of 4,096 of 20,480 tokens; `max_length` None: the longest completion that is
    sampled.
    """
    limit = max_length or context.max_response_length
    if not 0 < cache <= limit:
        raise ValueError(f"cache={cache} has to be above 0 and at most the limit of {limit} tokens")
    return [min(0.0, max(-1.0, (limit - cache - len(completion.token_ids_T)) / cache)) for completion in completions_G]

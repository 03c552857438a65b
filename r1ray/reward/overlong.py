"""Soft overlong punishment (DAPO, arXiv 2503.14476, equation 13): a completion that comes near the limit loses up to 1.

0                                       length <= max_length - cache
(max_length - cache - length) / cache   length <= max_length
-1                                      beyond
"""

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from r1ray.config.base import PositiveInt
from r1ray.mistakes import Finding, Mistake
from r1ray.plugin import Args, arguments
from r1ray.reward.base import RewardContext
from r1ray.types import Completion, Problem

if TYPE_CHECKING:
    from r1ray.config.view import StageView


class OverlongArgs(Args):
    cache: PositiveInt = 4096
    """The last tokens before the limit, in which the punishment grows: DAPO has 4,096 of 20,480."""
    max_length: PositiveInt | None = None
    """Tokens; null: rollout.max_response_length."""

    def check(self, view: "StageView", key: str, owner: Any) -> Iterator[Finding]:
        limit, cache = self.max_length or view.rollout.max_response_length, self.cache
        key = f"{key}.cache"
        if cache > limit:
            rule = f"counts the last tokens of the {limit} that a completion may have, so it can be at most {limit}"
            yield Mistake(key=key, value=cache, rule=rule, remedy=f"{key}={max(1, limit // 5)} (DAPO: a fifth)")
        elif view.kind.reinforcement and 2 * cache > limit:
            yield (
                f"{key}={cache} punishes a completion from its token {limit - cache} on, of {limit} that it may have: for "
                f"DAPO's fifth {key}={limit // 5}"
            )


@arguments(OverlongArgs)
def overlong(
    problem: Problem, completions_G: Sequence[Completion], context: RewardContext, args: OverlongArgs
) -> list[float]:
    """Between -1 and 0."""
    limit, cache = args.max_length or context.max_response_length, args.cache
    return [min(0.0, max(-1.0, (limit - cache - len(completion.token_ids_T)) / cache)) for completion in completions_G]

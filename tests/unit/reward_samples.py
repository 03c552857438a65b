"""A problem and completions of any text or length, for tests of rewards."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from r1ray.plugin import Args, args_of
from r1ray.reward.base import RewardContext
from r1ray.types import Completion, FinishReason, Message, Problem, VersionSpan


def problem(**changes: Any) -> Problem:
    fields = {
        "id": "p",
        "source": "s",
        "messages": (Message(role="user", content="?"),),
        "prompt_ids_T": np.array([1], np.int32),
        "verifier": "math",
        "payload": {"answers": ["1"]},
    }
    return Problem(**(fields | changes))


def completion(text: str = "", finish_reason: FinishReason = "stop", *, token_ids: Sequence[int] = (1,)) -> Completion:
    return Completion(
        token_ids_T=np.array(token_ids, np.int32),
        rollout_logprobs_T=np.zeros(len(token_ids), np.float32),
        temperature=1.0,
        text=text,
        finish_reason=finish_reason,
        versions=(VersionSpan(version=0, start=0, end=len(token_ids)),),
    )


def of_length(num_tokens: int) -> Completion:
    return completion(token_ids=[5] * num_tokens)


def context(correct_G: Sequence[bool | None] = (), *, max_response_length: int = 1000) -> RewardContext:
    return RewardContext(step=1, seed=0, max_response_length=max_response_length, correct_G=tuple(correct_G))


def value(reward: Any, text: str, *, asked: Problem | None = None, **args: Any) -> float | None:
    """The value that a reward gives one completion."""
    (score,) = given(reward, asked or problem(), [completion(text)], context(), **args)
    return getattr(score, "value", score)


def given(reward: Any, asked: Problem, completions_G: Sequence[Completion], about: RewardContext, **args: Any) -> Any:
    """The values that a reward gives a group, with these arguments."""
    declared = args_of(reward)
    return reward(asked, completions_G, about, *([] if declared is Args else [declared(**args)]))

"""Groups of scored completions -> training samples. The mask conventions are defined here, each with a test."""

from collections.abc import Sequence
from typing import Literal

import numpy as np

from r1ray.types import Completion, Group, Sample, Score


def to_samples(groups: Sequence[Group], *, truncated: Literal["zero", "score", "mask"]) -> list[Sample]:
    """One sample per completion, in the order of groups and completions.

    The mask is 1 on every token of the completion, including its EOS, and 0 on the prompt; nothing is appended to a truncated
    completion. With reward.truncated "mask" the mask of a truncated completion is 0, while its score still counts in the group's
    baseline; the other settings act on its score (`r1ray.reward.compose`). `group_id` contains the epoch, because a problem that
    is drawn twice in a step makes two groups.
    """
    return [
        _sample(group, completion, score, index=index, truncated=truncated)
        for group in groups
        for index, (completion, score) in enumerate(zip(group.completions, group.scores, strict=True))
    ]


def _sample(group: Group, completion: Completion, score: Score, *, index: int, truncated: str) -> Sample:
    num_prompt, num_completion = len(group.problem.prompt_ids_T), len(completion.token_ids_T)
    trained = score.usable and not (completion.truncated and truncated == "mask")
    mask_T = np.zeros(num_prompt + num_completion, np.float32)
    rollout_logprobs_T = np.zeros_like(mask_T)
    if trained:
        mask_T[num_prompt:] = 1
        rollout_logprobs_T[num_prompt:] = completion.rollout_logprobs_T
    return Sample(
        token_ids_T=np.concatenate([group.problem.prompt_ids_T, completion.token_ids_T]),
        mask_T=mask_T,
        rollout_logprobs_T=rollout_logprobs_T,
        temperature=completion.temperature,
        group_id=f"{group.problem.id}@{group.epoch}",
        index=index,
        score=score,
        finish_reason=completion.finish_reason,
        versions=completion.versions,
    )

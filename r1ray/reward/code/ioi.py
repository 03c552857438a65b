"""IOI scoring (Open-R1): a subtask counts as much as its worst test, and the problem as all subtasks together.

    sum over subtasks of points * min over its tests of score, over the sum of points

`payload` is {"tests": ..., "subtasks": ...}. A test is passed, 1, or failed, 0 (IOI's graders may give a part of a test's points;
a comparison of outputs does not).
"""

from collections.abc import Sequence

from r1ray.reward.base import ComponentScore, RewardContext
from r1ray.reward.code.tested import per_program, subtasks_of
from r1ray.reward.code.verdicts import Verdict
from r1ray.types import Completion, Problem


def ioi(problem: Problem, completions_G: Sequence[Completion], context: RewardContext) -> list[ComponentScore]:
    """Between 0 and 1; 0 without a program; None for a problem without subtasks."""
    subtasks = subtasks_of(problem)
    if not subtasks:
        return [ComponentScore(value=None)] * len(completions_G)
    total = sum(subtask.points for subtask in subtasks)

    def worth(found: Sequence[Verdict]) -> float:
        scores = (subtask_score([float(found[n].correct) for n in subtask.tests]) for subtask in subtasks)
        return sum(subtask.points * score for subtask, score in zip(subtasks, scores, strict=True)) / total

    return per_program(problem, completions_G, worth)


def subtask_score(scores: Sequence[float], *, precision: int = 2) -> float:
    """Of its tests, to the problem's number of decimals. Example: `subtask_score([1.0, 0.5, 0.75])` is 0.5."""
    return round(min(scores), precision)

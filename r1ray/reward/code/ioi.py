"""IOI scoring (Open-R1): the score of a subtask is that of its worst test, and the problem's is the sum over subtasks.

    (sum over subtasks of points * min over its tests of score) / sum of points

`payload` is {"tests": ..., "subtasks": ...}. The score of a test is 1 or 0 (IOI's graders may give a part of a test's points; a
comparison of outputs cannot).
"""

from collections.abc import Sequence

from r1ray.reward.base import ComponentScore, per_completion
from r1ray.reward.code.problem_tests import program_score, subtasks_of
from r1ray.reward.code.verdicts import Verdict
from r1ray.types import Problem


@per_completion
def ioi(problem: Problem, text: str) -> ComponentScore:
    """Between 0 and 1; 0 without a program; None for a problem without subtasks."""
    subtasks = subtasks_of(problem)
    if not subtasks:
        return ComponentScore(value=None)
    total = sum(subtask.points for subtask in subtasks)

    def score_fn(found: Sequence[Verdict]) -> float:
        scores = (subtask_score([float(found[n].correct) for n in subtask.tests]) for subtask in subtasks)
        return sum(subtask.points * score for subtask, score in zip(subtasks, scores, strict=True)) / total

    return program_score(problem, text, score_fn)


def subtask_score(scores: Sequence[float], *, precision: int = 2) -> float:
    """The worst score of its tests, rounded to the problem's precision. Example: `subtask_score([1.0, 0.5, 0.75])` is 0.5."""
    return round(min(scores), precision)

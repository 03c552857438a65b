"""Rewards by the difficulty of tests (MiMo, arXiv 2505.07608): levels of tests, by how many models' programs pass them.

    strict   the points of a level count if all tests of it and of every easier level are passed
    soft     the points of a level are split evenly over its tests

divided by the points of all levels. `payload` is {"tests": ..., "subtasks": ...}: the levels, the easiest first. Without subtasks
all tests are one level. The paper publishes neither the number of levels nor their points.
"""

from collections.abc import Sequence
from itertools import takewhile
from typing import Literal

from r1ray.plugin import Args, arguments
from r1ray.reward.base import ComponentScore, per_completion
from r1ray.reward.code.problem_tests import program_score, subtasks_of
from r1ray.reward.code.verdicts import Verdict
from r1ray.types import Problem

Level = tuple[float, Sequence[bool]]
"""(points, which of its tests are passed)."""


class DifficultyArgs(Args):
    scheme: Literal["strict", "soft"] = "strict"


@per_completion
@arguments(DifficultyArgs)
def by_difficulty(problem: Problem, text: str, args: DifficultyArgs) -> ComponentScore:
    """Between 0 and 1; 0 without a program; None for a problem without tests."""
    subtasks = subtasks_of(problem)
    points = strict_points if args.scheme == "strict" else soft_points

    def score_fn(found: Sequence[Verdict]) -> float:
        levels = [(subtask.points, [found[n].correct for n in subtask.tests]) for subtask in subtasks]
        levels = levels or [(1.0, [verdict.correct for verdict in found])]
        return points(levels) / sum(worth for worth, _ in levels)

    return program_score(problem, text, score_fn)


def strict_points(levels: Sequence[Level]) -> float:
    """Example: `strict_points([(1, [True]), (2, [False]), (3, [True])])` is 1: the third level does not count."""
    return sum(points for points, _ in takewhile(lambda level: all(level[1]), levels))


def soft_points(levels: Sequence[Level]) -> float:
    """Example: `soft_points([(1, [True]), (2, [True, False])])` is 2.0."""
    return sum(points * sum(passed) / len(passed) for points, passed in levels)

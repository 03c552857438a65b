"""Accuracy of programs: `payload` is {"tests": ..., "limits": ...?}, in the forms of `r1ray.reward.code.cases`."""

from r1ray.reward.base import PartScore
from r1ray.reward.code.cases import read_cases, read_limits
from r1ray.reward.code.extract import last_program
from r1ray.reward.code.verify import verdicts
from r1ray.sandbox.here import sandbox
from r1ray.types import Problem

__all__ = ["judge", "last_program"]


def judge(problem: Problem, answer: str) -> PartScore:
    """1 for a program that passes every test, else 0; the status is that of the first test it fails.

    Raises SandboxUnavailable where no sandbox was opened.
    """
    cases, limits = read_cases(problem.payload["tests"]), read_limits(problem.payload.get("limits"))
    for verdict in verdicts(answer, cases, limits=limits, sandbox=sandbox()):
        if verdict.status == "sandbox_error":
            return PartScore(value=None, status="sandbox_error")
        if not verdict.right:
            return PartScore(value=0.0, status=verdict.status, correct=False)
    return PartScore(value=1.0, correct=True)

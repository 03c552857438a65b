"""The verifier of programs. `payload` is {"tests": ..., "limits": ...?, "subtasks": ...?, "language": "python" | "cpp"?}, in the
forms of `code.cases`."""

from r1ray.reward.base import ComponentScore
from r1ray.reward.code.cases import ProgramArgs
from r1ray.reward.code.problem_tests import all_passed, program_in, score_of, tests_of, up_to_first_failure
from r1ray.types import Problem

__all__ = ["ProgramArgs", "program_in", "verify"]


def verify(problem: Problem, answer: str) -> ComponentScore:
    """1 for a program that passes every test, else 0; the status is that of the first test it fails, which is the last one run.

    Raises SandboxUnavailable where no sandbox was opened.
    """
    return score_of(up_to_first_failure(tests_of(problem).verdicts(answer)), score_fn=all_passed)

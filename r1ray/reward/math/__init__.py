"""Maths answers: extract the one that counts, compare it cheaply, and ask math-verify, in its child process, only when needed."""

import atexit
from functools import cache, lru_cache

from r1ray.reward.base import PartScore
from r1ray.reward.math.compare import MAX_LENGTH, fast_equal, hostile, normalise
from r1ray.reward.math.extract import final_answer
from r1ray.reward.math.verify import MathVerifier
from r1ray.types import Problem, Status

__all__ = ["final_answer", "judge"]

STATUS_OF: dict[str, Status] = {
    "right": "ok",
    "wrong": "wrong_answer",
    "timeout": "timeout",
    "memory": "memory",
    "crash": "runtime_error",
}


def judge(problem: Problem, answer: str) -> PartScore:
    """1 if `answer` equals any of `payload["answers"]`, else 0: also for an answer that hangs, swells or kills the comparison.

    Raises:
        VerifierDown: there is no working verification process, which is no reply's fault.
    """
    verdict = compare(answer, tuple(problem.payload["answers"]))
    right = verdict == "right"
    return PartScore(value=float(right), status=STATUS_OF[verdict], correct=right)


@lru_cache(maxsize=20_000)
def compare(answer: str, golds: tuple[str, ...]) -> str:
    """The verdict; the G replies of a group mostly give the same few answers, so pairs are remembered."""
    if len(answer) > MAX_LENGTH:
        return "wrong"
    answer, golds = normalise(answer), tuple(normalise(gold) for gold in golds)
    fast = [fast_equal(answer, gold) for gold in golds]
    if True in fast:
        return "right"
    undecided = [gold for gold, equal in zip(golds, fast, strict=True) if equal is None]
    if not undecided or hostile(answer):
        return "wrong"
    return verifier().verify(undecided, answer)


@cache
def verifier() -> MathVerifier:
    """This process's child, started by the first comparison that needs it."""
    process = MathVerifier()
    atexit.register(process.close)
    return process

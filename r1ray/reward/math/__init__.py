"""Maths answers: extract the answer, compare it without algebra where possible, and else use math-verify in a child process.

    extract      the box after the thinking                     typography   normalises the notation
    compare      decides what needs no algebra, in this process, with number, monomial, units and structure
    process      sends the others to `child`, a process with limits on time and memory

Without a working child (math-verify is missing, no process can be started) answers that `compare` decides are scored as usual. The
other completions get no score: status sandbox_error, unusable, as after any infrastructure failure, and never 0. This is logged
once, and the child is started again after RETRY_S.
"""

import atexit
import logging
from functools import cache, lru_cache

from r1ray.reward.base import ComponentScore
from r1ray.reward.math.compare import MAX_LENGTH, NeedsAlgebra, decide, hostile
from r1ray.reward.math.extract import final_answer, stated
from r1ray.reward.math.process import MathVerifier, VerifierDown
from r1ray.reward.math.typography import normalise
from r1ray.types import Problem, Status

log = logging.getLogger(__name__)

__all__ = ["final_answer", "verify"]

STATUS_OF: dict[str, Status] = {
    "correct": "ok",
    "incorrect": "wrong_answer",
    "timeout": "timeout",
    "memory": "memory",
    "crash": "runtime_error",
}


def verify(problem: Problem, answer: str) -> ComponentScore:
    """1 if `answer` equals any of `payload["answers"]`, else 0: also for an answer on which the comparison hangs, crashes or runs
    out of memory.

    Without a working verification process the value is None: that is not the completion's fault.
    """
    try:
        verdict = compare(answer, tuple(problem.payload["answers"]))
    except VerifierDown as error:
        _report(str(error))
        return ComponentScore(value=None, status="sandbox_error")
    correct = verdict == "correct"
    return ComponentScore(value=float(correct), status=STATUS_OF[verdict], correct=correct)


@lru_cache(maxsize=20_000)
def compare(answer: str, golds: tuple[str, ...]) -> str:
    """The verdict. Pairs are cached, because the G completions of a group mostly give the same few answers.

    Raises:
        VerifierDown: algebra is needed, and there is no working process for it.
    """
    if len(answer) > MAX_LENGTH:
        return "incorrect"
    answer = normalise(answer)
    wanted = [normalise(stated(gold)) for gold in golds]
    decided = [decide(answer, gold) for gold in wanted]
    if True in decided:
        return "correct"
    try:
        for gold, question in zip(wanted, decided, strict=True):
            if isinstance(question, NeedsAlgebra) and decide(answer, gold, _equal_by_algebra) is True:
                return "correct"
    except _Stopped as stopped:
        return stopped.verdict
    return "incorrect"


class _Stopped(Exception):
    """The answer ended the child process."""

    def __init__(self, verdict: str) -> None:
        super().__init__(verdict)
        self.verdict = verdict


def _equal_by_algebra(answer: str, gold: str) -> bool:
    if hostile(answer):
        return False
    verdict = verifier().verify([gold], answer)
    if verdict not in ("correct", "incorrect"):
        raise _Stopped(verdict)
    return verdict == "correct"


@cache
def verifier() -> MathVerifier:
    """The child of this process; the first comparison that needs it starts it."""
    process = MathVerifier()
    atexit.register(process.close)
    return process


@cache
def _report(what: str) -> None:
    """Once for each failure, however many completions it affects."""
    log.error("VerifierDown: %s; completions that need it are unusable", what)

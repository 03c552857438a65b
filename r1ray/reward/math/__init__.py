"""Maths answers: extract the one that counts, compare it cheaply, and ask math-verify, in its child process, only when needed.

    extract      the box after the thinking                     typography   one way to write it
    compare      decides what needs no algebra, in this process: number, monomial, units, structure
    child        the rest, behind limits on time and memory; `verify` is the way there

Without a working child (math-verify missing, no process to be had) what `compare` decides is scored as ever. The other completions
get no score at all: status sandbox_error, unusable, as after any failure of the machinery, and never 0. The log says so once, and
the child is tried again after RETRY_S.
"""

import atexit
import logging
from functools import cache, lru_cache

from r1ray.reward.base import ComponentScore
from r1ray.reward.math.compare import MAX_LENGTH, Question, decide, hostile
from r1ray.reward.math.extract import final_answer
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
    """1 if `answer` equals any of `payload["answers"]`, else 0: also for an answer that hangs, swells or kills the comparison.

    No value where there is no working verification process, which is no completion's fault.
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
    """The verdict; the G completions of a group mostly give the same few answers, so pairs are remembered.

    Raises:
        VerifierDown: only algebra can tell, and there is no working process for it.
    """
    if len(answer) > MAX_LENGTH:
        return "incorrect"
    answer = normalise(answer)
    decided = [decide(answer, normalise(gold)) for gold in golds]
    if True in decided:
        return "correct"
    golds_of: dict[str, list[str]] = {}
    for question in decided:
        if isinstance(question, Question) and not hostile(question.answer):
            golds_of.setdefault(question.answer, []).append(question.gold)
    verdict = "incorrect"
    for answer, asked in golds_of.items():
        verdict = verifier().verify(asked, answer)
        if verdict != "incorrect":
            break
    return verdict


@cache
def verifier() -> MathVerifier:
    """This process's child, started by the first comparison that needs it."""
    process = MathVerifier()
    atexit.register(process.close)
    return process


@cache
def _report(what: str) -> None:
    """Once for each failure, however many completions it meets."""
    log.error("VerifierDown: %s; completions that need it are unusable", what)

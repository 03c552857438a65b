"""Accuracy: is the final answer right? The problem names the verifier; here is the list of them."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from r1ray.plugin import resolve
from r1ray.reward import choice, code, countdown, exact, logic, math, swe
from r1ray.reward.answers import EXTRACTORS, MARKS
from r1ray.reward.base import ComponentScore, RewardContext, correct_or_incorrect, response_text
from r1ray.reward.text import last_answer
from r1ray.types import Completion, Problem


@dataclass(frozen=True, slots=True, kw_only=True)
class Verifier:
    answer: Callable[[Problem, str], str | None]
    """The final answer in a completion, as text, where the problem does not say how it is read; None when it gives none."""
    judge: Callable[[Problem, str], ComponentScore]
    """What that answer is worth, by the problem's payload."""
    mark: str | None = None
    """What a completion must hold for `answer` to find one; None where it knows several forms."""


def in_text(find: Callable[[str], str | None]) -> Callable[[Problem, str], str | None]:
    """Where the answer stands does not depend on the problem."""
    return lambda _, text: find(text)


VERIFIERS: Mapping[str, Verifier] = {
    "choice": Verifier(answer=in_text(choice.chosen), judge=choice.judge),
    "code": Verifier(answer=code.program_in, judge=code.judge),
    "countdown": Verifier(answer=in_text(last_answer), judge=countdown.judge, mark="<answer>"),
    "exact": Verifier(answer=in_text(math.final_answer), judge=exact.judge),
    "logic": Verifier(answer=in_text(last_answer), judge=logic.judge, mark="<answer>"),
    "math": Verifier(answer=in_text(math.final_answer), judge=math.judge),
    "patch": Verifier(answer=in_text(last_answer), judge=swe.judge, mark="<answer>"),
    "program": Verifier(answer=code.program_in, judge=code.judge),
}


def accuracy(problem: Problem, completions_G: Sequence[Completion], context: RewardContext) -> list[ComponentScore]:
    """1 for a right final answer, else 0 (R1-Zero's accuracy reward, arXiv 2501.12948, 2.2.2). No answer is a wrong answer."""
    verifier: Verifier = resolve(problem.verifier, VERIFIERS, what="verifier")
    scores: list[ComponentScore] = []
    for completion in completions_G:
        answer = answer_of(problem, completion)
        if answer is None:
            scores.append(correct_or_incorrect(False))
        else:
            scores.append(verifier.judge(problem, answer))
    return scores


def answer_of(problem: Problem, completion: Completion) -> str | None:
    """The final answer of a completion: what the accuracy reward judges, and what majority voting groups completions by."""
    text = response_text(problem, completion)
    if problem.extract is None:
        return resolve(problem.verifier, VERIFIERS, what="verifier").answer(problem, text)
    return resolve(problem.extract, EXTRACTORS, what="way to read answers")(text)


def mark_of(verifier: str, extract: str | None) -> str | None:
    """What a completion must hold for its answer to be found, so that a prompt had better ask for it; None where nothing is
    known.
    """
    if extract is not None:
        return MARKS.get(extract)
    return VERIFIERS[verifier].mark if verifier in VERIFIERS else None

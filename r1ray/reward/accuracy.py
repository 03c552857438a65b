"""The accuracy reward: is the final answer correct? Each problem names the verifier that decides; VERIFIERS lists r1ray's."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from r1ray import plugin
from r1ray.plugin import resolve
from r1ray.reward import choice, code, countdown, exact, logic, math, spans, swe
from r1ray.reward.answers import EXTRACTORS, MARKS
from r1ray.reward.base import ComponentScore, correct_or_incorrect, per_completion, response_text
from r1ray.reward.text import last_answer
from r1ray.types import Completion, Problem


@dataclass(frozen=True, slots=True, kw_only=True)
class Verifier:
    answer: Callable[[Problem, str], str | None]
    """The final answer in a completion, as text; None when there is none. Not used for problems that set `extract`."""
    verify: Callable[[Problem, str], ComponentScore]
    """The score of that answer, by the problem's payload."""
    mark: str | None = None
    """What a completion must contain for `answer` to find anything; None where it accepts several forms."""
    Args: type[plugin.Args] = plugin.Args
    """Arguments of the verifier. A source takes them next to its name, {verifier: code, verifier_args: {language: cpp}}, and writes
    them into each problem's payload."""


def in_text(find: Callable[[str], str | None]) -> Callable[[Problem, str], str | None]:
    """An `answer` that does not depend on the problem."""
    return lambda _, text: find(text)


VERIFIERS: Mapping[str, Verifier] = {
    "choice": Verifier(answer=in_text(choice.chosen), verify=choice.verify),
    "code": Verifier(answer=code.program_in, verify=code.verify, Args=code.ProgramArgs),
    "countdown": Verifier(answer=in_text(last_answer), verify=countdown.verify, mark="<answer>"),
    "exact": Verifier(answer=in_text(math.final_answer), verify=exact.verify),
    "logic": Verifier(answer=in_text(last_answer), verify=logic.verify, mark="<answer>"),
    "math": Verifier(answer=in_text(math.final_answer), verify=math.verify),
    "patch": Verifier(answer=in_text(last_answer), verify=swe.verify, mark="<answer>"),
    "program": Verifier(answer=code.program_in, verify=code.verify, Args=code.ProgramArgs),
    "text_match": Verifier(answer=in_text(last_answer), verify=spans.verify, mark="<answer>"),
}


@per_completion
def accuracy(problem: Problem, text: str) -> ComponentScore:
    """1 for a correct final answer, else 0 (R1-Zero's accuracy reward, arXiv 2501.12948, 2.2.2). No answer is incorrect."""
    verifier: Verifier = resolve(problem.verifier, VERIFIERS, what="verifier")
    answer = answer_in(problem, text)
    return correct_or_incorrect(False) if answer is None else verifier.verify(problem, answer)


def answer_of(problem: Problem, completion: Completion) -> str | None:
    """The final answer of a completion: what the accuracy reward scores, and what majority voting groups completions by."""
    return answer_in(problem, response_text(problem, completion))


def answer_in(problem: Problem, text: str) -> str | None:
    """The final answer in a text, read as the problem says; None when there is none."""
    if problem.extract is None:
        return resolve(problem.verifier, VERIFIERS, what="verifier").answer(problem, text)
    return resolve(problem.extract, EXTRACTORS, what="answer extractor")(text)


def mark_of(verifier: str, extract: str | None) -> str | None:
    """What a completion must contain for its answer to be found, so that the prompt should ask for it; None where this is not
    known.
    """
    if extract is not None:
        return MARKS.get(extract)
    return VERIFIERS[verifier].mark if verifier in VERIFIERS else None

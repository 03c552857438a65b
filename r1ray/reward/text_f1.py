"""F1 of the words of a text answer (SQuAD), for sources with `verifier: text_match` or another whose payload has `answers`."""

from r1ray.reward.accuracy import answer_in
from r1ray.reward.base import ComponentScore, per_completion
from r1ray.reward.spans import best_f1
from r1ray.types import Problem


@per_completion
def text_f1(problem: Problem, text: str) -> ComponentScore:
    """The largest F1 of the final answer over the problem's answers; 0 without an answer. It does not apply to problems that have
    none.
    """
    if not problem.payload.get("answers"):
        return ComponentScore(value=None)
    answer = answer_in(problem, text)
    value = 0.0 if answer is None else best_f1(problem, answer)
    return ComponentScore(value=value, status="ok" if value else "wrong_answer")

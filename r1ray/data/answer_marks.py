"""Do prompts ask for the marks from which answers are read? Where only `<answer>` is read and no prompt asks for it, every answer
is incorrect."""

from collections.abc import Iterable, Sequence
from typing import Any

from r1ray.reward.accuracy import mark_of
from r1ray.types import Problem

HEAD = 64
"""Problems that are examined: their questions differ, and one that asks for the mark is enough."""


def missing_mark(problems: Sequence[Problem], tokenizer: Any) -> str | None:
    """A mark from which answers are read although neither the prompts nor the chat template mention it; None where there is none.

    Example: problems with `extract="answer"` rendered with the template `none` give "<answer>".
    """
    marks = {mark for problem in problems[:HEAD] if (mark := mark_of(problem.verifier, problem.extract))}
    prompts = [tokenizer.decode(problem.prompt_ids_T) for problem in problems[:HEAD]] if marks else []
    return next(iter(unmentioned(marks, [str(tokenizer.chat_template or ""), *prompts])), None)


def unmentioned(marks: Iterable[str], texts: Sequence[str]) -> list[str]:
    """The marks that none of the texts contains, sorted."""
    return [
        mark for mark in sorted(marks) if not any(mark in (text.lower() if mark.islower() else text) for text in texts)
    ]

"""Are models told to write what answers are read from? Where nobody asks for `<answer>` and only that is read, all is wrong."""

from collections.abc import Iterable, Sequence
from typing import Any

from r1ray.reward.accuracy import mark_of
from r1ray.types import Problem

HEAD = 64
"""Problems that are looked at: they differ in their questions, and one that asks is enough."""


def not_asked_for(problems: Sequence[Problem], tokenizer: Any) -> str | None:
    """What their answers are read from, if no prompt and no chat template mentions it; None where all is well.

    Example: problems with `extract="answer"`, asked by the template `none`, give "<answer>".
    """
    marks = {mark for problem in problems[:HEAD] if (mark := mark_of(problem.verifier, problem.extract))}
    prompts = [tokenizer.decode(problem.prompt_ids_T) for problem in problems[:HEAD]] if marks else []
    return next(iter(unmentioned(marks, [str(tokenizer.chat_template or ""), *prompts])), None)


def unmentioned(marks: Iterable[str], texts: Sequence[str]) -> list[str]:
    """The marks that stand in none of the texts, in order."""
    return [
        mark for mark in sorted(marks) if not any(mark in (text.lower() if mark.islower() else text) for text in texts)
    ]

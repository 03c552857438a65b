"""Are models told to write what answers are read from? Where nobody asks for `<answer>` and only that is read, all is wrong."""

from collections.abc import Sequence
from typing import Any

from r1ray.reward.accuracy import mark_of
from r1ray.types import Problem

HEAD = 64
"""Problems that are looked at: they differ in their questions, and one that asks is enough."""


def not_asked_for(problems: Sequence[Problem], tokenizer: Any) -> str | None:
    """What their answers are read from, if no prompt and no chat template mentions it; None where all is well.

    Example: problems with `extract="answer"`, asked by the template `none`, give "<answer>".
    """
    chat = str(tokenizer.chat_template or "")
    marks = {mark for problem in problems[:HEAD] if (mark := mark_of(problem.verifier, problem.extract))}
    prompts = [tokenizer.decode(problem.prompt_ids_T) for problem in problems[:HEAD]] if marks else []
    silent = [mark for mark in sorted(marks) if mark not in chat and not any(mark in prompt for prompt in prompts)]
    return silent[0] if silent else None

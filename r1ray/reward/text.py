"""The parts of a completion: reasoning, conclusion, answer. Every function is linear in the length of the text."""

import re
from collections.abc import Mapping
from typing import Any, cast

IDEOGRAPHS = "\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0002ebef"
"""Chinese characters and kana, for use in a character class: these scripts have no spaces between words."""

SURROGATE = re.compile("[\ud800-\udfff]")
HALF = "half of a surrogate pair without the other half: no text may contain it"


def after_thinking(text: str) -> str:
    """The text after the last `</think>`; the whole text when it has no think tags.

    An answer counts only outside the reasoning, so a `<think>` that is opened there and not closed ends the text.
    """
    tail = text.rpartition("</think>")[2]
    return tail.partition("<think>")[0]


def thinking(text: str) -> str:
    """The reasoning: the text before the last `</think>`; the whole text when there is none."""
    before, closed, _ = text.rpartition("</think>")
    return (before if closed else text).replace("<think>", " ")


def without(text: str, opening: str, closing: str) -> str:
    """The text with a space in place of each opening, the closing that follows it, and all between them.

    Example: `without("so $x$ is", "$", "$")` is "so   is".
    """
    kept: list[str] = []
    position = 0
    while (start := text.find(opening, position)) >= 0:
        end = text.find(closing, start + len(opening))
        if end < 0:  # later openings have no closing either: searching for it again would take quadratic time
            break
        kept += [text[position:start], " "]
        position = end + len(closing)
    return "".join([*kept, text[position:]])


def last_answer(text: str) -> str | None:
    """The content of the last `<answer>...</answer>` after the thinking, or None.

    Example: `last_answer("<think>5?</think> <answer> 7 </answer>")` is "7".
    """
    head, closed, _ = after_thinking(text).rpartition("</answer>")
    _, opened, content = head.rpartition("<answer>")
    return content.strip() if opened and closed else None


def lone_surrogate(value: Any) -> str | None:
    r"""The first half of a surrogate pair without the other half in a text, or in the texts of lists and mappings, escaped.

    JSON may contain them. Example: `lone_surrogate({"a": ["x\ud800"]})` is "\\ud800".
    """
    waiting = [value]
    while waiting:
        part = waiting.pop()
        if isinstance(part, str):
            if not part.isascii() and (found := SURROGATE.search(part)):
                return ascii(found[0])[1:-1]
        elif isinstance(part, Mapping):
            waiting += [*cast("Mapping[Any, Any]", part), *cast("Mapping[Any, Any]", part).values()]
        elif isinstance(part, list | tuple):
            waiting += cast("list[Any]", part)
    return None

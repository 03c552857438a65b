"""The final answer of a maths completion: the last `\\boxed{...}` after the thinking, else the last `<answer>`, else the last line
`Answer: ...` (which the prompts of DAPO-Math-17k ask for).

The box is chosen here and not by math-verify, which merges neighbouring boxes into a set and reads boxes inside the reasoning.
"""

import re
from collections import deque

from r1ray.reward.text import after_thinking, last_answer

ANSWER_LINE = re.compile(
    r"^(?:\*\*|#+[ \t]+)?(?:Final )?(?:Answer|\u7b54\u6848)(?:\*\*)?[:\uff1a](?:\*\*)?[ \t]*(\S.*)$", re.MULTILINE
)
_BOXES = r"\\(?:boxed|fbox|framebox)"
BOX = re.compile(rf"{_BOXES}\s*(?=\{{)|{_BOXES}(?:\s+|(?=[0-9]))([^\s${{}}\\]+)")
SPECIAL_TOKEN = re.compile(r"<\|[A-Za-z0-9_\u2581]{1,40}\|>|</?s>|<\uff5c[^<>\uff5c]{1,40}\uff5c>")
"""What some engines leave at the end of a text."""


def final_answer(text: str) -> str | None:
    """Example: `final_answer("<think>\\\\boxed{7}</think> so \\\\boxed{\\\\frac{1}{2}}")` is "\\\\frac{1}{2}"."""
    conclusion = after_thinking(text)
    found = last_boxed(conclusion)
    if found is None:
        found = last_answer(text)
    return answer_line(conclusion) if found is None else found


def answer_line(text: str) -> str | None:
    """The text of the last line that begins with `Answer:`."""
    lines = deque(ANSWER_LINE.finditer(text), maxlen=1)
    if not lines:
        return None
    answer = SPECIAL_TOKEN.sub("", lines[0][1]).strip()
    return answer.removesuffix("**").rstrip() if answer.count("**") == 1 else answer


def stated(gold: str) -> str:
    """The gold, or the last box in a gold that is a sentence with one."""
    boxed = last_boxed(gold) if BOX.search(gold) else None
    return gold if boxed is None else boxed


def last_boxed(text: str) -> str | None:
    """The content of the last box, with matching braces; None when there is none or the last one is never closed."""
    boxes = deque(BOX.finditer(text), maxlen=1)
    if not boxes:
        return None
    last = boxes[0]
    if last[1] is not None:  # \boxed 7, without braces
        return last[1].rstrip(".,")
    return _braced(text, last.end())


def _braced(text: str, start: int) -> str | None:
    """The text between the brace at `start` and the one that closes it; a brace after a backslash is text."""
    depth = 0
    position = start
    while position < len(text):
        character = text[position]
        if character == "\\":
            position += 1
        elif character in "{}":
            depth += 1 if character == "{" else -1
            if depth == 0:
                return text[start + 1 : position].strip()
        position += 1
    return None

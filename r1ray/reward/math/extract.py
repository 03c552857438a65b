"""The final answer of a maths completion: the last `\\boxed{...}` after the thinking, else the last `<answer>`, else the last line
`Answer: ...` (what the prompts of DAPO-Math-17k ask for).

math-verify merges neighbouring boxes into a set and reads boxes inside the reasoning; so the one box is chosen here, first.
"""

import re
from collections import deque

from r1ray.reward.text import after_thinking, last_answer

ANSWER_LINE = re.compile(r"^Answer:[ \t]*(\S.*)$", re.MULTILINE)
BOX = re.compile(r"\\boxed\s*(?=\{)|\\boxed\s+([^\s${}]+)")


def final_answer(text: str) -> str | None:
    """Example: `final_answer("<think>\\\\boxed{7}</think> so \\\\boxed{\\\\frac{1}{2}}")` is "\\\\frac{1}{2}"."""
    conclusion = after_thinking(text)
    found = last_boxed(conclusion)
    if found is None:
        found = last_answer(text)
    return answer_line(conclusion) if found is None else found


def answer_line(text: str) -> str | None:
    """What the last line that begins with `Answer:` says."""
    lines = deque(ANSWER_LINE.finditer(text), maxlen=1)
    return lines[0][1].strip() if lines else None


def last_boxed(text: str) -> str | None:
    """Content of the last box, braces matched; None when there is none or it is never closed (an earlier one does not count)."""
    boxes = deque(BOX.finditer(text), maxlen=1)
    if not boxes:
        return None
    last = boxes[0]
    if last[1] is not None:  # \boxed 7, without braces
        return last[1].rstrip(".,")
    return _braced(text, last.end())


def _braced(text: str, start: int) -> str | None:
    """What stands between the brace at `start` and its partner; a brace after a backslash is a printed one."""
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

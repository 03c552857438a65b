"""The program in a completion: the last fenced block after the thinking that is marked with the language, else the last one
without a mark.
"""

from collections.abc import Mapping, Sequence

from r1ray.reward.text import after_thinking
from r1ray.sandbox.base import Language

FENCE = "```"
NAMES: Mapping[Language, Sequence[str]] = {
    "python": ("python", "python3", "py"),
    "cpp": ("cpp", "c++", "cc", "cpp17", "c++17"),
}


def last_program(text: str, language: Language = "python", *, must_name: bool = False) -> str | None:
    """A closing fence must begin its line, and a block that is never closed does not count. With `must_name` neither does a block
    without the name of the language.

    Example: `last_program("<think>a</think> ```python\\nprint(1)\\n```\\nprints\\n```\\n1\\n```")` is "print(1)\\n".
    """
    named: str | None = None
    nameless: str | None = None
    inside: list[str] | None = None
    name = ""
    for line in after_thinking(text).split("\n"):
        if inside is not None:
            if not line.lstrip().startswith(FENCE):
                inside.append(line)
                continue
            program = "".join(line + "\n" for line in inside)
            if program.strip() and name in NAMES[language]:
                named = program
            elif program.strip() and not name:
                nameless = program
            inside, line = None, line.lstrip().removeprefix(FENCE)
        _, fence, name = line.partition(FENCE)
        if fence and FENCE not in name:  # else it opens and closes in this line
            inside, name = [], name.strip().lower().strip("{}. ").partition(" ")[0]
    return named if named is not None or must_name else nameless

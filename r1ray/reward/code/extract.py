"""The program in a completion: of its fenced blocks after the thinking that are marked with the language, else of those without a
mark, the last one that is a whole answer.

After their answer models show how it is used or tested, in further blocks. So a block that defines the function of the problem, or
that reads standard input, goes before others, and one that only has assertions comes last.
"""

import re
from collections.abc import Callable, Mapping
from itertools import chain

from r1ray.reward.code.fences import blocks
from r1ray.reward.text import after_thinking
from r1ray.sandbox.base import Language

NAMES: Mapping[Language, re.Pattern[str]] = {
    "python": re.compile(r"(?:[ic]?python|py|pypy)[-_]?[0-9.]*|.*\.py"),
    "cpp": re.compile(r"(?:cpp|c\+\+|cc|cxx|g\+\+|gnu\+\+)-?[0-9a-z]{0,2}|.*\.(?:cpp|cc|cxx)"),
}
"""What the text after a fence begins with: `python`, `py3`, `python3.11`, `python:main.py`, `main.py`."""
MARKDOWN = ("markdown", "md")
WHOLE: Mapping[Language, re.Pattern[str]] = {
    "python": re.compile(r"\binput\s*\(|\bstdin\b|\bopen\s*\(\s*0|\bos\.read\b|\bfileinput\b"),
    "cpp": re.compile(r"\bmain\s*\("),
}
"""In programs that read their input."""
ASIDE = re.compile(r"\s|#|assert\b|import\b|from\b|[)\]}]|$")
"""How the lines of a block of assertions begin."""


def last_program(
    text: str,
    language: Language = "python",
    *,
    function: Callable[[], str | None] = lambda: None,
    must_name: bool = False,
) -> str | None:
    """A block that is never closed does not count. With `must_name` neither does a block without the name of the language.

    Example: `last_program("<think>a</think> ```python\\nprint(1)\\n```\\nprints\\n```\\n1\\n```")` is "print(1)\\n".

    Args:
        function: returns the name that the program has to define; None for a whole program. Asked where several blocks are left,
            because it may take time.
    """
    outer = blocks(after_thinking(text))
    inner = (blocks(block.content) if _name(block.info) in MARKDOWN else (block,) for block in outer)
    found = [block for block in chain.from_iterable(inner) if block.content.strip()]
    named = [block.content for block in found if NAMES[language].fullmatch(_name(block.info))]
    programs = named or [block.content for block in found if not block.info and not must_name]
    if len(programs) < 2:
        return programs[0] if programs else None
    name = function()
    whole = WHOLE[language] if name is None else _defining(name)
    preferred = [program for program in programs if whole.search(program)]
    return (preferred or [program for program in programs if not _only_asserts(program)] or programs)[-1]


def _name(info: str) -> str:
    return re.split(r"[\s:,;=}]", info.lower().lstrip("{. "), maxsplit=1)[0]


def _defining(function: str) -> re.Pattern[str]:
    name = re.escape(function)
    return re.compile(rf"^[ \t]*(?:async[ \t]+)?def[ \t]+{name}\b|^{name}[ \t]*=(?!=)", re.MULTILINE)


def _only_asserts(program: str) -> bool:
    return bool(re.search(r"^assert\b", program, re.MULTILINE)) and all(map(ASIDE.match, program.split("\n")))

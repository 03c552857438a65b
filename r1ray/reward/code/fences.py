"""Fenced blocks of Markdown, as models write them: indented, of backticks or tildes, of three or more, after text on the line.

A line that begins with a fence of the same kind, at least as long as the one that opened the block, closes it, and so does such a
fence at the end of a line of code. Neither does inside a string of three quotes, which is a part of the program.
"""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

BACKTICKS = re.compile(r"`{3,}")
TILDES = re.compile(r"(?:[ \t>]|[-*+] |[0-9]+[.)] )*(~{3,})")
"""Only at the beginning of a line: elsewhere `~~~` is other markup."""
NAME = re.compile(r"[\w{}.:+#-]+")
TOKEN = re.compile(r"""(\#)|(\"{3}|'{3})|"(?:[^"\\]|\\.)*"?|'(?:[^'\\]|\\.)*'?""")
"""Of Python: a comment, three quotes, a string in one line."""
INSIDE = {quotes: re.compile(rf"\\.|{quotes}") for quotes in ("'''", '"""')}


@dataclass(frozen=True, slots=True, kw_only=True)
class Block:
    """A closed block."""

    info: str
    """The text after the opening fence."""
    content: str
    """Its lines without the indentation of the first one."""


def blocks(text: str) -> Iterator[Block]:
    """Example: `[block.content for block in blocks("a ```py\\nx\\n``` b")]` is ["x\\n"]."""
    lines = text.split("\n")
    number, rest = 0, lines[0]
    while True:
        opening = _opening(rest)
        if opening is None:
            number += 1
            if number == len(lines):
                return
            rest = lines[number]
            continue
        fence, info = opening
        end = _end(lines, number + 1, fence)
        if end is None:
            return
        last, before = end
        content = lines[number + 1 : last] + ([before] if before.strip() else [])
        yield Block(info=info, content="".join(line + "\n" for line in dedented(content)))
        number, rest = last, lines[last][len(before) :].strip().lstrip(fence[0])
        if NAME.fullmatch(rest):  # a name right after the fence opens another block: the last one was not closed
            rest = fence + rest


def _opening(line: str) -> tuple[str, str] | None:
    """(fence, text after it); None where every fence that opens in this line also closes in it."""
    if found := TILDES.match(line):
        return found[1], line[found.end() :].strip()
    fences = list(BACKTICKS.finditer(line))
    return (fences[-1][0], line[fences[-1].end() :].strip()) if len(fences) % 2 else None


def _end(lines: Sequence[str], start: int, fence: str) -> tuple[int, str] | None:
    """(number of the line that closes the block, the code before the fence in it); None when none does.

    Where a string of three quotes is never closed, the first fence inside it counts; where nothing else closes the block, a fence
    at the end of a comment.
    """
    as_long = rf"{fence[0]}{{{len(fence)},}}"
    closing, at_end = re.compile(rf"\s*{as_long}"), re.compile(rf"([^{fence[0]}]*){as_long}\s*")
    quotes, in_string, in_comment = "", None, None
    for number in range(start, len(lines)):
        line = lines[number]
        if found := closing.match(line):
            if not quotes:
                return number, ""
            if in_string and NAME.fullmatch(line[found.end() :].strip()):
                break
            in_string = in_string or (number, "")
        elif found := at_end.fullmatch(line):
            inside, comment = _after(found[1], quotes)
            if not inside and not comment:
                return number, found[1]
            in_comment = (number, found[1]) if comment else in_comment
        quotes, _ = _after(line, quotes)
    return in_string or in_comment


def _after(line: str, quotes: str) -> tuple[str, bool]:
    """(the three quotes of the string that is open at the end of the line, or "", whether a comment is), from those at its
    beginning."""
    at = 0
    while True:
        if quotes:
            end = next((found for found in INSIDE[quotes].finditer(line, at) if found[0] == quotes), None)
            if end is None:
                return quotes, False
            quotes, at = "", end.end()
        token = TOKEN.search(line, at)
        if token is None or token[1]:
            return "", token is not None
        quotes, at = token[2] or "", token.end()


def dedented(lines: Sequence[str]) -> list[str]:
    """The lines without as much indentation as the first line of code has; a program begins with none."""
    first = next((line for line in lines if line.strip() and not line.lstrip().startswith("#")), "")
    prefix = first[: len(first) - len(first.lstrip())]
    width = len(prefix.expandtabs(4))
    return [_without(line, prefix, width) for line in lines] if prefix else list(lines)


def _without(line: str, prefix: str, width: int) -> str:
    if line.startswith(prefix):
        return line[len(prefix) :]
    code = line.lstrip(" \t")
    indented = len(line[: len(line) - len(code)].expandtabs(4))
    return " " * max(0, indented - width) + code

r"""A lexer for LaTeX as it is written in answers: commands, numbers, runs of letters, spaces, single characters.

A number whose groups of three digits are set apart by a space or by a separator with only this meaning (`12\,345`, `12{,}345`,
`12,\!345`, `1'000`) is one token. A plain comma is not such a separator: `typography` reads it by its place, since `(7,123)` is a
pair.
"""

import re
from collections.abc import Iterable, Sequence

_SEPARATOR = r"\{,\}\s*|,\\!\s*|\{\\,\}\s*|\\[,;: ]\s*|~|'|\s|\\thinspace(?![A-Za-z])\s*|\\!\s*"
LEXER = re.compile(
    rf"(?P<grouped>(?<![0-9.,_^'~])[1-9][0-9]{{0,2}}(?P<separator>{_SEPARATOR})[0-9]{{3}}(?:(?P=separator)[0-9]{{3}})*(?![0-9']))"
    r"|\\(?:[A-Za-z]+|.)|[0-9]+|[A-Za-z]+|\s+|.",
    re.DOTALL,
)
_JOINED = re.compile("[^0-9]")
_OPENING = {
    "{": "}",
    "(": ")",
    "[": "]",
    r"\{": r"\}",
    r"\langle": r"\rangle",
    r"\lfloor": r"\rfloor",
    r"\lceil": r"\rceil",
}
_CLOSING = frozenset(_OPENING.values())


def lex(text: str) -> list[str]:
    r"""Example: `lex(r"\frac12 x")` is ["\\frac", "12", " ", "x"]."""
    return [
        _JOINED.sub("", match[0]) if match["grouped"] else " " if match[0].isspace() else match[0]
        for match in LEXER.finditer(text)
    ]


def render(tokens: Iterable[str]) -> str:
    """The text of tokens, with a space where a command would swallow the letters after it."""
    parts: list[str] = []
    for token in tokens:
        if parts and token[:1].isalpha() and token.isascii() and _is_word_command(parts[-1]):
            parts.append(" ")
        parts.append(token)
    return "".join(parts)


def _is_word_command(token: str) -> bool:
    return token[0] == "\\" and token[-1].isalpha()


def group_end(tokens: Sequence[str], start: int) -> int | None:
    """The index of the bracket that closes the one at `start`; None where it is never closed."""
    opening, depth = tokens[start], 0
    closing = _OPENING[opening]
    for index in range(start, len(tokens)):
        depth += (tokens[index] == opening) - (tokens[index] == closing)
        if depth == 0:
            return index
    return None


def same_tokens(a: str, b: str) -> bool:
    r"""Whether two texts are the same apart from spaces and from braces around one token: `x \in\mathbb Z`, `x\in \mathbb{Z}`."""
    return _bare(lex(a)) == _bare(lex(b))


def _bare(tokens: list[str]) -> list[str]:
    solid = [token for token in tokens if token != " "]
    bare: list[str] = []
    for index, token in enumerate(solid):
        if token == "{" and index + 2 < len(solid) and solid[index + 2] == "}":
            continue
        if token == "}" and index >= 2 and solid[index - 2] == "{":
            continue
        bare.append(token)
    return bare

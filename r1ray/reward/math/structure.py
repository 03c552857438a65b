r"""The structure of a maths answer: lists, sets, tuples, intervals, unions, matrices, inequalities, names with a value.

This module only splits texts; `compare` compares the parts. Each function is linear in the length of its text.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass

_BRACKET = r"\\[{}]|\\[lr]angle(?![A-Za-z])|[()\[\]{}]"
CONNECTIVE = re.compile(
    r",?\s*\\(?:text|mathrm)\s*\{\s*(?:and|or|和|或|与|及)\s*\}\s*|,?\s*(?<![\\A-Za-z])(?:and|or)(?![A-Za-z])\s*"
    r"|(?<=[0-9a-zA-Z)}\s])[和或与及](?=[0-9a-zA-Z(\\\s-])|\\(?:lor|vee)(?![A-Za-z])"
)
MATRIX = re.compile(
    r"(?:\(|\[)?\s*\\begin\{([pb]?(?:small)?matrix|array)\}(?:\{[lcr| ]*\})?(.*)\\end\{\1\}\s*(?:\)|\])?", re.DOTALL
)
RELATION = re.compile(r"<|>|\\(?:le|ge|ne|in|to|approx)(?![A-Za-z])|=")
FLIPPED = {"<": ">", ">": "<", r"\le": r"\ge", r"\ge": r"\le"}

_WORD = r"\\?[A-Za-z]+(?:_(?:\{[^{}]*\}|[A-Za-z0-9]))?'*"
NAME = re.compile(
    rf"((?:\\(?:angle|triangle|overline|vec)\s*\{{?)?(?:{_WORD}|\\text\{{[^{{}}]*\}}|\([A-Za-z](?:,\s*[A-Za-z])+\))\}}?(?:\([^()=<>]{{0,40}}\))?)"
    r"\s*(?:=|\\in(?![A-Za-z]))\s*"
)
ANSWER_PREFIX = re.compile(
    r"(?:the )?(?:final )?answer(?: is|:)\s*|(?:the|its|their|this) (?:[a-z]{3,15} ){1,2}(?:is|equals)\s+|\\approx(?![A-Za-z])\s*"
    r"|(?:[A-Za-z]{1,12}|[\u4e00-\u9fff]{0,12}?)(?:是|等于|为)\s*|(?:[A-Za-z]{3,12}|[\u4e00-\u9fff]{1,12}):\s*",
    re.IGNORECASE,
)
NEGATION = re.compile("not|不|非|没|大于|小于|至|约|超|负|除", re.IGNORECASE)
ELLIPSIS, PLUS_MINUS = r"\ldots", re.compile(r"\\pm(?![A-Za-z])")
CASES = re.compile(
    r"(?:\\\{)?\s*\\begin\{(?:cases|aligned|array)\}(?:\{[lcr| ]*\})?(.*)\\end\{(?:cases|aligned|array)\}", re.DOTALL
)
TRANSPOSED = re.compile(r"(\(.*\)|\[.*\])\s*\^\s*(?:\{\s*)?(?:T|\\top|\\mathsf\{T\}|\\intercal)(?:\s*\})?", re.DOTALL)


@dataclass(frozen=True, slots=True, kw_only=True)
class Structure:
    """`(1, 2]` is Structure(kind="(]", items=("1", "2")); `1 or 2` has the kind "list".

    The other kinds are "{}", "()", "[]", "[)", "union" and, for a matrix, its shape ("2x3"), the items row by row.
    """

    kind: str
    items: tuple[str, ...]
    text: str = ""


def structure(text: str) -> Structure | None:
    """The parts of a normalised text; None for a single value, also one in parentheses."""
    if match := MATRIX.fullmatch(text):
        return _matrix(match[2], text)
    if match := CASES.fullmatch(text):
        text = ", ".join(row.replace("&", "").strip(" ,") for row in match[1].split(r"\\") if row.strip())
    if match := TRANSPOSED.fullmatch(text):
        text = match[1]
    text = CONNECTIVE.sub(",", text).strip(", ")
    solutions = [item.strip() for item in _split(text, ";")]
    if len(solutions) > 1 and (points := _points(solutions)):
        return Structure(kind="list", items=points, text=text)
    items = [signed for item in _split(text, ",;") for signed in _both_signs(item.strip())]
    if len(items) > 1:
        return Structure(kind="list", items=tuple(items), text=text) if all(items) else None
    members = [member.strip() for member in _split(text, r"\cup")]
    if len(members) > 1:
        return Structure(kind="union", items=tuple(members), text=text) if all(members) else None
    return _bracketed(text)


def _both_signs(text: str) -> list[str]:
    r"""The two values of `1 \pm x`."""
    if len(PLUS_MINUS.findall(text)) != 1 or is_relation(text):
        return [text]
    return [PLUS_MINUS.sub(sign, text) for sign in ("+", "-")]


def _points(solutions: list[str]) -> tuple[str, ...] | None:
    """`p=5, q=2; p=7, q=2` as points; None where the solutions are no values of the same names."""
    points: list[str] = []
    names: set[tuple[str, ...]] = set()
    for solution in solutions:
        named = sorted(split_name(item.strip()) for item in _split(solution, ","))
        names.add(tuple(name for name, _ in named))
        points.append(f"({', '.join(value for _, value in named)})")
    (only,) = names if len(names) == 1 else ((),)
    return tuple(points) if len(only) > 1 and all(only) else None


def chain(text: str) -> tuple[list[str], list[str]] | None:
    """(parts, signs) of inequalities in ascending order: `3 > x` is (["x", "3"], ["<"]). None for other texts."""
    if "<" not in text and ">" not in text and r"\le" not in text and r"\ge" not in text:
        return None
    if CONNECTIVE.search(text):
        return None
    parts, signs = [""], list[str]()
    for piece, sign in _pieces(text, RELATION):
        parts[-1] = piece.strip()
        if sign:
            signs.append(sign)
            parts.append("")
    if not signs or not all(parts) or not set(signs) <= FLIPPED.keys() or len(list(_split(text, ",;"))) > 1:
        return None
    if set(signs) <= {">", r"\ge"}:
        parts, signs = parts[::-1], [FLIPPED[sign] for sign in signs[::-1]]
    return parts, signs


def relation_of(text: str) -> tuple[str, str, str] | None:
    """(left side, sign, right side) of a text with one sign of relation; None for others."""
    pieces = [(piece.strip(), sign) for piece, sign in _pieces(text, RELATION)]
    if len(pieces) != 2 or not all(piece for piece, _ in pieces):
        return None
    return pieces[0][0], pieces[0][1], pieces[1][0]


def split_name(text: str) -> tuple[str, str]:
    """(name, value): ("x", "3") for `x = 3` and `x \\in 3`, ("", "3") for `the answer is 3` and `3`.

    A text with several relations has no name.
    """
    if (said := ANSWER_PREFIX.match(text)) and said.end() < len(text) and not NEGATION.search(said[0]):
        text = text[said.end() :]
    if match := NAME.match(text):
        value = text[match.end() :]
        if value and not RELATION.search(value):
            return re.sub(r"\s|\\text|[{}]", "", match[1]), value
    return "", text


def equated(text: str) -> list[str]:
    """The sides of `a = b = c`; [] for a text with other relations, or none."""
    pieces = [(piece.strip(), sign) for piece, sign in _pieces(text, RELATION)]
    several = r"\begin" in text or CONNECTIVE.search(text) or len(list(_split(text, ",;"))) > 1
    single = {sign for _, sign in pieces[:-1]} == {"="} and not several
    return [piece for piece, _ in pieces] if single and all(piece for piece, _ in pieces) else []


def is_relation(text: str) -> bool:
    return RELATION.search(text) is not None


def _matrix(body: str, text: str) -> Structure | None:
    if r"\begin" in body:
        return None
    rows = [[cell.strip() for cell in row.split("&")] for row in body.split(r"\\") if row.strip()]
    if not rows or len({len(row) for row in rows}) != 1:
        return None
    return Structure(kind=f"{len(rows)}x{len(rows[0])}", items=tuple(cell for row in rows for cell in row), text=text)


def _bracketed(text: str) -> Structure | None:
    opening = re.match(r"\\\{|\\langle|[(\[]", text)
    closing = re.search(r"(?:\\\}|\\rangle|[)\]])$", text)
    if not opening or not closing or opening.end() > closing.start():
        return None
    inner = text[opening.end() : closing.start()]
    if any(depth < 0 for _, depth in _depths(inner)):  # `(1, 2) + (3, 4)`: they do not belong together
        return None
    items = [item.strip() for item in _split(inner, ",;")]
    kind = {r"\{": "{", r"\langle": "("}.get(opening[0], opening[0]) + {r"\}": "}", r"\rangle": ")"}.get(
        closing[0], closing[0]
    )
    if not all(items) or (len(items) < 2 and kind != "{}") or (("{" in kind or "}" in kind) and kind != "{}"):
        return None
    return Structure(kind=kind, items=tuple(items), text=text)


def _depths(text: str) -> Iterator[tuple[re.Match[str], int]]:
    depth = 0
    for match in re.finditer(_BRACKET, text):
        depth += 1 if match[0][-1] in "({[" or match[0] in (r"\{", r"\langle") else -1
        yield match, depth


def _pieces(text: str, separator: re.Pattern[str]) -> Iterator[tuple[str, str]]:
    """(text, separator after it), split only where no bracket is open."""
    start = depth = 0
    for match in re.finditer(rf"{_BRACKET}|{separator.pattern}", text):
        if re.fullmatch(_BRACKET, match[0]):
            depth += 1 if match[0][-1] in "({[" or match[0] == r"\langle" else -1
        elif depth == 0:
            yield text[start : match.start()], match[0]
            start = match.end()
    yield text[start:], ""


_SEPARATORS = {
    ",;": re.compile("[,;]"),
    ",": re.compile(","),
    ";": re.compile(";"),
    r"\cup": re.compile(r"\\cup(?![A-Za-z])"),
}


def _split(text: str, separators: str) -> Iterator[str]:
    return (piece for piece, _ in _pieces(text, _SEPARATORS[separators]))

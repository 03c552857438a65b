r"""Sets of real numbers in three notations: intervals, inequalities of one variable, set-builder. All become intervals.

    x \ge 2    [2, \infty)          |x| < 1    (-1, 1)          x < 0 or x > 1    (-\infty, 0) \cup (1, \infty)
    \{x \mid x < 2\}    (-\infty, 2)            x \ne 3    (-\infty, 3) \cup (3, \infty)

Only the notation changes. An inequality that has to be solved first (`2x < 6`) is none of these.
"""

import math
import re
from fractions import Fraction
from itertools import pairwise

from r1ray.reward.math.number import number
from r1ray.reward.math.structure import Structure, chain, is_relation, structure

VARIABLE = re.compile(r"\\?[A-Za-z]+(?:_(?:\{[^{}]*\}|[A-Za-z0-9]))?(?:\([a-z]\))?")
ABSOLUTE = re.compile(rf"\|\s*({VARIABLE.pattern})\s*\|")
BUILDER = re.compile(
    rf"\\\{{\s*({VARIABLE.pattern})\s*(?:\\in\s*(?:\\mathbb\{{R\}}|\\Re)\s*)?(?:\\mid(?![A-Za-z])|\||:)\s*(.*)\\\}}",
    re.DOTALL,
)
REALS_MEMBER = re.compile(r",?\s*[A-Za-z]\s*\\in\s*\\mathbb\{R\}\s*,?")
MEMBER = re.compile(rf"({VARIABLE.pattern})\s*\\in(?![A-Za-z])\s*")
REALS = frozenset(
    (r"\mathbb{R}", r"(-\infty, \infty)", r"(-\infty,\infty)", "all real numbers", "all reals", "real numbers")
)
ALL = r"(-\infty, \infty)"
OR = re.compile(
    r",?\s*(?:\\text\s*\{\s*(?:or|或|或者)\s*\}|(?<![\\A-Za-z])or(?![A-Za-z])|或|\\(?:lor|vee|cup)(?![A-Za-z]))\s*|\s*,\s*"
)
AND = re.compile(
    r",?\s*(?:\\text\s*\{\s*(?:and|且)\s*\}|(?<![\\A-Za-z])and(?![A-Za-z])|且|\\(?:land|wedge)(?![A-Za-z]))\s*"
)


def intervals(text: str) -> tuple[str, str] | None:
    """(variable, the same set as intervals) of an inequality or a set-builder; "" where the variable is bound. None for others."""
    if match := BUILDER.fullmatch(text):
        inside = intervals(REALS_MEMBER.sub("", match[2]).strip())
        return ("", inside[1]) if inside and inside[0] in ("", match[1]) else None
    plain = re.sub(r"\\text\s*\{([^{}]*)\}", r"\1", text).strip().lower()
    if text in REALS or plain in REALS:
        return "", ALL
    if r"\setminus" in text or "\\backslash" in text:
        return _without_points(text)
    if match := MEMBER.match(text):
        rest = text[match.end() :]
        return (match[1], rest) if not is_relation(rest) and (rest[:1] in "([" or r"\cup" in rest) else None
    if not is_relation(text):
        return None
    return _alternatives(text)


def _alternatives(text: str) -> tuple[str, str] | None:
    """Inequalities joined by `or` are a union, two joined by `and` an intersection."""
    both = AND.split(text)
    if len(both) == 2:
        return _intersection(both[0], both[1])
    pieces = [piece for piece in OR.split(text) if piece]
    found = [_single(piece.strip()) for piece in pieces]
    names = {one[0] for one in found if one}
    if not found or None in found or len(names) != 1:
        return None
    return names.pop(), r" \cup ".join(one[1] for one in found if one)


def _intersection(a: str, b: str) -> tuple[str, str] | None:
    first, second = chain(a.strip()), chain(b.strip())
    if not first or not second or len(first[0]) != 2 or len(second[0]) != 2:
        return None
    for (low, low_sign), (high, high_sign) in (
        ((first[0], first[1]), (second[0], second[1])),
        ((second[0], second[1]), (first[0], first[1])),
    ):
        if low[1] == high[0] and VARIABLE.fullmatch(low[1]):
            return _single(f"{low[0]} {low_sign[0]} {low[1]} {high_sign[0]} {high[1]}")
    return None


def _single(text: str) -> tuple[str, str] | None:
    if r"\ne" in text:
        sides = re.split(r"\\ne(?![A-Za-z])", text)
        if len(sides) != 2 or not VARIABLE.fullmatch(sides[0].strip()) or is_relation(sides[1]):
            return None
        point = sides[1].strip()
        return sides[0].strip(), rf"(-\infty, {point}) \cup ({point}, \infty)"
    found = chain(text)
    if not found:
        return None
    parts, signs = found
    if len(parts) == 3:
        if not VARIABLE.fullmatch(parts[1]) or not set(signs) <= {"<", r"\le"}:
            return None
        return parts[1], f"{_left(signs[0])}{parts[0]}, {parts[2]}{_right(signs[1])}"
    if len(parts) != 2:
        return None
    left, right = parts
    if signs[0] not in ("<", r"\le"):
        return None
    if match := ABSOLUTE.fullmatch(left):
        return match[1], f"{_left(signs[0])}-({right}), {right}{_right(signs[0])}" if not number(right) else _around(
            right, signs[0]
        )
    if match := ABSOLUTE.fullmatch(right):
        return match[1], rf"(-\infty, -({left}){_right(signs[0])} \cup {_left(signs[0])}{left}, \infty)"
    if VARIABLE.fullmatch(left) and not _is_bound(left):
        return left, rf"(-\infty, {right}{_right(signs[0])}"
    if VARIABLE.fullmatch(right) and not _is_bound(right):
        return right, rf"{_left(signs[0])}{left}, \infty)"
    return None


def _around(bound: str, sign: str) -> str:
    return f"{_left(sign)}-{bound}, {bound}{_right(sign)}"


def _is_bound(text: str) -> bool:
    return text in (r"\pi", r"\infty", "e")


def _left(sign: str) -> str:
    return "[" if sign == r"\le" else "("


def _right(sign: str) -> str:
    return "]" if sign == r"\le" else ")"


def _without_points(text: str) -> tuple[str, str] | None:
    r"""`\mathbb{R} \setminus \{1, 2\}`, with plain numbers."""
    pieces = re.split(r"\\(?:setminus|backslash)(?![A-Za-z])", text)
    found = structure(pieces[1].strip()) if len(pieces) == 2 else None
    if not found or found.kind != "{}" or pieces[0].strip() not in REALS:
        return None
    values = [(number(item), item) for item in found.items]
    if not all(value for value, _ in values):
        return None
    ends = [
        r"-\infty",
        *(item for _, item in sorted(values, key=lambda pair: pair[0].value if pair[0] else 0)),
        r"\infty",
    ]
    return "", r" \cup ".join(f"({low}, {high})" for low, high in pairwise(ends))


Span = tuple[Fraction | float, bool, Fraction | float, bool]
"""(low, whether it is excluded, high, whether it is included); infinity is a float."""


def spans(parts: Structure) -> list[Span] | None:
    """An interval or a union of them as disjoint spans in order; None where an end is no plain number."""
    found: list[Span] = []
    for part in [structure(item) for item in parts.items] if parts.kind == "union" else [parts]:
        if (
            part is None
            or len(part.items) != 2
            or part.kind[0] not in "(["
            or part.kind[-1] not in ")]"
            or len(part.kind) != 2
        ):
            return None
        low, high = (_end(item) for item in part.items)
        if low is None or high is None or low >= high:
            return None
        found.append((low, part.kind[0] == "(", high, part.kind[1] == "]"))
    merged: list[Span] = []
    for span in sorted(found):
        if merged and (span[0] < merged[-1][2] or (span[0] == merged[-1][2] and (merged[-1][3] or not span[1]))):
            low, excluded, high, included = merged.pop()
            high, included = max((high, included), (span[2], span[3]))
            span = (low, excluded, high, included)
        merged.append(span)
    return merged


def _end(text: str) -> Fraction | float | None:
    if text.replace(" ", "") in (r"\infty", r"-\infty"):
        return math.inf if text[0] == "\\" else -math.inf
    found = number(text)
    return found.value if found and not found.percent and found.decimals in (None, 1, 2, 3, 4, 5) else None

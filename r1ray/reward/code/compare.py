"""Does the output of a program or the result of a function equal the expected one? Runs on the trusted side, on plain data.

Output is untrusted bytes: they are split into lines and compared as text, or read as JSON, within caps. No object of the program
exists here that could decide how it is compared.
"""

import json
import math
import re
from collections.abc import Sequence
from decimal import Decimal
from typing import Any, Literal, cast

Floats = Literal["usual", "exact", "close"]
"""How floats are compared; a whole number is always exact, so that a close number is never another whole number.

usual    in output as decimals, 0.10 for 0.1; values to nine digits
exact    LiveCodeBench's rule: in output as decimals, values as Python compares them
close    the rule of APPS, TACO and CodeContests: to five digits; in output also next to words in the line
"""
RELATIVE, ABSOLUTE = 1e-5, 1e-8
"""Of `close`, as in numpy.allclose; where one of the two is whole, RELATIVE is absolute."""
MAX_DIGITS = 300
DECIMAL = re.compile(
    rf"[+-]?(?:[0-9]{{1,{MAX_DIGITS}}}(?:\.[0-9]{{0,{MAX_DIGITS}}})?|\.[0-9]{{1,{MAX_DIGITS}}})(?:[eE][+-]?[0-9]{{1,3}})?"
)
WHOLE = re.compile(r"[+-]?[0-9]+")
PADDED = re.compile(r"(?:\S* )?[+-]?0[0-9]")


def same_output(written: bytes, expected: str, *, floats: Floats = "usual") -> bool:
    """Line by line, without white space around the text and at the ends of lines; the number of lines must agree (LiveCodeBench's
    rule).

    A line of numbers may have other spacing and other notations: `3.0` for `3`, but not `0011` for `11`, which may be no number.
    Only ASCII digits are digits.

    Example: `same_output(b"1 2 \\n3.0\\n\\n", "1 2\\n3")` is True.
    """
    try:
        text = written.decode()
    except UnicodeDecodeError:
        return False
    ours, theirs = _lines(text), _lines(expected)
    same = _close_line if floats == "close" else _same_line
    return len(ours) == len(theirs) and all(map(same, ours, theirs))


def same_results(
    written: bytes, expected: Sequence[Any], *, wrapped: bool = False, floats: Floats = "usual"
) -> list[bool]:
    """For every call, whether its JSON line is the expected value; a call without a line is incorrect.

    With `wrapped` an expected list of one value may also be the value itself.
    """
    lines = written.split(b"\n")
    if lines.pop() or len(lines) > len(expected):  # cut off in the middle, or more lines than calls
        return [False] * len(expected)
    same = [_same_json(line, _accepted(value, wrapped), floats) for line, value in zip(lines, expected, strict=False)]
    return same + [False] * (len(expected) - len(same))


def same_value(got: Any, expected: Any, *, floats: Floats = "usual") -> bool:
    """Equal JSON values: lists and objects are compared recursively, and `true` is no number.

    Example: `same_value([1, {"a": 0.30000000000000004}], [1.0, {"a": 0.3}])` is True, `same_value(True, 1)` is False.
    """
    pairs: list[tuple[Any, Any]] = [(got, expected)]
    while pairs:
        ours, theirs = pairs.pop()
        if type(ours) is not type(theirs) or type(theirs) not in (list, dict):
            if not _same_scalar(ours, theirs, floats):
                return False
        elif type(theirs) is list:
            items = cast(list[Any], ours), cast(list[Any], theirs)
            if len(items[0]) != len(items[1]):
                return False
            pairs += zip(*items, strict=True)
        else:
            fields = cast(dict[str, Any], ours), cast(dict[str, Any], theirs)
            if fields[0].keys() != fields[1].keys():
                return False
            pairs += [(value, fields[1][key]) for key, value in fields[0].items()]
    return True


def _same_scalar(ours: Any, theirs: Any, floats: Floats) -> bool:
    number = type(ours) in (int, float) and type(theirs) in (int, float)
    if not number:
        return type(ours) is type(theirs) and ours == theirs
    if ours == theirs or floats == "exact" or type(ours) is type(theirs) is int:
        return ours == theirs  # Python compares whole numbers and floats exactly
    try:
        if floats == "close":
            return abs(ours - theirs) <= _tolerance(float(theirs), type(theirs) is int)
        return type(theirs) is float and math.isclose(ours, theirs, rel_tol=1e-9, abs_tol=1e-12)
    except OverflowError:  # an integer too large for a float
        return False


def _accepted(value: Any, wrapped: bool) -> list[Any]:
    inside = cast("list[Any]", value) if wrapped and isinstance(value, list) else []
    return [value, *inside] if len(inside) == 1 else [value]


def _same_json(line: bytes, accepted: Sequence[Any], floats: Floats) -> bool:
    def no_number(word: str) -> None:
        raise ValueError(f"{word} is not JSON")

    try:
        got = json.loads(line, parse_constant=no_number)
        return any(same_value(got, expected, floats=floats) for expected in accepted)
    except (ValueError, RecursionError):
        return False


def _lines(text: str) -> list[str]:
    return [line.rstrip() for line in text.strip().split("\n")]


def _same_line(ours: str, theirs: str) -> bool:
    if ours == theirs:
        return True
    our_words, their_words = ours.split(), theirs.split()
    return len(our_words) == len(their_words) and all(map(_same_number, our_words, their_words))


def _same_number(ours: str, theirs: str) -> bool:
    if not DECIMAL.fullmatch(ours) or not DECIMAL.fullmatch(theirs):
        return False
    return ours == theirs or (not PADDED.match(ours + " " + theirs) and Decimal(ours) == Decimal(theirs))


def _close_line(ours: str, theirs: str) -> bool:
    """The words agree, and one of them is a number: without any, spaces may be all that a line consists of."""
    if ours == theirs:
        return True
    our_words, their_words = ours.split(), theirs.split()
    return (
        len(our_words) == len(their_words)
        and any(map(DECIMAL.fullmatch, their_words))
        and all(map(_close_word, our_words, their_words))
    )


def _close_word(ours: str, theirs: str) -> bool:
    if ours == theirs or _same_number(ours, theirs):
        return True
    if PADDED.match(ours + " " + theirs) or not DECIMAL.fullmatch(ours) or not DECIMAL.fullmatch(theirs):
        return False
    whole = [WHOLE.fullmatch(word) is not None for word in (ours, theirs)]
    return not all(whole) and abs(Decimal(ours) - Decimal(theirs)) <= _tolerance(Decimal(theirs), whole[1])


def _tolerance(expected: Any, whole: bool) -> Any:
    of = cast(Any, type(expected))  # float or Decimal
    return of(RELATIVE) if whole else of(ABSOLUTE) + of(RELATIVE) * abs(expected)

"""Does the output of a program or the result of a function equal the expected one? Runs on the trusted side, on plain data.

Output is untrusted bytes: they are split into lines and compared as text, or read as JSON, within caps. No object of the program
exists here that could decide how it is compared.
"""

import json
import math
import re
from collections.abc import Sequence
from decimal import Decimal
from typing import Any, cast

MAX_DIGITS = 300
DECIMAL = re.compile(
    rf"[+-]?(?:[0-9]{{1,{MAX_DIGITS}}}(?:\.[0-9]{{0,{MAX_DIGITS}}})?|\.[0-9]{{1,{MAX_DIGITS}}})(?:[eE][+-]?[0-9]{{1,3}})?"
)

PADDED = re.compile(r"(?:\S* )?[+-]?0[0-9]")


def same_output(written: bytes, expected: str) -> bool:
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
    return len(ours) == len(theirs) and all(map(_same_line, ours, theirs))


def same_results(written: bytes, expected: Sequence[Any], *, wrapped: bool = False) -> list[bool]:
    """For every call, whether its JSON line is the expected value; a call without a line is incorrect.

    With `wrapped` an expected list of one value may also be the value itself.
    """
    lines = written.split(b"\n")
    if lines.pop() or len(lines) > len(expected):  # cut off in the middle, or more lines than calls
        return [False] * len(expected)
    same = [_same_json(line, _accepted(value, wrapped)) for line, value in zip(lines, expected, strict=False)]
    return same + [False] * (len(expected) - len(same))


def same_value(got: Any, expected: Any) -> bool:
    """Equal JSON values: lists and objects are compared recursively, `true` is no number, floats agree to nine digits.

    Example: `same_value([1, {"a": 0.30000000000000004}], [1.0, {"a": 0.3}])` is True, `same_value(True, 1)` is False.
    """
    pairs: list[tuple[Any, Any]] = [(got, expected)]
    while pairs:
        ours, theirs = pairs.pop()
        if type(ours) is not type(theirs) or type(theirs) not in (list, dict):
            if not _same_scalar(ours, theirs):
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


def _same_scalar(ours: Any, theirs: Any) -> bool:
    number = type(ours) in (int, float) and type(theirs) in (int, float)
    if not number:
        return type(ours) is type(theirs) and ours == theirs
    if type(theirs) is int:
        return ours == theirs  # Python compares whole numbers and floats exactly
    try:
        return math.isclose(ours, theirs, rel_tol=1e-9, abs_tol=1e-12)
    except OverflowError:  # an integer too large for a float
        return False


def _accepted(value: Any, wrapped: bool) -> list[Any]:
    inside = cast("list[Any]", value) if wrapped and isinstance(value, list) else []
    return [value, *inside] if len(inside) == 1 else [value]


def _same_json(line: bytes, accepted: Sequence[Any]) -> bool:
    def no_number(word: str) -> None:
        raise ValueError(f"{word} is not JSON")

    try:
        got = json.loads(line, parse_constant=no_number)
        return any(same_value(got, expected) for expected in accepted)
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

"""Plain numbers in an answer, as exact fractions: integers, decimals, fractions, mixed numbers, powers of ten, percentages.

Only ASCII digits are digits, and the number of them is capped. No parser, no floating point.
"""

import re
from dataclasses import dataclass
from fractions import Fraction

MAX_DIGITS = 300

_SIGN = r"[+-]?\s*"
_UNSIGNED = r"[0-9]+(?:\.[0-9]*)?|\.[0-9]+"
"""Without separators of thousands: `typography` removes them."""
_TIMES = r"\s*(?:\\times|\\cdot|\*)\s*"
_POWER = r"10\s*\^\s*(?:\{\s*([+-]?[0-9]{1,3})\s*\}|([0-9]))"
DECIMAL = re.compile(rf"({_SIGN})({_UNSIGNED})")
SCIENTIFIC = re.compile(rf"({_SIGN})(?:({_UNSIGNED}){_TIMES})?{_POWER}")
COMPUTER = re.compile(rf"({_SIGN})({_UNSIGNED})[eE]([+-]?[0-9]{{1,3}})(?![0-9A-Za-z.^])")
RECURRING = re.compile(
    rf"({_SIGN})([0-9]+)\.([0-9]*)(?:\\(?:overline|bar)\s*\{{([0-9]+)\}}|\\dot\s*\{{?([0-9])\}}?(?:([0-9]*)\\dot\s*\{{?([0-9])\}}?)?)"
)
FRACTION = re.compile(rf"({_SIGN})\\frac\s*\{{\s*({_SIGN})({_UNSIGNED})\s*\}}\s*\{{\s*({_SIGN})({_UNSIGNED})\s*\}}")
RATIO = re.compile(rf"({_SIGN})({_UNSIGNED})\s*(?:/|\\div)\s*({_UNSIGNED})")
MIXED = re.compile(
    rf"({_SIGN})([0-9]+)\s*(?:\\frac\s*\{{\s*([0-9]+)\s*\}}\s*\{{\s*([0-9]+)\s*\}}|(?<=\s)([0-9]+)/([0-9]+))"
)
FORMS = (MIXED, FRACTION, RATIO, COMPUTER, SCIENTIFIC, RECURRING, DECIMAL)
"""The longer forms first: a form that matches the start of a text may be followed by a unit."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Number:
    """`50\\%` is Number(value=50, percent=True, decimals=None); `0.50` has 2 decimals: it may be a rounded number."""

    value: Fraction
    percent: bool
    decimals: int | None


def number(text: str, *, scale: int = 1) -> Number | None:
    """Read a normalised text that is a plain number, times `scale`; None for any other text."""
    body = text.removesuffix("%").rstrip()
    percent = body != text
    if len(body) > MAX_DIGITS:
        return None
    if body.startswith("(") and body.endswith(")"):
        body = body[1:-1].strip()
    for form, read in _READERS.items():
        if match := form.fullmatch(body):
            found = read(match)
            if found is None:
                return None
            value, decimals = found
            return Number(
                value=-scale * value if _negative(match[1]) else scale * value, percent=percent, decimals=decimals
            )
    return None


def same_number(answer: Number, gold: Number, *, part: bool = False) -> bool:
    """Whether two numbers are equal, or one is the other rounded to six decimals or more. The gold sets the rules for percentages.

    A percentage p % equals p / 100. It also equals p where the answer omits the percent sign or the gold cannot be a proportion:
    "what percentage" is answered in both ways. The latter holds for whole answers, not for a part of one, and for no fraction.
    """
    if answer.percent == gold.percent:
        return _close(answer, gold)
    if gold.percent:
        return _close(answer, gold) or _close(answer, _hundredth(gold))
    lenient = not part and gold.value > 1 and (gold.value.denominator == 1 or gold.decimals is not None)
    return _close(_hundredth(answer), gold) or (lenient and _close(answer, gold))


def latex(exact: Number | None) -> str | None:
    """As plain LaTeX, for a parser that reads no percentages and no `2 1/3`; None for a decimal, which may be rounded."""
    if exact is None or exact.decimals is not None:
        return None
    value = exact.value / 100 if exact.percent else exact.value
    sign, over, under = "-" if value < 0 else "", abs(value.numerator), value.denominator
    return f"{sign}{over}" if under == 1 else rf"{sign}\frac{{{over}}}{{{under}}}"


def _close(answer: Number, gold: Number) -> bool:
    """Whether they are equal, or one may be the other rounded to n decimals, where n is at least six.

    Then they differ by at most half a unit of decimal n, and by at most 1e-4 of the gold. n is the number of decimals of the
    side with fewer; a side without decimals (an integer, a fraction) is exact.
    """
    if answer.value == gold.value:
        return True
    written = [side.decimals for side in (answer, gold) if side.decimals is not None]
    if not written or min(written) < 6:
        return False
    return abs(answer.value - gold.value) <= min(Fraction(1, 2 * 10 ** min(written)), abs(gold.value) / 10**4)


def _hundredth(percentage: Number) -> Number:
    decimals = None if percentage.decimals is None else percentage.decimals + 2
    return Number(value=percentage.value / 100, percent=False, decimals=decimals)


def _decimal(match: re.Match[str]) -> tuple[Fraction, int | None]:
    return _unsigned(match[2]), _decimals(match[2])


def _scientific(match: re.Match[str]) -> tuple[Fraction, int | None] | None:
    return _times_power(match[2] or "1", int(match[3] or match[4]))


def _computer(match: re.Match[str]) -> tuple[Fraction, int | None] | None:
    """`1.5e-3`, as programs print it."""
    return _times_power(match[2], int(match[3]))


def _times_power(digits: str, power: int) -> tuple[Fraction, int | None] | None:
    if abs(power) > MAX_DIGITS:
        return None
    decimals = _decimals(digits)
    return _unsigned(digits) * Fraction(10) ** power, None if decimals is None else max(0, decimals - power)


def _recurring(match: re.Match[str]) -> tuple[Fraction, None]:
    r"""`0.1\overline{23}`; dots are over the first and the last digit that recur."""
    fixed, period = match[3], match[4] or match[5] + (match[6] or "") + (match[7] or "")
    scale = 10 ** len(fixed)
    return Fraction(int(match[2] + fixed), scale) + Fraction(int(period), scale * (10 ** len(period) - 1)), None


def _fraction(match: re.Match[str]) -> tuple[Fraction, None] | None:
    under = _unsigned(match[5])
    if not under:
        return None
    sign = -1 if _negative(match[2]) != _negative(match[4]) else 1
    return sign * _unsigned(match[3]) / under, None


def _ratio(match: re.Match[str]) -> tuple[Fraction, None] | None:
    under = _unsigned(match[3])
    return (_unsigned(match[2]) / under, None) if under else None


def _mixed(match: re.Match[str]) -> tuple[Fraction, None] | None:
    over, under = int(match[3] or match[5]), int(match[4] or match[6])
    if not over < under:  # 3 7/2 may be a product
        return None
    return int(match[2]) + Fraction(over, under), None


_READERS = {
    **{MIXED: _mixed, FRACTION: _fraction, RATIO: _ratio, COMPUTER: _computer},
    **{SCIENTIFIC: _scientific, RECURRING: _recurring, DECIMAL: _decimal},
}


def _unsigned(text: str) -> Fraction:
    return Fraction(text.rstrip("."))


def _decimals(text: str) -> int | None:
    places = len(text.partition(".")[2])
    return places or None


def _negative(sign: str) -> bool:
    return sign.startswith("-")

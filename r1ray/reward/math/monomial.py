r"""Answers that are a rational number times square roots and powers of pi: `\frac{3\sqrt{2}}{2}`, `12\pi`. Compared exactly.

The sign, c^2 * r and k identify c * sqrt(r) * pi^k with rational c and r in any notation, and numbers that differ in one of these
differ, because pi is transcendental. Reads products and fractions of such numbers, no sums.
"""

import re
from dataclasses import dataclass
from fractions import Fraction

from r1ray.reward.math.number import MAX_DIGITS

TOKEN = re.compile(r"([0-9]+)|\\(?:sqrt|frac|pi|cdot|times)(?![A-Za-z])|[*/{}+-]")
OPERATORS = (r"\cdot", r"\times", "*")


@dataclass(frozen=True, slots=True, kw_only=True)
class Monomial:
    """`-3\\sqrt{2}` is Monomial(negative=True, square=18, pi=0)."""

    negative: bool
    square: Fraction
    pi: int


class _NoMonomial(Exception):
    """The text is no such number."""


def monomial(text: str) -> Monomial | None:
    """Read a normalised text; None when it is no such product, for instance a mixed number with a factor (`2\\frac{1}{2}\\pi`)."""
    if len(text) > MAX_DIGITS:
        return None
    tokens = [match[0] for match in TOKEN.finditer(text)]
    if sum(map(len, tokens)) != len(text) - text.count(" "):
        return None
    reader = _Reader(tokens)
    try:
        negative = reader.sign()
        found = reader.product()
        if reader.took("/"):
            found = _over(found, reader.product(fractions=False))
        return (
            Monomial(negative=negative != found.negative, square=found.square, pi=found.pi) if reader.done() else None
        )
    except _NoMonomial:
        return None


def same_monomial(answer: Monomial, gold: Monomial) -> bool:
    if not gold.square:
        return not answer.square
    return answer == gold


class _Reader:
    """The tokens and how many of them are read. Only fractions and roots nest."""

    def __init__(self, tokens: list[str]) -> None:
        self._tokens, self._position = [*tokens, ""], 0

    def sign(self) -> bool:
        return self.took("-") or (self.took("+") and False)

    def took(self, token: str) -> bool:
        found = self._tokens[self._position] == token
        self._position += found
        return found

    def done(self) -> bool:
        return self._position == len(self._tokens) - 1

    def product(self, *, fractions: bool = True) -> Monomial:
        """Factors with or without an operator between them. A number must be first or after an operator: `2 3` is no product."""
        found, joined, after_number = Monomial(negative=False, square=Fraction(1), pi=0), True, False
        while True:
            token = self._tokens[self._position]
            if token.isdigit() and joined:
                factor, after_number = Monomial(negative=False, square=Fraction(self._whole()) ** 2, pi=0), True
            elif self.took(r"\pi"):
                factor, after_number = Monomial(negative=False, square=Fraction(1), pi=1), False
            elif self.took(r"\sqrt"):
                factor, after_number = self._root(), False
            elif fractions and token == r"\frac" and (joined or not after_number):
                factor, after_number = self._fraction(), True
            else:
                break
            found = _times(found, factor)
            joined = any(self.took(operator) for operator in OPERATORS)
        if joined:  # no factor, or none after the last operator
            raise _NoMonomial
        return found

    def _fraction(self) -> Monomial:
        self._expect(r"\frac")
        over = self._group()
        return _over(over, self._group())

    def _group(self) -> Monomial:
        self._expect("{")
        negative = self.sign()
        found = self.product(fractions=False)
        self._expect("}")
        return Monomial(negative=negative, square=found.square, pi=found.pi)

    def _root(self) -> Monomial:
        """Of a whole number or a fraction of two whole numbers."""
        self._expect("{")
        if self.took(r"\frac"):
            over, under = self._whole_group(), self._whole_group()
            if not under:
                raise _NoMonomial
            square = Fraction(over, under)
        else:
            square = Fraction(self._whole())
        self._expect("}")
        return Monomial(negative=False, square=square, pi=0)

    def _whole_group(self) -> int:
        self._expect("{")
        value = self._whole()
        self._expect("}")
        return value

    def _whole(self) -> int:
        token = self._tokens[self._position]
        if not token.isdigit():
            raise _NoMonomial
        self._position += 1
        return int(token)

    def _expect(self, token: str) -> None:
        if not self.took(token):
            raise _NoMonomial


def _times(a: Monomial, b: Monomial) -> Monomial:
    return Monomial(negative=a.negative != b.negative, square=a.square * b.square, pi=a.pi + b.pi)


def _over(a: Monomial, b: Monomial) -> Monomial:
    if not b.square:
        raise _NoMonomial
    return Monomial(negative=a.negative != b.negative, square=a.square / b.square, pi=a.pi - b.pi)

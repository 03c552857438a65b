"""Countdown: does an arithmetic expression use exactly the given numbers, and does it equal the target?

The completion is untrusted: it is split into ASCII tokens and computed in exact fractions with two stacks. Python evaluates none of
it, no function recurses, and the sizes of text and numbers are capped.
"""

import re
from collections.abc import Sequence
from fractions import Fraction

from r1ray.reward.base import ComponentScore, correct_or_incorrect
from r1ray.types import Problem

MAX_LENGTH = 200
MAX_DIGITS = 12

TOKEN = re.compile(r"\s*([0-9]+|[-+*/()])")
PRECEDENCE = {"+": 1, "-": 1, "*": 2, "/": 2}


class BadExpression(ValueError):
    """The text is not an expression of numbers, + - * / and parentheses."""


def verify(problem: Problem, answer: str) -> ComponentScore:
    """1 for a correct expression, else 0. `payload` is {"numbers": [...], "target": n}.

    `= target` may follow the expression; any other text after it makes the answer incorrect.
    """
    numbers: Sequence[int] = problem.payload["numbers"]
    target: int = problem.payload["target"]
    expression, equals, stated = answer.partition("=")
    try:
        value, used = evaluate(expression)
    except BadExpression:
        return correct_or_incorrect(False)
    correct = value == target and sorted(used) == sorted(numbers) and (not equals or stated.strip() == str(target))
    return correct_or_incorrect(correct)


def evaluate(expression: str) -> tuple[Fraction, list[int]]:
    """(value, numbers used in order of appearance). Binary + - * / and parentheses only: no sign, power or implied product.

    Example: `evaluate("(2 + 3) * 4 / 8")` is `(Fraction(5, 2), [2, 3, 4, 8])`.

    Raises:
        BadExpression: for any other text, a division by zero, and a text or a number that is too long.
    """
    used: list[int] = []
    values: list[Fraction] = []
    pending: list[str] = []  # operators and open parentheses, the innermost last
    operand_next = True
    for token in tokens(expression):
        if operand_next != (token == "(" or token.isdigit()):
            raise BadExpression(f"{token!r} is out of place")
        if token == "(":
            pending.append(token)
        elif token.isdigit():
            used.append(int(token))
            values.append(Fraction(int(token)))
            operand_next = False
        else:
            _reduce(values, pending, above=PRECEDENCE.get(token, 0))
            if token != ")":
                pending.append(token)
                operand_next = True
            elif not pending:
                raise BadExpression("a parenthesis is closed but was not opened")
            else:
                pending.pop()
    if operand_next:
        raise BadExpression("the expression ends too early")
    _reduce(values, pending, above=0)
    if pending:
        raise BadExpression("a parenthesis is not closed")
    return values[0], used


def tokens(expression: str) -> list[str]:
    expression = expression.strip()
    if len(expression) > MAX_LENGTH:
        raise BadExpression("too long")
    found: list[str] = []
    position = 0
    while position < len(expression):
        match = TOKEN.match(expression, position)
        if match is None or len(match[1]) > MAX_DIGITS:
            raise BadExpression(f"unexpected {expression[position]!r} or a number of more than {MAX_DIGITS} digits")
        found.append(match[1])
        position = match.end()
    return found


def _reduce(values: list[Fraction], pending: list[str], *, above: int) -> None:
    """Apply the pending operators of at least the precedence `above`, back to the last open parenthesis."""
    while pending and pending[-1] != "(" and PRECEDENCE[pending[-1]] >= above:
        sign, right, left = pending.pop(), values.pop(), values.pop()
        values.append(_apply(sign, left, right))


def _apply(sign: str, left: Fraction, right: Fraction) -> Fraction:
    match sign:
        case "+":
            return left + right
        case "-":
            return left - right
        case "*":
            return left * right
        case _:
            if right == 0:
                raise BadExpression("division by zero")
            return left / right

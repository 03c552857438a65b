r"""Compare two maths answers without a parser or computer algebra: decides most pairs, in the trusted process, in microseconds.

Numbers (with units), words, lists, sets, tuples, intervals, unions, matrices and inequalities of such are decided here; all else
needs algebra, in math-verify's child process. Everything except a sort is linear in the length of the texts.
"""

import re
from dataclasses import dataclass, replace

from r1ray.reward.math.monomial import monomial, same_monomial
from r1ray.reward.math.number import MAX_DIGITS, Number, latex, number, same_number
from r1ray.reward.math.structure import ELLIPSIS, PLUS_MINUS, Structure, chain, is_relation, split_name, structure
from r1ray.reward.math.typography import WRAPPER, balanced, normalise, unwrapped
from r1ray.reward.math.units import Quantity, quantity, same_unit

MAX_LENGTH = 2000
MAX_MATCHED = 8
"""Maximum number of non-numeric elements that are matched in any order."""

HOSTILE = re.compile(
    rf"[0-9]{{{MAX_DIGITS + 1},}}"  # a number too long to convert
    r"|\^\s*\{?\s*[0-9]{5,}"  # an exponent above 9999
    r"|\^\{[^{}a-zA-Z]*[0-9]\s*\^\s*\{?[^{}a-zA-Z]*([0-9]{2}|\^)"  # a tower of numeric powers
    r"|[0-9]{4,}\s*[)}]*\s*!"  # a factorial above 999!
    r"|\^[^!]{0,20}[)}]\s*!"  # a factorial of a power
)


@dataclass(frozen=True, slots=True, kw_only=True)
class NeedsAlgebra:
    """The part of a pair that needs algebra: without names, units and typography."""

    answer: str
    gold: str


def decide(answer: str, gold: str) -> bool | NeedsAlgebra:
    """Whether two normalised answers are equal, or NeedsAlgebra. Not symmetric: the gold sets the rules.

    Example: `decide("x = 6", "6")` is True, `decide("(x+1)^2", "x^2+2x+1")` a NeedsAlgebra.
    """
    if answer == gold:
        return bool(answer)
    answer_number, gold_number = number(answer), number(gold)
    if answer_number and gold_number:
        return same_number(answer_number, gold_number)
    return bool(answer) and balanced(answer) and _equal(answer, gold)


def fast_equal(answer: str, gold: str) -> bool | None:
    """`decide` for callers without algebra: None when it would be needed."""
    decided = decide(answer, gold)
    return None if isinstance(decided, NeedsAlgebra) else decided


def hostile(text: str) -> bool:
    """Whether an answer is unsafe to parse: huge numbers, towers of powers, deep nesting, odd characters.

    Words in `\\text{}` may be in any script; everything else must be ASCII.
    """
    return (
        len(text) > MAX_LENGTH
        or not WRAPPER.sub("", text).isascii()
        or not balanced(text)
        or HOSTILE.search(text) is not None
    )


def readable(gold: str) -> bool:
    """Whether a gold answer of a dataset can be compared with answers. Cheap and safe: it uses no parser."""
    return 0 < len(gold) <= MAX_LENGTH and gold.isprintable() and balanced(gold) and bool(normalise(gold))


def _equal(answer: str, gold: str) -> bool | NeedsAlgebra:
    if answer == gold:
        return True
    (answer_name, answer_value), (gold_name, gold_value) = split_name(answer), split_name(gold)
    if answer_name and gold_name:
        if answer_name == gold_name:
            return _same(answer_value, gold_value)
        other_variable = len(answer_name) == len(gold_name) == 1 and number(answer_value) and number(gold_value)
        return False if other_variable else NeedsAlgebra(answer=answer, gold=gold)
    if is_relation(answer_value) or is_relation(gold_value):  # the name is part of an equation
        return _same(answer, gold)
    return _same(answer_value, gold_value)


def _same(answer: str, gold: str) -> bool | NeedsAlgebra:
    """Compare two texts without the names of their values."""
    if answer == gold:
        return True
    answer_chain, gold_chain = chain(answer), chain(gold)
    if answer_chain and gold_chain:
        return _same_chain(*answer_chain, *gold_chain)
    answer_parts, gold_parts = structure(answer), structure(gold)
    if answer_parts and gold_parts:
        return _same_structure(answer_parts, gold_parts, otherwise=NeedsAlgebra(answer=answer, gold=gold))
    if answer_parts or gold_parts:
        return _one_and_several(answer, answer_parts, gold, gold_parts)
    return _same_value(answer, gold)


def _same_chain(
    answer: list[str], answer_signs: list[str], gold: list[str], gold_signs: list[str]
) -> bool | NeedsAlgebra:
    """Inequalities with equal parts are equal when their signs are; others (2x < 6) need algebra."""
    texts = (" ".join(_alternating(parts, signs)) for parts, signs in ((answer, answer_signs), (gold, gold_signs)))
    question = NeedsAlgebra(answer=next(texts), gold=next(texts))
    if len(answer) != len(gold):
        return question
    equal = [_equal(a, g) for a, g in zip(answer, gold, strict=True)]
    if all(e is True for e in equal):
        return answer_signs == gold_signs
    alike = all(e is True or (number(a) and number(g)) for e, a, g in zip(equal, answer, gold, strict=True))
    return False if alike else question


def _alternating(parts: list[str], signs: list[str]) -> list[str]:
    return [parts[0], *(text for pair in zip(signs, parts[1:], strict=True) for text in pair)]


def _same_structure(answer: Structure, gold: Structure, *, otherwise: NeedsAlgebra) -> bool | NeedsAlgebra:
    kinds = {answer.kind, gold.kind}
    answer_names, gold_names = _names(answer), _names(gold)
    if kinds <= {"list", "{}"} or kinds == {"union"}:
        if not gold_names or answer_names:
            return _in_any_order(answer, gold, otherwise)
        return _in_order(answer, gold, otherwise)
    if len(kinds) == 1 or kinds == {"list", "()"}:
        if answer_names and not gold_names:  # coordinates: x before y
            answer = replace(
                answer, items=tuple(item for _, item in sorted(zip(answer_names, answer.items, strict=True)))
            )
        return _in_order(answer, gold, otherwise)
    brackets_or_shapes = all(len(kind) == 2 for kind in kinds) or all("x" in kind for kind in kinds)
    return False if brackets_or_shapes else otherwise


def _names(parts: Structure) -> list[str]:
    """The names of the items if each item gives a different name a value (`x = 1, y = 2`); else []."""
    names = [split_name(item)[0] for item in parts.items]
    return names if all(names) and len(set(names)) == len(names) else []


def _in_order(answer: Structure, gold: Structure, otherwise: NeedsAlgebra) -> bool | NeedsAlgebra:
    if len(answer.items) != len(gold.items):
        return False if not _open_ended(answer, gold) else otherwise
    equal = [_equal(a, g) for a, g in zip(answer.items, gold.items, strict=True)]
    return otherwise if False not in equal and not all(e is True for e in equal) else False not in equal


def _in_any_order(answer: Structure, gold: Structure, otherwise: NeedsAlgebra) -> bool | NeedsAlgebra:
    answers, golds = answer.items, gold.items
    if "{}" in (answer.kind, gold.kind):
        answers, golds = tuple(dict.fromkeys(answers)), tuple(dict.fromkeys(golds))
    if len(answers) != len(golds):
        return False if not _open_ended(answer, gold) and gold.kind != "union" else otherwise
    answer_numbers, gold_numbers = _sorted_numbers(answers), _sorted_numbers(golds)
    if answer_numbers and gold_numbers:
        return all(same_number(a, g) for a, g in zip(answer_numbers, gold_numbers, strict=True))
    # Sets of sets could be matched in as many ways as there are elements, level by level.
    nested = any(r"\{" in item or r"\cup" in item for item in (*answers, *golds))
    if nested or len(golds) > MAX_MATCHED:
        return sorted(answers) == sorted(golds) or otherwise
    left = list(answers)
    doubtful = False
    for item in golds:
        equal = [_equal(a, item) for a in left]
        if True in equal:
            del left[equal.index(True)]
        elif any(isinstance(e, NeedsAlgebra) for e in equal):
            doubtful = True
        else:
            return False
    return otherwise if doubtful else True


def _sorted_numbers(items: tuple[str, ...]) -> list[Number] | None:
    """None when one is no plain number, or a percentage (which may equal two numbers)."""
    numbers = [found for item in items if (found := number(item)) and not found.percent]
    return sorted(numbers, key=lambda n: n.value) if len(numbers) == len(items) else None


def _open_ended(*sides: Structure) -> bool:
    """Whether an item may mean several values: `1 \\pm x`, `1, 2, \\ldots`."""
    return any(item == ELLIPSIS or PLUS_MINUS.search(item) for side in sides for item in side.items)


def _one_and_several(
    answer: str, answer_parts: Structure | None, gold: str, gold_parts: Structure | None
) -> bool | NeedsAlgebra:
    """A single value and a structure: equal only if the structure is a set of one, or the value means several (`\\pm`)."""
    several, single = (answer_parts, gold) if answer_parts else (gold_parts, answer)
    assert several is not None
    if len(several.items) == 1:
        return _equal(several.items[0], gold) if answer_parts else _equal(answer, several.items[0])
    if PLUS_MINUS.search(single):
        return NeedsAlgebra(answer=answer, gold=gold)
    plain = number(quantity(single).value) is not None or _is_word(single)
    return False if plain else NeedsAlgebra(answer=answer, gold=gold)


def _same_value(answer: str, gold: str) -> bool | NeedsAlgebra:
    """Compare two texts that are neither structures nor relations."""
    answer, gold = unwrapped(answer), unwrapped(gold)
    a, g = _quantities(answer, gold)
    if not same_unit(a.unit, g.unit):
        return False
    answer_number, gold_number = number(a.value, scale=a.scale), number(g.value, scale=g.scale)
    if answer_number and gold_number:
        proportions = answer_number.percent or gold_number.percent
        return not (proportions and (a.unit or g.unit)) and same_number(answer_number, gold_number)
    if a.scale != g.scale:
        return False
    if a.value == g.value:
        return True
    if ELLIPSIS in (a.value, g.value):
        return False
    answer_product, gold_product = monomial(a.value), monomial(g.value)
    if answer_product and gold_product:
        return same_monomial(answer_product, gold_product)
    words = WRAPPER.sub(r"\1", gold)
    if _is_word(words):
        return _as_word(WRAPPER.sub(r"\1", answer)) == _as_word(words)
    return NeedsAlgebra(answer=latex(answer_number) or a.value, gold=latex(gold_number) or g.value)


def _quantities(answer: str, gold: str) -> tuple[Quantity, Quantity]:
    """A letter that could be a variable (`5m`) is a unit only if the other side certainly has one."""
    sides = quantity(answer), quantity(gold)
    shown = any(side.unit and side.certain for side in sides)
    a, g = (
        side if side.certain or shown else Quantity(value=text)
        for side, text in zip(sides, (answer, gold), strict=True)
    )
    return a, g


def _as_word(text: str) -> str:
    return " ".join(text.casefold().strip("() .").split())


def _is_word(text: str) -> bool:
    """Whether a text has no mathematics (Monday, (B), 星期一) and is compared as text. `ab` may be a product."""
    letters = text.strip("() ").replace(" ", "")
    option = len(letters) == 1 and letters.isupper()
    return letters.isalpha() and (option or len(letters) > 2 or not letters.isascii())

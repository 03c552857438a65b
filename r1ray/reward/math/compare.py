r"""Compare two maths answers without a parser or computer algebra: decides most pairs, in the trusted process, in microseconds.

Numbers (with units), words, lists, sets, tuples, intervals, unions, matrices and inequalities of such are decided here; all else
needs algebra, in math-verify's child process. Everything except a sort is linear in the length of the texts.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial

from r1ray.reward.math.clock import clock, is_surely_time, proportions, same_clock
from r1ray.reward.math.monomial import monomial, same_monomial
from r1ray.reward.math.number import MAX_DIGITS, Number, latex, number, same_number
from r1ray.reward.math.region import intervals, spans
from r1ray.reward.math.structure import (
    ELLIPSIS,
    Structure,
    chain,
    equated,
    is_relation,
    split_name,
    structure,
)
from r1ray.reward.math.tokens import same_tokens
from r1ray.reward.math.typography import WRAPPER, balanced, normalise, unwrapped
from r1ray.reward.math.units import Quantity, quantity, same_unit
from r1ray.reward.math.words import same_words

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


Verdict = bool | NeedsAlgebra
Algebra = Callable[[str, str], bool]
"""(answer, gold) -> whether they are equal; both are single values or relations."""


def decide(answer: str, gold: str, algebra: Algebra | None = None) -> Verdict:
    """Whether two normalised answers are equal; NeedsAlgebra where this takes algebra and none is given. Not symmetric: the gold
    sets the rules.

    Example: `decide("x = 6", "6")` is True, `decide("(x+1)^2", "x^2+2x+1")` a NeedsAlgebra.
    """
    if answer == gold:
        return bool(answer)
    answer_number, gold_number = number(answer), number(gold)
    if answer_number and gold_number:
        return same_number(answer_number, gold_number)
    if not answer or not balanced(answer):
        return False
    return _Comparison(algebra).equal(answer, gold)


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
    """Whether answers can be compared with this one of a dataset. Cheap and safe: it uses no parser."""
    spaced = " ".join(gold.split())
    return 0 < len(gold) <= MAX_LENGTH and spaced.isprintable() and balanced(gold) and bool(normalise(spaced))


class _Comparison:
    """The comparison of two texts and of their parts. Without algebra, a part that needs it leaves the whole undecided."""

    def __init__(self, algebra: Algebra | None, *, part: bool = False) -> None:
        self._algebra = algebra
        self._part = part

    def _parts(self) -> "_Comparison":
        """The same, for the parts of an answer."""
        return _Comparison(self._algebra, part=True)

    def ask(self, answer: str, gold: str) -> Verdict:
        if self._algebra is None:
            return NeedsAlgebra(answer=answer, gold=gold)
        return self._algebra(answer, gold)

    def equal(self, answer: str, gold: str) -> Verdict:
        if answer == gold or same_tokens(answer, gold):
            return True
        (answer_name, answer_value), (gold_name, gold_value) = split_name(answer), split_name(gold)
        if answer_name and gold_name:
            if answer_name == gold_name:
                return self._same(answer_value, gold_value)
            if _other_variable(answer_name, gold_name) and number(answer_value) and number(gold_value):
                return False
            if _quantities_named(answer_name, gold_name) and not number(gold_value):
                return self._same(answer_value, gold_value)
            return self.ask(answer, gold)
        if is_relation(answer_value) or is_relation(gold_value):  # the name is part of an equation
            return self._same(answer, gold)
        return self._same(answer_value, gold_value)

    def _same(self, answer: str, gold: str) -> Verdict:
        """Compare two texts without the names of their values."""
        if answer == gold:
            return True
        answer_chain, gold_chain = chain(answer), chain(gold)
        if answer_chain and gold_chain:
            verdict = self._same_chain(*answer_chain, *gold_chain)
            if verdict is True or len(answer_chain[0]) == len(gold_chain[0]):
                return verdict
        if (regions := _regions(answer, gold)) is not None:
            return self._same(*regions) if regions else False
        values = equated(answer)
        if len(values) > 2 and not is_relation(gold):
            equations = [f"{values[0]} = {values[1]}", *values[2:]]
            return self._all([partial(self.equal, value, gold) for value in equations])
        answer_parts, gold_parts = structure(answer), structure(gold)
        if answer_parts and gold_parts:
            return self._same_structure(answer_parts, gold_parts)
        if answer_parts or gold_parts:
            return self._one_and_several(answer, answer_parts, gold, gold_parts)
        return self._same_value(answer, gold)

    def _same_chain(
        self, answer: list[str], answer_signs: list[str], gold: list[str], gold_signs: list[str]
    ) -> Verdict:
        """Inequalities with equal parts are equal when their signs are; others (2x < 6) need algebra."""
        texts = (" ".join(_alternating(parts, signs)) for parts, signs in ((answer, answer_signs), (gold, gold_signs)))
        question = partial(self.ask, *texts)
        if len(answer) != len(gold):
            return question()
        equal = [_Comparison(None, part=True).equal(a, g) for a, g in zip(answer, gold, strict=True)]
        if all(e is True for e in equal):
            return answer_signs == gold_signs
        if len(gold) == 3 and self._algebra and answer_signs == gold_signs:
            return self._all([partial(self._parts().equal, a, g) for a, g in zip(answer, gold, strict=True)])
        alike = all(e is True or (number(a) and number(g)) for e, a, g in zip(equal, answer, gold, strict=True))
        return False if alike else question()

    def _same_structure(self, answer: Structure, gold: Structure) -> Verdict:
        kinds = {answer.kind, gold.kind}
        if "union" in kinds and (sets := [spans(parts) for parts in (answer, gold)]) and None not in sets:
            return sets[0] == sets[1]
        answer_names, gold_names = _names(answer), _names(gold)
        if kinds <= {"list", "{}"} or kinds == {"union"}:
            if not gold_names or answer_names:
                return self._in_any_order(answer, gold)
            return self._in_order(answer, gold)
        if len(kinds) == 1 or kinds == {"list", "()"} or _is_vector(answer, gold):
            if answer_names and not gold_names:  # coordinates: x before y
                answer = replace(
                    answer, items=tuple(item for _, item in sorted(zip(answer_names, answer.items, strict=True)))
                )
            if gold_names and not answer_names:
                gold = replace(gold, items=tuple(item for _, item in sorted(zip(gold_names, gold.items, strict=True))))
            return self._in_order(answer, gold)
        brackets_or_shapes = all(len(kind) == 2 for kind in kinds) or all("x" in kind for kind in kinds)
        return False if brackets_or_shapes else self._whole(answer, gold)

    def _whole(self, answer: Structure, gold: Structure) -> Verdict:
        """Sets of other kinds, which may be equal all the same: `[1,2] \\cup [2,3]` and `[1,3]`."""
        return self.ask(answer.text, gold.text)

    def _in_order(self, answer: Structure, gold: Structure) -> Verdict:
        if len(answer.items) != len(gold.items):
            return False if not _open_ended(answer, gold) else self._whole(answer, gold)
        return self._all([partial(self._parts().equal, a, g) for a, g in zip(answer.items, gold.items, strict=True)])

    def _all(self, questions: list[Callable[[], Verdict]]) -> Verdict:
        """Whether all are true; stops at the first that is not."""
        doubtful: Verdict = True
        for question in questions:
            verdict = question()
            if verdict is False:
                return False
            if verdict is not True:
                doubtful = verdict
        return doubtful

    def _in_any_order(self, answer: Structure, gold: Structure) -> Verdict:
        answers, golds = answer.items, gold.items
        if "{}" in (answer.kind, gold.kind):
            answers, golds = tuple(dict.fromkeys(answers)), tuple(dict.fromkeys(golds))
        if len(answers) != len(golds):
            return False if not _open_ended(answer, gold) and gold.kind != "union" else self._whole(answer, gold)
        answer_numbers, gold_numbers = _sorted_numbers(answers), _sorted_numbers(golds)
        if answer_numbers and gold_numbers:
            return all(same_number(a, g) for a, g in zip(answer_numbers, gold_numbers, strict=True))
        # Sets of sets could be matched in as many ways as there are elements, level by level.
        nested = any(r"\{" in item or r"\cup" in item for item in (*answers, *golds))
        if nested or len(golds) > MAX_MATCHED:
            return sorted(answers) == sorted(golds) or self._whole(answer, gold)
        left = list(answers)
        doubtful: Verdict = True
        for item in golds:
            match, undecided = self._taken(left, item)
            if match is not None:
                del left[match]
            elif undecided is not None:
                doubtful = undecided
            else:
                return self._whole(answer, gold) if gold.kind == "union" else False
        return doubtful

    def _taken(self, answers: list[str], gold: str) -> tuple[int | None, NeedsAlgebra | None]:
        """(index of the answer that equals the gold, a question where none is known to)."""
        undecided = None
        for index, answer in enumerate(answers):
            if _Comparison(None, part=True).equal(answer, gold) is True:
                return index, None
        for index, answer in enumerate(answers):
            verdict = self._parts().equal(answer, gold)
            if verdict is True:
                return index, None
            if isinstance(verdict, NeedsAlgebra):
                undecided = verdict
        return None, undecided

    def _one_and_several(
        self, answer: str, answer_parts: Structure | None, gold: str, gold_parts: Structure | None
    ) -> Verdict:
        """A single value and a structure: equal only if the structure is a set of one."""
        several = answer_parts or gold_parts
        assert several
        if len(several.items) == 1:
            return self.equal(several.items[0], gold) if answer_parts else self.equal(answer, several.items[0])
        single = gold if answer_parts else answer
        plain = number(quantity(single).value) is not None or same_words(single, single) is not None
        return False if plain or several.kind in ("list", "()") else self.ask(answer, gold)

    def _same_value(self, answer: str, gold: str) -> Verdict:
        """Compare two texts that are neither structures nor relations."""
        answer, gold = unwrapped(answer), unwrapped(gold)
        answer_time, gold_time = clock(answer), clock(gold)
        if answer_time and gold_time:
            return same_clock(answer_time, gold_time)
        if ":" in answer or ":" in gold:
            return self._same_ratio(
                answer,
                gold,
                timed=is_surely_time(answer_time, is_gold=False) or is_surely_time(gold_time, is_gold=True),
            )
        a, g = _quantities(answer, gold)
        if not same_unit(a.unit, g.unit):
            return False
        answer_number, gold_number = number(a.value, scale=a.scale), number(g.value, scale=g.scale)
        if answer_number and gold_number:
            proportions = answer_number.percent or gold_number.percent
            return not (proportions and (a.unit or g.unit)) and same_number(answer_number, gold_number, part=self._part)
        if a.scale != g.scale:
            return False
        if a.value == g.value or same_tokens(a.value, g.value):
            return True
        if ELLIPSIS in (a.value, g.value):
            return False
        answer_product, gold_product = monomial(a.value), monomial(g.value)
        if answer_product and gold_product:
            return same_monomial(answer_product, gold_product)
        same = same_words(answer, gold)
        if same is not None:
            return same
        return self.ask(latex(answer_number) or a.value, latex(gold_number) or g.value)

    def _same_ratio(self, answer: str, gold: str, *, timed: bool) -> Verdict:
        """`3:4` is the quotient, `1:2:3` two of them; a clock time is no quotient."""
        answers, golds = proportions(answer), proportions(gold)
        if timed:
            return False
        if len(answers) == len(golds) == 1 and answers and golds:
            return self.ask(answer, gold)
        if len(answers) != len(golds):
            return False if max(len(answers), len(golds)) > 1 else self.ask(answer, gold)
        return self._all([partial(self._same_value, a, g) for a, g in zip(answers, golds, strict=True)])


def _regions(answer: str, gold: str) -> tuple[str, str] | tuple[()] | None:
    """Both texts as intervals, () where they are sets of different variables, None where no side is an inequality or a
    set-builder, or one is no set at all.
    """
    found = intervals(answer), intervals(gold)
    if found == (None, None):
        return None
    texts: list[str] = []
    for text, region in zip((answer, gold), found, strict=True):
        parts = structure(text)
        is_interval = parts and (
            parts.kind == "union" or (len(parts.kind) == 2 and "{" not in parts.kind and len(parts.items) == 2)
        )
        if region is None and not is_interval:
            return None
        texts.append(region[1] if region else text)
    names = {region[0] for region in found if region and region[0]}
    if (answer, gold) == tuple(texts):
        return None
    return () if len(names) > 1 else (texts[0], texts[1])


def _other_variable(answer_name: str, gold_name: str) -> bool:
    return len(answer_name) == len(gold_name) == 1


def _quantities_named(answer_name: str, gold_name: str) -> bool:
    """Whether both names are labels of a quantity, like S and A for an area."""
    return all(len(name) == 1 and name.isupper() for name in (answer_name, gold_name))


def _is_vector(answer: Structure, gold: Structure) -> bool:
    """Whether one is a column and the other its coordinates in brackets."""
    kinds = sorted((answer.kind, gold.kind))
    return kinds[0] == "()" and kinds[1].endswith("x1")


def _alternating(parts: list[str], signs: list[str]) -> list[str]:
    return [parts[0], *(text for pair in zip(signs, parts[1:], strict=True) for text in pair)]


def _names(parts: Structure) -> list[str]:
    """The names of the items if each item gives a different name a value (`x = 1, y = 2`); else []."""
    names = [split_name(item)[0] for item in parts.items]
    return names if all(names) and len(set(names)) == len(names) else []


def _sorted_numbers(items: tuple[str, ...]) -> list[Number] | None:
    """None when one is no plain number, or a percentage (which may equal two numbers)."""
    numbers = [found for item in items if (found := number(item)) and not found.percent]
    return sorted(numbers, key=lambda n: n.value) if len(numbers) == len(items) else None


def _open_ended(*sides: Structure) -> bool:
    """Whether an item may mean several values: `1 \\pm x`, `1, 2, \\ldots`."""
    return any(item == ELLIPSIS for side in sides for item in side.items)


def _quantities(answer: str, gold: str) -> tuple[Quantity, Quantity]:
    """A letter that could be a variable (`5m`) is a unit only if the other side certainly has one."""
    sides = quantity(answer), quantity(gold)
    shown = any(side.unit and side.certain for side in sides)
    a, g = (
        side if side.certain or shown else Quantity(value=text)
        for side, text in zip(sides, (answer, gold), strict=True)
    )
    return a, g

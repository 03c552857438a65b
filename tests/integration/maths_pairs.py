r"""Maths answers whose verdict is known by construction: (gold, answer, correct), half of them correct, in 25 kinds.

    python tests/integration/maths_pairs.py [--count 5000]      # writes the table of tests/integration/MATHS.md

A kind is a function (rng, correct) -> (gold, answer): the answer is the gold in another form, or a near miss. Correct means that a
careful teacher who sees both, but not the question, would accept it. No kind contains answers about which teachers would disagree.
Disputed in the field and decided here:

- A decimal is correct when it is exact, or rounded to at least six decimals (math-verify's rounding); 0.33 is not 1/3.
- 50% equals 0.5 and 1/2; a gold of 50% may be answered by 50.
- An answer may omit the gold's unit, or add one that the gold omits (the question names it), but may not have a different one; no
  kind converts (120 mm for 12 cm).
- Values in a list and elements of a set may be in any order, coordinates may not. A set may be written without braces. (1, 2) may
  be a point or an open interval: the text does not say which, so both are accepted.
- `x = 3` and `3` are the same, whichever is the gold; `z = 3` is not `x = 3`.
- Broken LaTeX that can be read in only one way is read that way.
"""

import argparse
import logging
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))  # as a script

import maths_numbers as numbers
import maths_parts as parts
import maths_words as words

from r1ray.reward.math import compare

REPORT = Path(__file__).with_name("MATHS.md")
KINDS: dict[str, Callable[[Random, bool], tuple[str, str]]] = {
    kind.__name__: kind
    for kind in (
        *(numbers.integers, numbers.fractions, numbers.mixed_numbers, numbers.decimals, numbers.percent),
        *(numbers.scientific, numbers.surds, numbers.expressions, numbers.constants, numbers.powers),
        *(parts.sets, parts.tuples, parts.intervals, parts.unions, parts.matrices, parts.equations),
        *(parts.inequalities, parts.multiple_values, parts.plus_minus, parts.complex_numbers),
        *(words.units, words.degrees_and_money, words.chinese, words.words, words.malformed),
    )
}

REASONS: dict[str, tuple[str, str]] = {
    "integers": (r"`44\,959` is misread, `10.` is not read", "test_typography"),
    "mixed_numbers": ("`10 2/3` is misread", "test_mixed_numbers"),
    "percent": ("no percent sign is read under antlr 4.9, which Hydra 1.3 needs", "test_percentages"),
    "scientific": (
        "treats all numbers below 1e-15 as equal; after rounding 4.6e5 differs from 460000",
        "test_powers_of_ten",
    ),
    "sets": (r"`\lbrace` is not read", "test_typography"),
    "tuples": (r"`\bigl(` and `\big(` are not read", "test_typography"),
    "intervals": ("the character for infinity is not read", "test_typography"),
    "inequalities": (
        "`2 > x > 1` is not reversed",
        "test_inequalities",
    ),
    "complex_numbers": (r"`4i` is a variable, `4 i` and `4\cdot i` are numbers", "test_typography"),
    "units": ("ignores units, so it accepts `m` for `kg`; does not know `km/h` outside of `\\text{}`", "test_units"),
    "degrees_and_money": (r"does not know `dollars`, `\degree`; drops `cents`", "test_money"),
    "chinese": ("does not read Chinese, nor full-width characters", "test_chinese"),
    "words": (
        "reads words as products of letters, and `infinite` as `\\infty`: style, capitals or a full stop make them differ",
        "test_words",
    ),
    "malformed": (
        "as Open-R1 configures it, broken answers are not repaired",
        "test_broken_latex_is_repaired_where_it_is_unambiguous",
    ),
}
"""{kind: (why math-verify differs, the test of what r1ray does instead)}."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Pair:
    kind: str
    gold: str
    answer: str
    correct: bool


def pairs(count: int, *, seed: int = 0) -> list[Pair]:
    """The first `count` pairs, always the same: alternating between kinds, and between correct and incorrect; no pair twice."""
    made: dict[tuple[str, str], Pair] = {}
    names = list(KINDS)
    for index in range(count):
        kind, correct = names[index % len(names)], index // len(names) % 2 == 0
        for attempt in range(1000):
            gold, answer = KINDS[kind](Random(f"{seed}/{kind}/{index}/{attempt}"), correct)
            if (gold, answer) not in made:
                made[gold, answer] = Pair(kind=kind, gold=gold, answer=answer, correct=correct)
                break
        else:
            raise ValueError(f"too few pairs of kind {kind}")
    return list(made.values())


def ours(pair: Pair) -> str:
    """r1ray's verdict: correct or incorrect; timeout, memory or crash when the comparison had to be stopped."""
    return compare(pair.answer, (pair.gold,))


def math_verify() -> Callable[[Pair], bool]:
    """math-verify in this process as in Open-R1's accuracy reward: gold with its defaults, answer as LaTeX only, in a box."""
    import math_verify as library
    from math_verify.parser import NormalizationConfig

    plain = NormalizationConfig(
        nits=False, malformed_operators=False, basic_latex=True, units=True, boxed="all", equations=False
    )
    config = library.LatexExtractionConfig(
        boxed_match_priority=0, try_extract_without_anchor=False, normalization_config=plain
    )
    untimed: dict[str, Any] = {
        "extraction_mode": "first_match",
        "parsing_timeout": None,
    }  # pytest's own alarm stays armed

    def verdict(pair: Pair) -> bool:
        logging.disable(logging.CRITICAL)  # only around math-verify: other libraries log, too
        try:
            gold = library.parse(f"\\boxed{{{pair.gold}}}", **untimed)
            answer = library.parse(f"\\boxed{{{pair.answer}}}", extraction_config=[config], **untimed)
            return bool(library.verify(gold, answer, timeout_seconds=None))
        finally:
            logging.disable(logging.NOTSET)

    return verdict


@dataclass(frozen=True, slots=True, kw_only=True)
class Agreement:
    """For one kind: `pairs`, and for each of them whether r1ray and math-verify give the intended verdict."""

    pairs: Sequence[Pair]
    ours: Sequence[bool]
    theirs: Sequence[bool]

    @property
    def differences(self) -> int:
        return sum(a != b for a, b in zip(self.ours, self.theirs, strict=True))


def agreements(made: Sequence[Pair], ours_N: Sequence[bool], theirs_N: Sequence[bool]) -> dict[str, Agreement]:
    """{kind: agreement}, from the verdicts (correct or not) of both sides."""
    found: dict[str, Agreement] = {}
    for kind in KINDS:
        chosen = [i for i, pair in enumerate(made) if pair.kind == kind]
        agree_ours, agree_theirs = ([says[i] == made[i].correct for i in chosen] for says in (ours_N, theirs_N))
        found[kind] = Agreement(pairs=[made[i] for i in chosen], ours=agree_ours, theirs=agree_theirs)
    return found


def table(found: dict[str, Agreement]) -> str:
    """Markdown: for each kind how often each side gives the intended verdict, and why they differ."""
    lines = [
        "| kind | pairs | r1ray | math-verify | accepts incorrect | rejects correct | reason | test |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for kind, agreement in found.items():
        accepted = sum(
            not pair.correct and not agrees for pair, agrees in zip(agreement.pairs, agreement.theirs, strict=True)
        )
        rejected = sum(
            pair.correct and not agrees for pair, agrees in zip(agreement.pairs, agreement.theirs, strict=True)
        )
        shares = [f"{100 * sum(agree) / len(agree):.1f} %" for agree in (agreement.ours, agreement.theirs)]
        reason, test = REASONS.get(kind, ("", "")) if agreement.differences else ("", "")
        lines.append(
            f"| {kind} | {len(agreement.pairs)} | {shares[0]} | {shares[1]} | {accepted} | {rejected} | {reason} | {test} |"
        )
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=5000)
    parser.add_argument("--show", type=int, default=0, help="number of differences to print for each kind")
    args = parser.parse_args()
    made, theirs = pairs(args.count), math_verify()
    found = agreements(made, [ours(pair) == "correct" for pair in made], [theirs(pair) for pair in made])
    for agreement in found.values():
        different = [
            pair
            for pair, a, b in zip(agreement.pairs, agreement.ours, agreement.theirs, strict=True)
            if a != b or not a
        ]
        for pair in different[: args.show]:
            print(pair)
    head = REPORT.read_text().partition("| kind |")[0]
    REPORT.write_text(head + table(found))
    print(table(found))


if __name__ == "__main__":
    main()

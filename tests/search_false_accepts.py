r"""Search for incorrect maths answers that are accepted: golds against neighbours of their answers.

    python -m tests.search_false_accepts [--pairs 50000] [--seed 0]

A neighbour is a correct answer (of tests/integration/maths_pairs.py, or a row of tests/fixtures/graded.jsonl) with one token
changed: dropped, doubled, swapped with the next, a digit or a sign replaced, a capital for a small letter, a space or a bracket put
in or out, a letter appended in roman; or the answer to another problem of the same kind. Most are incorrect, some are the same.

Every accepted pair is checked by other means: the same text but for style, or the same value as sympy reads it. What these do not
prove is printed, one line for each pattern (digits are not part of it), and has to be read.
"""

import argparse
import json
import re
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from fractions import Fraction
from pathlib import Path
from random import Random
from typing import Any

TESTS = Path(__file__).parent
sys.path.insert(0, str(TESTS / "integration"))

import maths_pairs  # noqa: E402
from maths_numbers import pick  # noqa: E402

from r1ray.reward.math import compare, verifier  # noqa: E402
from r1ray.reward.math.extract import final_answer  # noqa: E402
from tests.graded_rows import maths_cases  # noqa: E402

TOKEN = re.compile(r"\\(?:[A-Za-z]+|.)|[0-9]|[A-Za-z]|\s+|.", re.DOTALL)
OTHERS = {
    "+": "-", "-": "+", "(": "[", "[": "(", ")": "]", "]": ")", "<": r"\le ", ">": r"\ge ", r"\le": "<", r"\ge": ">", ",": " ",
    r"\cup": r"\cap ", r"\sin": r"\cos ", r"\cos": r"\sin ", "=": "<", ".": ",", ":": "/", "/": ":", r"\pi": "p",
    r"\ln": r"\log ", r"\infty": "8", r"\frac": r"\binom", "^": "_", "_": "^", r"\pm": "+", r"\times": "+", r"\cdot": "-",
}  # fmt: skip
APPENDED = (
    r"\mathrm{i}",
    r"\text{i}",
    r"\mathbf{e}",
    "x",
    " 2",
    r"\ 3",
    r"\,5",
    r"\operatorname{sgn}",
    "!",
    "'",
    r"\quad 7",
    "0",
    "%",
)


def neighbour(text: str, rng: Random) -> str:
    """The text with one token changed."""
    tokens = TOKEN.findall(text)
    if not tokens or rng.randrange(12) == 0:
        return text + pick(rng, APPENDED)
    index = rng.randrange(len(tokens))
    token = tokens[index]
    shape = rng.randrange(8)
    if token.isdigit() and shape < 5:
        return _with(
            tokens, index, pick(rng, [str((int(token) + step) % 10) for step in (1, 9, 5)] + [f"{token} ", f",{token}"])
        )
    if token.isalpha() and len(token) == 1 and shape < 6:
        return _with(
            tokens, index, pick(rng, (token.swapcase(), rf"\mathrm{{{token}}}", chr(ord(token) ^ 1), f"{token} "))
        )
    if token in OTHERS and shape < 6:
        return _with(tokens, index, OTHERS[token])
    if shape == 6 and index + 1 < len(tokens):
        return _with(tokens, index, tokens[index + 1], token, width=2)
    return _with(tokens, index, *pick(rng, ((), (token, token), (" ", token), ("{", token, "}"), (r"\,", token))))


def _with(tokens: Sequence[str], index: int, *new: str, width: int = 1) -> str:
    return "".join([*tokens[:index], *new, *tokens[index + width :]])


def generated(count: int, *, seed: int) -> Iterator[tuple[str, str, str]]:
    """(gold, correct answer, neighbour), always the same for a seed; no pair twice."""
    rng = Random(seed)
    pool = [(pair.kind, pair.gold, pair.answer) for pair in maths_pairs.pairs(5000, seed=seed) if pair.correct]
    for case in maths_cases():
        answer = final_answer(case.row["completion"])
        if case.right and answer:
            pool += [(case.group, str(gold), answer) for gold in case.row["gold"]] * 4
    of_kind: dict[str, list[str]] = {}
    for kind, gold, answer in pool:
        of_kind.setdefault(kind, []).extend((gold, answer))
    seen: set[tuple[str, str]] = set()
    while len(seen) < count:
        kind, gold, answer = pick(rng, pool)
        base = pick(rng, (gold, answer))
        other = pick(rng, of_kind[kind]) if rng.randrange(8) == 0 else neighbour(base, rng)
        if rng.randrange(6) == 0:
            other = neighbour(other, rng)
        if other.strip() and other not in (gold, answer) and (gold, other) not in seen:
            seen.add((gold, other))
            yield gold, answer, other


def prover() -> Callable[[str, str, str], bool]:
    """Whether two texts are provably equal, by means of their own: style and spaces aside, or by latex2sympy's reading of both."""
    import sympy
    from latex2sympy2_extended.latex2sympy2 import ConversionConfig, latex2sympy

    config = ConversionConfig(lowercase_symbols=False)

    def value(text: str) -> Any:
        try:
            return latex2sympy(text, is_real="i" not in text, normalization_config=None, conversion_config=config)
        except Exception:
            return None

    def equal(gold: str, correct: str, answer: str) -> bool:
        if _solid(answer) in (_solid(gold), _solid(correct)):
            return True
        if re.search(r"[0-9][\s~]*(\\[,;: ]|\\quad|\s)[\s~]*[0-9]|mathrm|text|operatorname|[<>:]", gold + answer):
            return False
        a, b = value(gold), value(answer)
        if not all(isinstance(side, sympy.Expr) for side in (a, b)):
            return False
        if _fraction(a) is not None and _fraction(a) == _fraction(b):
            return True
        names = sorted(a.free_symbols | b.free_symbols, key=str)
        for shift in (2, 5, 9):
            point = {name: sympy.Rational(shift + 3 * index, 7 + index) for index, name in enumerate(names)}
            try:
                here, there = (complex(side.subs(point).evalf(30)) for side in (a, b))
            except (TypeError, ValueError, ArithmeticError):
                return False
            if not abs(here - there) <= 1e-9 * max(abs(here), abs(there)):
                return False
        return True

    return equal


def _fraction(number: Any) -> Fraction | None:
    return Fraction(str(number)) if number.is_Rational else None


def _solid(text: str) -> str:
    """Without what never changes an answer: dollars, \\left, spaces not between digits, one pair of braces around a token, letters
    in roman, a brace too few or too many at the end.
    """
    text = re.sub(r"\\math(?:rm|bf)\{([A-Za-z])\}", r"\1", text.replace("$", ""))
    text = re.sub(
        r"\\(?:left|right|displaystyle|[dt]?frac)(?![A-Za-z])", lambda m: r"\frac" if "frac" in m[0] else "", text
    )
    text = re.sub(r"\\[,;:! ]|~", " ", text)
    text = re.sub(r"(?<![0-9])\s+|\s+(?![0-9\s])", "", text)
    return (
        re.sub(r"\{(\\?[A-Za-z0-9]+)\}", r"\1", text).strip(".{},").casefold()
        if _is_words(text)
        else re.sub(r"[{}]", "", text)
    )


def _is_words(text: str) -> bool:
    return re.fullmatch(r"(?:\\text\{)?[A-Za-z \".]{3,}\}?", text) is not None


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", type=int, default=50_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, help="all accepted pairs that are not proven, as JSON lines")
    args = parser.parse_args()
    proven, count, patterns = prover(), Counter[str](), dict[str, list[tuple[str, str]]]()
    for gold, correct, answer in generated(args.pairs, seed=args.seed):
        verdict = compare(answer, (gold,))
        count[verdict] += 1
        if verdict != "correct":
            continue
        if proven(gold, correct, answer):
            count["proven"] += 1
        else:
            patterns.setdefault(re.sub("[0-9]+", "#", f"{gold} | {answer}"), []).append((gold, answer))
    verifier().close()
    for pairs in patterns.values():
        print(f"{pairs[0][0]!r} | {pairs[0][1]!r}" + (f"   x{len(pairs)}" if len(pairs) > 1 else ""))
    if args.out:
        args.out.write_text("".join(json.dumps(pair) + "\n" for pairs in patterns.values() for pair in pairs))
    print(
        f"{args.pairs} pairs: {dict(count)}; {sum(map(len, patterns.values()))} accepted and not proven, {len(patterns)} patterns"
    )


if __name__ == "__main__":
    main()

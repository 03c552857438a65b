"""Countdown: reach a target with every given number used exactly once, by + - * / and parentheses.

Every generated problem has a solution whose intermediate results are whole numbers from 1 to `MAX_VALUE`, so that a small model can
write them out. A completion may use any other solution: the verifier has no such limit.

The split of a problem is a hash of (sorted numbers, target) alone. So the traces that trained the built-in model, the training
problems and the held-out problems are disjoint, whatever the seeds and counts.
"""

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Literal, Self

import numpy as np
from pydantic import field_validator, model_validator

from r1ray.data.base import Item, Row, SourceArgs
from r1ray.data.generators.base import GeneratorArgs, low_and_high
from r1ray.data.schemas import numbers_and_target, user
from r1ray.plugin import invalid

Split = Literal["traces", "train", "test"]

MAX_NUMBER = 16
MAX_VALUE = 99
MIN_TARGET = 10
PATIENCE = 2000
"""Draws without a new problem after which a split counts as exhausted, where its size is not known."""
COUNTS_OF_NUMBERS = range(2, 6)
"""With more numbers it takes minutes to list all expressions."""
SIZES: Mapping[int, Mapping[Split, int]] = {
    2: {"traces": 105, "train": 83, "test": 33},
    3: {"traces": 2701, "train": 3201, "test": 1005},
}
"""{how many numbers: how many problems each split has}, counted once; a test counts again."""

_BUCKETS: Mapping[Split, range] = {"traces": range(40), "train": range(40, 86), "test": range(86, 100)}


class CountdownArgs(GeneratorArgs):
    split: Split
    num_numbers: list[int] = [3, 3]
    """Given as a number from 2 to 5, or as [lowest, highest]: then every number in between gets the same share, in turn, as long
    as the split has problems with that many numbers. The built-in model has learned 3."""

    @field_validator("num_numbers", mode="before")
    @classmethod
    def _low_and_high(cls, given: Any) -> list[int]:
        return low_and_high("num_numbers", given, COUNTS_OF_NUMBERS)

    @property
    def counts(self) -> range:
        return range(self.num_numbers[0], self.num_numbers[1] + 1)

    @model_validator(mode="after")
    def _enough(self) -> Self:
        sizes = [SIZES[count][self.split] for count in self.counts if count in SIZES]
        if len(sizes) == len(self.counts) and self.num_problems > sum(sizes):
            raise invalid("num_problems", self.exhausted(f"{sum(sizes)}"), REMEDY)
        return self

    def exhausted(self, size: str) -> str:
        numbers = " to ".join(map(str, dict.fromkeys(self.num_numbers)))
        return f"split {self.split} has {size} problems with {numbers} numbers, not {self.num_problems}"


REMEDY = "lower num_problems or raise num_numbers"


def read(row: Row, args: SourceArgs) -> Item:
    """Generated rows and those of Jiayi-Pan/Countdown-Tasks-3to4: numbers and a target."""
    numbers, target = numbers_and_target(row)
    return Item(
        messages=user(question(numbers, target)),
        verifier="countdown",
        payload={"numbers": numbers, "target": target},
        id=problem_id(numbers, target),
        meta={"difficulty": len(numbers)},
    )


def generate(args: CountdownArgs) -> Iterator[dict[str, Any]]:
    """Distinct problems of one split: {id, question, numbers, target, solution}.

    Example: `{"id": "countdown/2-3-5=11", "question": "Make 11 from 5, 2, 3. Use each number once.", "numbers": [5, 2, 3],
    "target": 11, "solution": "(2 * 3) + 5"}`.

    Raises:
        ValueError: the split is exhausted, where `SIZES` does not know its size.
    """
    split = args.split
    sizes = {count: SIZES[count][split] for count in args.counts if count in SIZES}
    rng = np.random.default_rng([args.seed, *split.encode()])
    seen: set[str] = set()
    made = dict.fromkeys(args.counts, 0)
    failed = 0
    while len(seen) < args.num_problems:
        left = [count for count in args.counts if count not in sizes or made[count] < sizes[count]]
        count = min(left, key=lambda count: made[count])
        numbers = [int(n) for n in rng.integers(1, MAX_NUMBER + 1, size=count)]
        solutions = reachable(numbers)
        targets = [t for t in sorted(solutions) if t >= MIN_TARGET and split_of(numbers, t) == split]
        target = int(rng.choice(targets)) if targets else 0
        name = problem_id(numbers, target)
        if not targets or name in seen:
            failed += 1
            if failed > PATIENCE and count not in sizes:
                raise ValueError(f"countdown: {args.exhausted(f'about {len(seen)}')}; {REMEDY}")
            continue
        failed = 0
        seen.add(name)
        made[count] += 1
        yield {
            "id": name,
            "question": question(numbers, target),
            "numbers": numbers,
            "target": target,
            "solution": solutions[target],
        }


def question(numbers: Sequence[int], target: int) -> str:
    return f"Make {target} from {', '.join(map(str, numbers))}. Use each number once."


def problem_id(numbers: Sequence[int], target: int) -> str:
    """`countdown/2-3-5=11`, the same for every order of the numbers."""
    return f"countdown/{'-'.join(map(str, sorted(numbers)))}={target}"


def split_of(numbers: Sequence[int], target: int) -> Split:
    digest = hashlib.sha256(problem_id(numbers, target).encode()).digest()
    bucket = int.from_bytes(digest[:8], "big") % 100
    return next(split for split, buckets in _BUCKETS.items() if bucket in buckets)


def operations(a: int, b: int) -> list[tuple[int, str, int, int]]:
    """The possible steps with two values: (left, operator, right, result), with whole results from 1 to MAX_VALUE.

    Example: `operations(2, 6)` is `[(2, "+", 6, 8), (2, "*", 6, 12), (6, "-", 2, 4), (6, "/", 2, 3)]`.
    """
    high, low = max(a, b), min(a, b)
    steps = [(a, "+", b, a + b), (a, "*", b, a * b)]
    if high > low:
        steps.append((high, "-", low, high - low))
    if high % low == 0:
        steps.append((high, "/", low, high // low))
    return [step for step in steps if step[3] <= MAX_VALUE]


def reachable(numbers: Sequence[int]) -> dict[int, str]:
    """{value: one expression for it} of every value that all the numbers together can make."""
    found: dict[int, str] = {}
    _combine([(n, str(n)) for n in numbers], found)
    return found


def _combine(parts: list[tuple[int, str]], found: dict[int, str]) -> None:
    """Depth-first search over the pair to combine next; `parts` has (value, expression)."""
    if len(parts) == 1:
        value, expression = parts[0]
        found.setdefault(value, expression)
        return
    for i in range(len(parts)):
        for j in range(i + 1, len(parts)):
            rest = [part for k, part in enumerate(parts) if k not in (i, j)]
            (a, a_text), (b, b_text) = parts[i], parts[j]
            for left, sign, _, value in operations(a, b):
                first, second = (a_text, b_text) if left == a else (b_text, a_text)
                expression = f"{first} {sign} {second}"
                _combine([*rest, (value, f"({expression})" if rest else expression)], found)

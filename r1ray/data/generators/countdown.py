"""Countdown: reach a target with every given number used exactly once, by + - * / and parentheses.

The intermediate results of the solution that makes a problem count as solvable are whole numbers from 1 to `MAX_VALUE`, so that
a small model can spell them out. A completion may take any other way: the verifier knows no such limit.

Which split a problem belongs to is decided by a hash of (sorted numbers, target) alone. The traces that made the built-in base,
the training problems and the held-out problems are therefore disjoint, whatever seeds and counts are used.
"""

import hashlib
from collections.abc import Iterator, Sequence
from numbers import Integral
from typing import Any, Literal, get_args

import numpy as np

Split = Literal["traces", "train", "test"]

MAX_NUMBER = 16
MAX_VALUE = 99
MIN_TARGET = 10
PATIENCE = 2000
"""Draws without a new problem after which a split counts as used up, where its size is not known."""
COUNTS_OF_NUMBERS = range(2, 6)
"""All expressions of more numbers than these take minutes to list."""
SIZES: dict[int, dict[Split, int]] = {
    2: {"traces": 105, "train": 83, "test": 33},
    3: {"traces": 2701, "train": 3201, "test": 1005},
}
"""{how many numbers: how many problems each split has}, counted once; a test counts again."""

_BUCKETS: dict[Split, range] = {"traces": range(40), "train": range(40, 86), "test": range(86, 100)}


def generate(
    *, split: Split, num_problems: int, seed: int, num_numbers: int | Sequence[int] = 3
) -> Iterator[dict[str, Any]]:
    """Distinct problems of one split: {id, question, numbers, target, solution}.

    `num_numbers` is a number from 2 to 5, or [lowest, highest], of which every number gets the same share, in turn, as long as the
    split has problems of it.

    Example: `{"id": "countdown/2-3-5=11", "question": "Make 11 from 5, 2, 3. Use each number once.", "numbers": [5, 2, 3],
    "target": 11, "solution": "(2 * 3) + 5"}`.

    Raises:
        ValueError: the split is unknown, or holds fewer problems than were asked for (where `SIZES` knows it, at once), or
            num_numbers is not in `COUNTS_OF_NUMBERS`.
        TypeError: num_problems or seed is no whole number.
    """
    if split not in _BUCKETS:
        raise ValueError(f"countdown: unknown split {split!r}; known: {', '.join(get_args(Split))}")
    counts = _counts(num_numbers)
    for name, value in (("num_problems", num_problems), ("seed", seed)):
        if not isinstance(value, Integral):
            raise TypeError(f"{name} must be a whole number, not {value!r}")
    sizes = {count: SIZES[count][split] for count in counts if count in SIZES}
    if len(sizes) == len(counts) and num_problems > sum(sizes.values()):
        raise ValueError(_too_many(split, f"{sum(sizes.values())}", num_numbers=num_numbers, num_problems=num_problems))
    rng = np.random.default_rng([seed, *split.encode()])
    seen: set[str] = set()
    made = dict.fromkeys(counts, 0)
    failed = 0
    while len(seen) < num_problems:
        left = [count for count in counts if count not in sizes or made[count] < sizes[count]]
        count = min(left, key=lambda count: made[count])
        numbers = [int(n) for n in rng.integers(1, MAX_NUMBER + 1, size=count)]
        solutions = reachable(numbers)
        targets = [t for t in sorted(solutions) if t >= MIN_TARGET and split_of(numbers, t) == split]
        target = int(rng.choice(targets)) if targets else 0
        name = problem_id(numbers, target)
        if not targets or name in seen:
            failed += 1
            if failed > PATIENCE and count not in sizes:
                raise ValueError(
                    _too_many(split, f"about {len(seen)}", num_numbers=num_numbers, num_problems=num_problems)
                )
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


def _counts(num_numbers: int | Sequence[int]) -> list[int]:
    both = list(num_numbers) if isinstance(num_numbers, Sequence) else [num_numbers, num_numbers]
    if len(both) != 2 or not all(n in COUNTS_OF_NUMBERS for n in both) or both[0] > both[1]:
        raise ValueError(
            f"countdown: num_numbers must be 2, 3, 4 or 5, not {num_numbers}, or [lowest, highest] of those; 3 is what r1ray's "
            "base has learnt"
        )
    return list(range(both[0], both[1] + 1))


def _too_many(split: Split, has: str, *, num_numbers: int | Sequence[int], num_problems: int) -> str:
    return (
        f"countdown: split {split} has {has} problems with {num_numbers} numbers, not {num_problems}; "
        "lower num_problems or raise num_numbers"
    )


def question(numbers: Sequence[int], target: int) -> str:
    return f"Make {target} from {', '.join(map(str, numbers))}. Use each number once."


def problem_id(numbers: Sequence[int], target: int) -> str:
    """The same for every order of the numbers: `countdown/2-3-5=11`."""
    return f"countdown/{'-'.join(map(str, sorted(numbers)))}={target}"


def split_of(numbers: Sequence[int], target: int) -> Split:
    digest = hashlib.sha256(problem_id(numbers, target).encode()).digest()
    bucket = int.from_bytes(digest[:8], "big") % 100
    return next(split for split, buckets in _BUCKETS.items() if bucket in buckets)


def operations(a: int, b: int) -> list[tuple[int, str, int, int]]:
    """What one step may do with two values: (left, operator, right, result), results whole and from 1 to MAX_VALUE.

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
    """Every value that uses all the numbers, with one expression for it."""
    found: dict[int, str] = {}
    _combine([(n, str(n)) for n in numbers], found)
    return found


def _combine(parts: list[tuple[int, str]], found: dict[int, str]) -> None:
    """Depth-first over the pairs to combine next; `parts` holds (value, expression)."""
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

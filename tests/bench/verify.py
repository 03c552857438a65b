r"""Maths verifications per second, relative to math-verify in one process (goal 10), and two workers relative to one (goal 1.9).

    python -m tests.bench.verify [--quick] [--out FILE]

Groups: 16 completions per problem of 4 different answers, drawn 8 : 4 : 2 : 2 (as from a policy in the middle of its training),
each a thought and a box. Kinds of problems as in MATH: 60 % integers, 15 % fractions, 15 % surds and multiples of pi, 5 % points, 5
% polynomials. Of the four answers one is the gold, one the gold written differently, and two are near misses. Ours: the `accuracy`
reward on whole groups, extraction included, with nothing cached from an earlier round and the child running. Theirs: Open-R1's
accuracy reward (gold and answer parsed for each completion, answer as LaTeX only) with its timeouts, imported before.

Two workers: pairs that only algebra decides, products of linear factors against their expansion, go to math-verify's child process:
to one child, or to whichever of two is free, each on its own core.
"""

import logging
import random
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from r1ray.reward import math as maths
from r1ray.reward.accuracy import accuracy
from r1ray.reward.base import RewardContext
from r1ray.reward.math.process import MathVerifier
from r1ray.reward.math.typography import normalise
from r1ray.types import Completion, Message, Problem, VersionSpan
from tests.bench.side_by_side import Comparison, alternate, arguments, pin, pin_process, report, seconds

NUM_COMPLETIONS = 16
SHARES = (8, 4, 2, 2)
CONTEXT = RewardContext(step=1, seed=0, max_response_length=1000)


@dataclass(frozen=True, kw_only=True)
class Recorded:
    """A group: its problem, and its completions as from the engine."""

    problem: Problem
    completions_G: list[Completion]

    @property
    def gold(self) -> str:
        return self.problem.payload["answers"][0]


def integer(rng: random.Random) -> tuple[str, ...]:
    n = rng.randrange(1, 5000)
    return str(n), f"x = {n}", str(n + rng.randrange(1, 9)), str(2 * n)


def fraction(rng: random.Random) -> tuple[str, ...]:
    p, q = rng.randrange(1, 30), rng.choice((2, 4, 5, 7, 8, 9))
    return rf"\frac{{{p}}}{{{q}}}", f"{p}/{q}", rf"\frac{{{p + 1}}}{{{q}}}", rf"\frac{{{q}}}{{{p + q}}}"


def irrational(rng: random.Random) -> tuple[str, ...]:
    a, r = rng.randrange(2, 9), rng.choice((2, 3, 5, 7))
    if rng.randrange(2):
        return rf"\frac{{{a}\pi}}{{{r}}}", rf"\frac{{{a}}}{{{r}}}\pi", rf"{a}\pi", rf"\frac{{{a + 1}\pi}}{{{r}}}"
    return rf"{a}\sqrt{{{r}}}", rf"\sqrt{{{a * a * r}}}", rf"{a + 1}\sqrt{{{r}}}", rf"\sqrt{{{a * r}}}"


def point(rng: random.Random) -> tuple[str, ...]:
    a, b = rng.randrange(-9, 10), rng.randrange(10, 20)
    return f"({a}, {b})", rf"\left({a},{b}\right)", f"({b}, {a})", f"({a}, {b + 1})"


def polynomial(rng: random.Random) -> tuple[str, ...]:
    a, b = rng.randrange(2, 9), rng.randrange(2, 9)
    return f"x^2+{a + b}x+{a * b}", f"(x+{a})(x+{b})", f"x^2+{a + b}x-{a * b}", f"(x+{a})(x+{b + 1})"


def algebra(rng: random.Random) -> tuple[str, str]:
    """A gold and an answer; every second answer is correct."""
    a, b, c = (rng.randrange(2, 9) for _ in range(3))
    constant = a * b * c + rng.randrange(2)
    expanded = f"x^3+{a + b + c}x^2+{a * b + a * c + b * c}x+{constant}"
    return expanded, rng.choice((f"(x+{a})(x+{b})(x+{c})", f"(x+{a})(x^2+{b + c}x+{b * c})"))


KINDS = {integer: 60, fraction: 15, irrational: 15, point: 5, polynomial: 5}


def recorded(num_groups: int) -> list[Recorded]:
    """Returns the same groups on every call."""
    rng = random.Random(0)
    groups: list[Recorded] = []
    for index in range(num_groups):
        (kind,) = rng.choices(list(KINDS), list(KINDS.values()))
        answers = kind(rng)
        problem = Problem(
            id=str(index),
            source="bench",
            messages=(Message(role="user", content="?"),),
            prompt_ids_T=np.array([1], np.int32),
            verifier="math",
            payload={"answers": [answers[0]]},
        )
        given = rng.choices(answers, SHARES, k=NUM_COMPLETIONS)
        groups.append(Recorded(problem=problem, completions_G=[completion(answer) for answer in given]))
    return groups


def completion(answer: str) -> Completion:
    thought = f"We try \\boxed{{1}} first. {'Then we look at it once more. ' * 40}"
    return Completion(
        token_ids_T=np.array([1], np.int32),
        rollout_logprobs_T=np.zeros(1, np.float32),
        temperature=1.0,
        text=f"<think>{thought}</think> So the answer is $\\boxed{{{answer}}}$.",
        finish_reason="stop",
        versions=(VersionSpan(version=0, start=0, end=1),),
    )


def ours(groups: Sequence[Recorded]) -> float:
    """Verifications a second."""
    for remembered in (maths.compare, normalise):
        remembered.cache_clear()
    maths.verifier().close()  # its golds are cached, too
    maths.compare("x + x", ("2x",))

    def verify_all() -> None:
        for group in groups:
            accuracy(group.problem, group.completions_G, CONTEXT)

    return NUM_COMPLETIONS * len(groups) / seconds(verify_all)


def open_r1(groups: Sequence[Recorded]) -> Callable[[], float]:
    import math_verify as library
    from math_verify.parser import NormalizationConfig

    logging.disable(logging.CRITICAL)
    plain = NormalizationConfig(
        nits=False, malformed_operators=False, basic_latex=True, units=True, boxed="all", equations=False
    )
    config = library.LatexExtractionConfig(
        boxed_match_priority=0, try_extract_without_anchor=False, normalization_config=plain
    )

    def verify(text: str, gold: str) -> bool:
        parsed: Any = library.parse(f"${gold}$", extraction_mode="first_match")
        answer = library.parse(text, extraction_config=[config], extraction_mode="first_match")
        return library.verify(parsed, answer)

    def verify_all() -> None:
        for group in groups:
            for completion in group.completions_G:
                verify(completion.text.rpartition("</think>")[2], group.gold)

    return lambda: NUM_COMPLETIONS * len(groups) / seconds(verify_all)


class Workers:
    """Child processes of math-verify, each pinned to its own core, and the pairs that they compare."""

    def __init__(self, num_pairs: int, cores: Sequence[int]) -> None:
        rng = random.Random(0)
        self.pairs = [algebra(rng) for _ in range(num_pairs)]
        self._verifiers = [MathVerifier() for _ in cores]
        for verifier, core in zip(self._verifiers, cores, strict=True):
            verifier.verify(["2x"], "x + x")
            child = verifier._child
            assert child is not None
            forks = Path(f"/proc/{child.pid}/task/{child.pid}/children").read_text().split()
            for pid in (child.pid, *map(int, forks)):
                pin_process(pid, [core])

    def rate(self, num_workers: int) -> float:
        """Verifications per second with the pairs distributed over `num_workers` children."""
        pending = deque(self.pairs)

        def work(verifier: MathVerifier) -> None:
            with suppress(IndexError):
                while True:
                    gold, answer = pending.popleft()
                    verifier.verify([gold], answer)

        threads = [threading.Thread(target=work, args=(verifier,)) for verifier in self._verifiers[:num_workers]]
        start = time.perf_counter()
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        return len(self.pairs) / (time.perf_counter() - start)

    def close(self) -> None:
        for verifier in self._verifiers:
            verifier.close()


def main() -> None:
    args = arguments(__doc__).parse_args()
    cores = pin(args.cores)
    groups = recorded(20 if args.quick else 200)
    repetitions = 2 if args.quick else args.repetitions
    setting = {
        "groups": f"{len(groups)} of {NUM_COMPLETIONS} completions, {NUM_COMPLETIONS * len(groups)} verifications",
        "cores": cores,
    }
    seen = alternate({"ours": lambda: ours(groups), "theirs": open_r1(groups)}, repetitions=repetitions)
    common: dict[str, Any] = {"unit": "verifs/s"}
    name = "maths verification relative to math-verify in one process"
    report(
        Comparison(name=name, ours=seen["ours"], theirs=seen["theirs"], goal=10, setting=setting, **common),
        out=args.out,
    )
    if len(cores) < 2:
        return
    workers = Workers(4 * len(groups), cores[:2])
    try:
        seen = alternate({"two": lambda: workers.rate(2), "one": lambda: workers.rate(1)}, repetitions=repetitions)
    finally:
        workers.close()
    setting = {"pairs": len(workers.pairs), "kind": "products against expansions", "cores": cores[:2]}
    report(
        Comparison(
            name="two verification workers relative to one",
            ours=seen["two"],
            theirs=seen["one"],
            goal=1.9,
            setting=setting,
            **common,
        ),
        out=args.out,
    )


if __name__ == "__main__":
    main()

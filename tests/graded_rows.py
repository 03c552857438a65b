"""The rows of tests/fixtures/graded.jsonl, with the reward that is right for each: completions as they came from outside.

    python -m tests.graded_rows [--math-verify]     # lists the maths rows whose reward is not the right one

A row is {"id", "group", "row", "right", "was"}: `row` is an input row of `r1ray.grade`, `was` the reward before.
"""

import argparse
import json
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from r1ray.data.base import Unreadable
from r1ray.data.schemas import golds
from r1ray.reward.accuracy import answer_in
from r1ray.reward.math import verify
from r1ray.types import Message, Problem

ROWS = Path(__file__).with_name("fixtures") / "graded.jsonl"


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    id: str
    group: str
    row: dict[str, Any]
    right: float

    def __str__(self) -> str:
        return f"{self.id} [{self.group}] {self.row['gold']} | {self.row['completion']!r:.160} right {self.right:.0f}"


def maths_cases(path: Path = ROWS) -> list[Case]:
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    return [
        Case(id=row["id"], group=row["group"], row=row["row"], right=row["right"])
        for row in rows
        if row["row"].get("kind") == "math_answer"
    ]


def reward_of(case: Case) -> float:
    """r1ray's reward; 0 for a gold that is refused."""
    try:
        payload = golds(case.row["gold"])
    except Unreadable:
        return 0.0
    problem = Problem(
        id=case.id,
        source="rows",
        messages=(Message(role="user", content="?"),),
        prompt_ids_T=np.zeros(1, np.int32),
        verifier="math",
        payload=payload,
    )
    answer = answer_in(problem, case.row["completion"])
    return 0.0 if answer is None else verify(problem, answer).value or 0.0


def math_verify_reward(case: Case) -> float:
    """The reward of math-verify with its defaults, the completion after its thinking."""
    import math_verify as library

    untimed: Any = {"parsing_timeout": None}
    logging.disable(logging.CRITICAL)
    try:
        answer = library.parse(case.row["completion"].rpartition("</think>")[2], **untimed)
        parsed = [library.parse(f"\\boxed{{{gold}}}", **untimed) for gold in case.row["gold"]]
        return float(any(library.verify(gold, answer, timeout_seconds=None) for gold in parsed))
    finally:
        logging.disable(logging.NOTSET)


def wrong(cases: Sequence[Case]) -> list[Case]:
    return [case for case in cases if reward_of(case) != case.right]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--math-verify", action="store_true", help="count math-verify's rewards on the same rows")
    parser.add_argument("--rows", type=Path, default=ROWS)
    args = parser.parse_args()
    cases = maths_cases(args.rows)
    failed = wrong(cases)
    for case in failed:
        print(case)
    paid = sum(case.right == 0 for case in failed)
    print(f"r1ray: {len(cases) - len(failed)} of {len(cases)} right, {paid} wrong ones paid")
    if args.math_verify:
        theirs = [case for case in cases if math_verify_reward(case) != case.right]
        paid = sum(case.right == 0 for case in theirs)
        print(f"math-verify: {len(cases) - len(theirs)} of {len(cases)} right, {paid} wrong ones paid")
        for case in failed:
            if case not in theirs:
                print("only math-verify has it right:", case)


if __name__ == "__main__":
    main()

"""Problems of an earlier stage, mined from its rollouts by how many of their completions were right.

Open-Reasoner-Zero (arXiv 2503.24290) ends with 100 steps on the 13k problems of which fewer than 4 of 64 completions were correct.
Here, in a stage that comes after `rl`:

    data: {train: {hard: {source: mined, path: stages/rl/rollouts, args: {correct: [0, 3]}}}}

A problem counts by its newest group in that folder (log.rollouts_every_steps says of which steps there are groups; 1: of all), and
is judged as it was there: verifier, payload, accuracy and extract stand beside the first completion.
"""

import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from r1ray.config import RewardConfig
from r1ray.data.schemas import Item, Row, Unreadable, as_list
from r1ray.reward.accuracy import VERIFIERS
from r1ray.reward.answers import EXTRACTORS
from r1ray.run.rollouts import problem_of, rollout_steps


def mined_rows(path: str, *, correct: Sequence[int], sources: Sequence[str] | None = None) -> Iterator[dict[str, Any]]:
    """The first line of each problem's newest group, if so many of its completions were right, in the order in which they came.

    Args:
        path: a folder of rollouts files.
        correct: [fewest, most] right completions of the group.
        sources: only problems of these names of the stage's data.train; None: of all.

    Raises:
        ValueError: no such range, no rollouts there, or no problem in the range.
    """
    fewest, most = correct_range(correct)
    files = rollout_steps(Path(path).expanduser())
    if not files:
        raise ValueError(
            f"no stage wrote rollouts to {path}: log.rollouts_every_steps=1 in the stage whose problems are mined"
        )
    newest: dict[str, tuple[dict[str, Any], int]] = {}
    for file in files.values():
        try:
            groups = list(_groups(file))
        except (ValueError, KeyError, TypeError) as error:
            raise ValueError(f"{file} is no rollouts file of this version of r1ray ({error!r})") from error
        newest |= {
            asked["problem"]: (asked, right) for asked, right in groups if sources is None or asked["source"] in sources
        }
    found = [asked for asked, right in newest.values() if fewest <= right <= most]
    if not found:
        counts = Counter(right for _, right in newest.values())
        told = ", ".join(f"{right} right: {count}" for right, count in sorted(counts.items())) or "none"
        raise ValueError(
            f"none of the {len(newest)} problems in {path} has {fewest} to {most} right completions (problems by right completions: "
            f"{told}). Give another range in args.correct, or other args.sources"
        )
    yield from found


def correct_range(correct: Any) -> tuple[int, int]:
    """Raises ValueError when it is not [fewest, most]."""
    both = as_list(correct) or []
    if len(both) != 2 or not all(type(n) is int for n in both) or not 0 <= both[0] <= both[1]:
        raise ValueError(
            f"args.correct must be [fewest, most] right completions of a group, as in [0, 3], not {correct!r}"
        )
    return both[0], both[1]


def mined(row: Row) -> Item:
    """The problem of a group's first line. A file names no code to import, so what judges it must be r1ray's own."""
    try:
        problem = problem_of(row)
    except (KeyError, TypeError, ValueError) as error:
        raise Unreadable(f"what it says of its problem (asked) is not whole: {error}") from error
    if problem.verifier not in VERIFIERS or problem.extract not in (None, *EXTRACTORS):
        raise Unreadable(f"verifier {problem.verifier!r} or extract {problem.extract!r} is none of r1ray's own")
    return Item(
        messages=problem.messages,
        verifier=problem.verifier,
        payload=problem.payload,
        id=problem.id,
        language=problem.language,
        meta=problem.meta,
        accuracy=problem.accuracy,
        extract=problem.extract,
    )


def check_judged(accuracy: str, *, name: str, reward: RewardConfig) -> None:
    """Raises ValueError when the reward component that said of mined problems what is correct does not judge those of source
    `name`.
    """
    component = reward.components.get(accuracy)
    if component is None or (component.sources is not None and name not in component.sources):
        remedy = (
            f"add reward.components.{accuracy}"
            if component is None
            else f"add {name} to reward.components.{accuracy}.sources"
        )
        raise ValueError(
            f"source {name!r}: which completions to its problems are correct was said by the reward component {accuracy!r}, which does not "
            f"judge them here: {remedy}, or mine other args.sources"
        )


def _groups(file: Path) -> Iterator[tuple[dict[str, Any], int]]:
    """(first line, right completions) of every group that says of its completions whether they are right."""
    first: dict[str, Any] | None = None
    right: list[bool] = []
    with file.open(newline="\n") as lines:
        for line in lines:
            completion: Mapping[str, Any] = json.loads(line)
            if completion["index"] == 0:
                if first is not None and right:
                    yield first, sum(right)
                first, right = {key: completion[key] for key in ("problem", "source", "asked")}, []
            if completion["usable"] and completion["correct"] is not None:
                right.append(completion["correct"])
    if first is not None and right:
        yield first, sum(right)

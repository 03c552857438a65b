"""Problems of an earlier stage, selected from its rollouts by how many of their completions were correct.

Open-Reasoner-Zero (arXiv 2503.24290) ends with 100 steps on the 13k problems of which fewer than 4 of 64 completions were correct.
Here, in a stage that comes after `rl`:

    data: {train: {hard: {source: mined, path: stages/rl/rollouts, args: {correct: [0, 3]}}}}

Only the newest group of a problem in that folder counts (log.rollouts_every_steps decides which steps have groups; 1: all). Its
problem is scored as before: the first line of the group has verifier, payload, accuracy and extract.
"""

import json
import re
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import field_validator

from r1ray.config import RewardConfig, SourceConfig
from r1ray.config.tree import has, value_of
from r1ray.data.base import Item, Row, SourceArgs, Unreadable
from r1ray.data.columns import as_list, as_object
from r1ray.data.rollouts import problem_of, rollout_steps
from r1ray.mistakes import Finding, Mistake, did_you_mean
from r1ray.plugin import invalid

if TYPE_CHECKING:
    from r1ray.config.view import StageView

IN_RUN = re.compile(r"stages/([^/]+)/rollouts/?")


class MinedArgs(SourceArgs):
    correct: list[int]
    """[fewest, most] correct completions of the group."""
    sources: list[str] | None = None
    """Use only problems of these sources (keys of the earlier stage's data.train); null: of all sources."""

    @field_validator("correct", mode="before")
    @classmethod
    def _range(cls, given: Any) -> list[int]:
        both = as_list(given) or []
        if len(both) != 2 or not all(type(n) is int for n in both) or not 0 <= both[0] <= both[1]:
            rule = "must be [fewest, most] correct completions of a group"
            raise invalid("correct", rule, "correct=[0,3] for problems of which at most 3 completions were correct")
        return both

    def check(self, view: "StageView", key: str, owner: SourceConfig) -> Iterator[Finding]:
        """Will an earlier stage have written the rollouts, and can they hold such groups?"""
        yield from super().check(view, key, owner)
        where = key.removesuffix(".args")
        if not view.kind.reinforcement or where.startswith("eval."):
            rule = "mined problems are for training only, in a stage that trains on what it generates (kind rl)"
            yield Mistake(
                key=f"{where}.source", value=owner.source, rule=rule, remedy="move it to data.train of an rl stage"
            )
            return
        names = list(view.run.trees)
        kinds = view.run.kinds
        before = [name for name in names[: names.index(view.name)] if name in kinds and kinds[name].reinforcement]
        example = f"{where}.path=stages/{before[-1] if before else 'STAGE'}/rollouts"
        if owner.path is None:
            rule = "must name a folder of rollouts, relative to the run directory"
            yield Mistake(key=f"{where}.path", value=None, rule=rule, remedy=example)
            return
        folder = Path(view.run_dir).expanduser() / Path(owner.path).expanduser()
        found = IN_RUN.fullmatch(owner.path)
        if found is None or (found[1] not in names and folder.exists()):  # of another run, or of a removed stage
            try:
                next(mined_rows(str(folder), self))
            except (OSError, ValueError) as error:
                yield Mistake(key=f"{where}.path", value=owner.path, rule=str(error), remedy=example)
        elif found[1] not in before:
            rule = f"no stage of kind rl that is called {found[1]} comes before {view.name}"
            yield Mistake(key=f"{where}.path", value=owner.path, rule=rule, remedy=did_you_mean(found[1], before))
        else:
            yield from self._check_earlier(found[1], view, where)

    def _check_earlier(self, name: str, view: "StageView", where: str) -> Iterator[Mistake]:
        tree, log = view.run.trees[name], "log.rollouts_every_steps"
        if value_of(tree, log) == 0:
            log = f"stages.{name}.config.{log}" if has(view.run.stages[name].config, log) else log
            rule = f"stage {name} writes no rollouts, and stage {view.name} mines its problems from them"
            remedy = f"{log}=1 (every step: all its problems can be mined)"
            yield Mistake(key=log, value=0, rule=rule, remedy=remedy)
        size, key = value_of(tree, "algo.group_size"), f"{where}.args.correct"
        if isinstance(size, int) and self.correct[0] > size:
            rule = f"stage {name} has groups of {size} completions, so at most {size} can be correct"
            yield Mistake(key=key, value=self.correct, rule=rule, remedy=f"{key}=[0,{size // 4}]")
        known = as_object(value_of(tree, "data.train")) or {}
        for source in self.sources or ():
            if source not in known:
                rule, remedy = f"stage {name} has no such source", did_you_mean(source, known)
                yield Mistake(key=f"{where}.args.sources", value=self.sources, rule=rule, remedy=remedy)


def mined_rows(path: str, args: MinedArgs) -> Iterator[dict[str, Any]]:
    """The first line of each problem's newest group, if its number of correct completions is in range, in the order of the files.

    Raises:
        ValueError: the folder `path` holds no rollout files, or no problem is in the range.
    """
    (fewest, most), sources = args.correct, args.sources
    files = rollout_steps(Path(path).expanduser())
    if not files:
        raise ValueError(
            f"no stage wrote rollouts to {path}: set log.rollouts_every_steps=1 in the stage whose problems are mined"
        )
    newest: dict[str, tuple[dict[str, Any], int]] = {}
    for file in files.values():
        try:
            groups = list(_groups(file))
        except (ValueError, KeyError, TypeError) as error:
            raise ValueError(f"{file} is no rollouts file of this version of r1ray ({error!r})") from error
        newest |= {
            first["problem"]: (first, count) for first, count in groups if sources is None or first["source"] in sources
        }
    rows = [first for first, count in newest.values() if fewest <= count <= most]
    if not rows:
        counts = Counter(count for _, count in newest.values())
        by_count = ", ".join(f"{correct} correct: {count}" for correct, count in sorted(counts.items())) or "none"
        raise ValueError(
            f"none of the {len(newest)} problems in {path} has {fewest} to {most} correct completions (number of problems by "
            f"correct completions: {by_count}). Give another range in args.correct, or other args.sources"
        )
    yield from rows


def mined(row: Row, args: MinedArgs) -> Item:
    """The problem in a group's first line."""
    try:
        problem = problem_of(row)
    except ValueError as error:
        raise Unreadable(str(error)) from error
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


def check_accuracy_component(accuracy: str, *, name: str, reward: RewardConfig) -> None:
    """Raises ValueError when the component that decided which completions were correct does not score source `name` here."""
    component = reward.components.get(accuracy)
    if component is None or (component.sources is not None and name not in component.sources):
        key = f"reward.components.{accuracy}"
        remedy = f"add {key}" if component is None else f"add {name} to {key}.sources"
        raise ValueError(
            f"source {name!r}: the reward component {accuracy!r} decided which completions were correct, and it does not score "
            f"these problems in this stage: {remedy}, or mine other args.sources"
        )


def _groups(file: Path) -> Iterator[tuple[dict[str, Any], int]]:
    """(first line, number of correct completions) of every group with completions that were found correct or incorrect."""
    first: dict[str, Any] | None = None
    correct: list[bool] = []
    with file.open(newline="\n") as lines:
        for line in lines:
            completion: Mapping[str, Any] = json.loads(line)
            if completion["index"] == 0:
                if first is not None and correct:
                    yield first, sum(correct)
                first, correct = {key: completion[key] for key in ("problem", "source", "asked")}, []
            if completion["usable"] and completion["correct"] is not None:
                correct.append(completion["correct"])
    if first is not None and correct:
        yield first, sum(correct)

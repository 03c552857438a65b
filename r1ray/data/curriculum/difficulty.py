"""Difficulty that follows the model: from each source with levels, only problems of its current level are drawn.

A level is the `difficulty` (or `level`) of a problem's `meta`: people in knights and knaves, numbers in Countdown, "Level 3" in
MATH, or your own column. A source starts at its lowest level. Once `window` groups of the current level have been observed, their
mean solve rate decides: above `high` the level rises, below `low` it falls, to the next level of the source; then a new window
starts. Inside the band groups are mixed, which is where GRPO and similar algorithms learn most. Sources without levels are drawn
from as usual.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from statistics import fmean
from typing import TYPE_CHECKING, Any, Self

import numpy as np
from pydantic import model_validator

from r1ray.config import SourceConfig
from r1ray.config.base import Fraction, PositiveInt
from r1ray.data.curriculum.base import Curriculum
from r1ray.data.sources import load_source, needs_network, written_by_a_run
from r1ray.data.stream import ProblemStream
from r1ray.mistakes import NOT_CHECKED, Finding
from r1ray.plugin import Args, invalid
from r1ray.types import Group, Problem

if TYPE_CHECKING:
    from r1ray.config.view import StageView

HEAD = 64
"""Rows of a source that are checked: generators cycle through their levels."""


class DifficultyArgs(Args):
    low: Fraction = 0.3
    high: Fraction = 0.7
    """The band of the solve rate in which the level stays."""
    window: PositiveInt = 64
    """How many of the newest groups of a level are averaged to decide. A step may add several."""

    @model_validator(mode="after")
    def _band(self) -> Self:
        if self.low >= self.high:
            raise invalid(
                "low",
                f"must be below high={self.high:g}: between them the level stays",
                "for example low=0.3, high=0.7",
            )
        return self

    def check(self, view: "StageView", key: str, owner: Any) -> Iterator[Finding]:
        """The first problems of each source must have levels. Nothing is checked while a source is not on this disk."""
        train = view.data.train
        if later := [name for name, source in train.items() if needs_network(source) or written_by_a_run(source)]:
            yield f"{NOT_CHECKED}data.curriculum.name={owner.name} with the problems of {', '.join(later)}"
            return
        try:
            problems = {name: _first_problems(name, source) for name, source in train.items()}
        except (TypeError, ValueError):
            return  # reported by the check of datasets
        try:
            Difficulty(ProblemStream(problems, weights=dict.fromkeys(problems, 1.0), seed=0, shuffle=False), self)
        except ValueError as error:
            remedy = "correct data.curriculum.args or the data, or data.curriculum.name=none"
            yield view.mistake("data.curriculum", str(error), remedy)


class Difficulty(Curriculum):
    """Metrics: `curriculum/<source>/level`, of the next step's problems.

    Raises:
        ValueError: no source has two levels, or only some problems of one have a level.
    """

    name = "difficulty"
    Args = DifficultyArgs

    def __init__(self, stream: ProblemStream, args: DifficultyArgs) -> None:
        super().__init__(stream, args)
        self._low, self._high, self._window = args.low, args.high, args.window
        self._levels = {
            name: levels for name, problems in stream.sources.items() if (levels := _levels(name, problems))
        }
        if not any(len(levels) > 1 for levels in self._levels.values()):
            raise ValueError(
                f"no source of {', '.join(stream.sources)} has problems of two levels (there are: {self._levels or 'none'}). "
                "Knights and knaves have levels with args.num_people=[3,7], countdown with args.num_numbers=[2,4], your own rows "
                "with a column difficulty"
            )
        self.set_state({})

    def draw(self, number: int) -> tuple[Problem, int]:
        return self.skip(
            lambda problem: problem.source in self._current and level_of(problem) != self._current[problem.source]
        )

    def observe(self, groups: Sequence[Group]) -> dict[str, float]:
        for group in groups:
            source, rate = group.problem.source, group.solve_rate
            if rate is not None and source in self._current and level_of(group.problem) == self._current[source]:
                self._recent[source].append(rate)
        for source, levels in self._levels.items():
            self._recent[source] = recent = self._recent[source][-self._window :]
            if len(recent) < self._window:
                continue
            index = levels.index(self._current[source])
            moved = index + (fmean(recent) > self._high) - (fmean(recent) < self._low)
            if moved != index and 0 <= moved < len(levels):
                self._current[source] = levels[moved]
                self._recent[source] = []
        return {f"curriculum/{source}/level": level for source, level in self._current.items()}

    def get_state(self) -> dict[str, Any]:
        recent = {source: list(rates) for source, rates in self._recent.items()}
        return {"level": dict(self._current), "recent": recent}

    def set_state(self, state: Mapping[str, Any]) -> None:
        """Raises ValueError when a source no longer has its saved level."""
        self._current: dict[str, float] = {source: levels[0] for source, levels in self._levels.items()}
        self._current |= state.get("level", {})
        self._recent: dict[str, list[float]] = {source: [] for source in self._levels}
        self._recent |= {source: list(rates) for source, rates in state.get("recent", {}).items()}
        for source, level in self._current.items():
            if level not in self._levels.get(source, ()):
                raise ValueError(
                    f"the checkpoint was saved at level {level:g} of source {source!r}, which no longer has this level"
                )


def level_of(problem: Problem) -> float | None:
    """Examples: 3.0 for meta {"difficulty": 3} and for {"level": "Level 3"}; None for {"level": "hard"} and {}."""
    value = problem.meta.get("difficulty", problem.meta.get("level"))
    if isinstance(value, str):
        digits = re.findall(r"\d+(?:\.\d+)?", value)
        return float(digits[-1]) if digits else None
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else None


def _levels(name: str, problems: Sequence[Problem]) -> list[float]:
    """The levels of a source in ascending order; [] where it has none."""
    found = [level_of(problem) for problem in problems]
    known = sorted({level for level in found if level is not None})
    if known and None in found:
        raise ValueError(
            f"source {name!r}: {found.count(None)} of {len(found)} problems have no level (a number in meta difficulty or level)"
        )
    return known


def _first_problems(name: str, cfg: SourceConfig) -> list[Problem]:
    """As the curriculum sees them; they are not rendered."""
    return [
        Problem(
            id=str(item.id),
            source=name,
            messages=item.messages,
            prompt_ids_T=np.zeros(1, np.int32),
            verifier=item.verifier,
            payload=item.payload,
            meta=item.meta,
        )
        for item in load_source(name, cfg, head=HEAD).items
    ]

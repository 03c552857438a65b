"""SRPO's history resampling (arXiv 2504.14286): an epoch has the problems that the previous epoch did not solve.

Problems whose completions were all correct are left out of later epochs for good: they are not tried again, so nothing could bring
them back. Problems with mixed groups, which give a gradient, and with all-incorrect groups, which may give one later, stay. When
all problems of all sources have been left out, the stage ends with NothingToLearn.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from r1ray.data.curriculum.base import Curriculum
from r1ray.data.stream import NothingToLearn, ProblemStream
from r1ray.plugin import Args
from r1ray.types import Group, Problem


class History(Curriculum):
    """Metrics: `curriculum/left_out`, the number of problems that are not drawn again."""

    name = "history"

    def __init__(self, stream: ProblemStream, args: Args) -> None:
        super().__init__(stream, args)
        self._left_out: dict[str, None] = {}

    def draw(self, number: int) -> tuple[Problem, int]:
        if len(self._left_out) == len(self.problems):
            raise NothingToLearn(
                f"all {len(self.problems)} problems of data.train have been solved by every completion of a group, and "
                "data.curriculum.name=history leaves such problems out: nothing is left to learn from. The last complete step "
                "is saved; start a new run from its weights with harder problems, or with data.curriculum.name=easy_pool, which "
                "draws solved problems too"
            )
        # A problem comes once per epoch, so leaving it out now leaves it out of the next epochs.
        return self.skip(lambda problem: problem.id in self._left_out)

    def observe(self, groups: Sequence[Group]) -> dict[str, float]:
        self._left_out |= {group.problem.id: None for group in groups if group.solve_rate == 1}
        return {"curriculum/left_out": float(len(self._left_out))}

    def get_state(self) -> dict[str, Any]:
        return {"left_out": list(self._left_out)}

    def set_state(self, state: Mapping[str, Any]) -> None:
        self._left_out = dict.fromkeys(state.get("left_out", ()))

"""What the curricula share: a stream below, draws numbered without gaps, and a state that holds both."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar

from r1ray.data.stream import Drawn, ProblemStream, refuse_other
from r1ray.types import Group, Problem


class Curriculum(ABC):
    """`r1ray.data.stream.Problems` over a ProblemStream."""

    name: ClassVar[str]
    """In CURRICULA; a state of another one is refused."""

    def __init__(self, stream: ProblemStream) -> None:
        self.stream = stream
        self.problems = {problem.id: problem for problems in stream.sources.values() for problem in problems}
        self._draws = 0

    @abstractmethod
    def draw(self, number: int) -> tuple[Problem, int]:
        """(problem, epoch) of draw `number`; `passing_over` for those of the stream."""

    @abstractmethod
    def observe(self, groups: Sequence[Group]) -> dict[str, float]: ...

    @abstractmethod
    def memory(self) -> dict[str, Any]:
        """All that later draws depend on, copied, JSON-able."""

    @abstractmethod
    def remember(self, memory: Mapping[str, Any]) -> None:
        """`memory` undone; {} is the beginning."""

    def next(self) -> Drawn:
        problem, epoch = self.draw(self._draws)
        self._draws += 1
        return Drawn(problem, epoch, self._draws - 1)

    def passing_over(self, unwanted: Callable[[Problem], bool]) -> tuple[Problem, int]:
        """The stream's next problem that is not unwanted; the others have had their turn in this epoch. One must be left."""
        while True:
            problem, epoch, _ = self.stream.next()
            if not unwanted(problem):
                return problem, epoch

    def state_dict(self) -> dict[str, Any]:
        """Example: `{"curriculum": "history", "draws": 7, "stream": {...}, "memory": {"left_out": ["countdown/2-3-5=11"]}}`."""
        stream = self.stream.state_dict()
        return {"curriculum": self.name, "draws": self._draws, "stream": stream, "memory": self.memory()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Raises ValueError when the state is of another curriculum or of other problems."""
        if state:
            refuse_other(state, present=self.name)
        self.stream.load_state_dict(state.get("stream", {}))
        self._draws = state.get("draws", 0)
        self.remember(state.get("memory", {}))


def check_share(name: str, value: Any) -> None:
    """Raises ValueError when an argument is no number from 0 to 1."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= 1:
        raise ValueError(f"{name} must be a number from 0 to 1, not {value!r}")

"""What the curricula share: the stream they draw from, draws numbered without gaps, and a state that holds both."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar

from r1ray.data.stream import Drawn, ProblemStream, check_same_curriculum
from r1ray.plugin import Args
from r1ray.types import Group, Problem


class Curriculum(ABC):
    """`r1ray.data.stream.Problems` over a ProblemStream."""

    name: ClassVar[str]
    """Its key in CURRICULA; the state of another curriculum is refused."""

    def __init__(self, stream: ProblemStream, args: Args) -> None:
        self.stream = stream
        self.problems = {problem.id: problem for problems in stream.sources.values() for problem in problems}
        self._draws = 0

    @abstractmethod
    def draw(self, number: int) -> tuple[Problem, int]:
        """(problem, epoch) of draw `number`; for problems of the stream it calls `skip`."""

    @abstractmethod
    def observe(self, groups: Sequence[Group]) -> dict[str, float]: ...

    @abstractmethod
    def get_state(self) -> dict[str, Any]:
        """Everything that later draws depend on, as a copy that JSON can hold."""

    @abstractmethod
    def set_state(self, state: Mapping[str, Any]) -> None:
        """Restore what `get_state` returned; {} is the initial state."""

    def next(self) -> Drawn:
        problem, epoch = self.draw(self._draws)
        self._draws += 1
        return Drawn(problem, epoch, self._draws - 1)

    def skip(self, unwanted: Callable[[Problem], bool]) -> tuple[Problem, int]:
        """The stream's next problem that is not unwanted; skipped ones come again in the next epoch. One must be left."""
        while True:
            problem, epoch, _ = self.stream.next()
            if not unwanted(problem):
                return problem, epoch

    def state_dict(self) -> dict[str, Any]:
        """Example: `{"curriculum": "history", "draws": 7, "stream": {...}, "memory": {"left_out": ["countdown/2-3-5=11"]}}`."""
        stream = self.stream.state_dict()
        return {"curriculum": self.name, "draws": self._draws, "stream": stream, "memory": self.get_state()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Raises ValueError when the state is of another curriculum or of other problems."""
        if state:
            check_same_curriculum(state, present=self.name)
        self.stream.load_state_dict(state.get("stream", {}))
        self._draws = state.get("draws", 0)
        self.set_state(state.get("memory", {}))

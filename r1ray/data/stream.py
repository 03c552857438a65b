"""An endless, deterministic stream of problems from a weighted mixture of sources, with a state of a few integers.

Every draw picks a source by weight and takes the next problem of that source's current epoch, so no problem comes twice within an
epoch of its source. Both choices are functions of the seed and of counters: a stream that was saved and loaded continues exactly
like one that was never interrupted.
"""

import zlib
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from r1ray.types import Group, Problem

NO_CURRICULUM = "none"
"""The name of no curriculum: problems come from the stream directly, whose saved state has no key `curriculum`."""


class NothingToLearn(RuntimeError):
    """No problem is left from which the model could learn. The last complete step is saved."""


class Drawn(NamedTuple):
    """One draw of a stream."""

    problem: Problem
    epoch: int
    """Epoch of the problem's source. A draw from a curriculum's pool gets a negative number instead: -1, -2, .... Seeds depend on
    the epoch, so no problem may have the same one twice."""
    number: int
    """0 for the first draw, then 1, 2, ... without gaps."""


class Problems(Protocol):
    """What the collector draws from: a ProblemStream, or a curriculum that draws from one (`r1ray.data.curriculum`)."""

    def next(self) -> Drawn:
        """Raises NothingToLearn when there is no problem left."""
        ...

    def observe(self, groups: Sequence[Group]) -> dict[str, float]:
        """Called once per step with all groups generated in it, before the next draw; returns metrics `curriculum/...`."""
        ...

    def state_dict(self) -> dict[str, Any]:
        """A copy that JSON can hold; later draws and observations do not change it."""
        ...

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue exactly where `state` was saved; {} is the initial state."""
        ...


class ProblemStream:
    """Endless, and independent of what the model does with the problems."""

    def __init__(
        self, sources: Mapping[str, Sequence[Problem]], *, weights: Mapping[str, float], seed: int, shuffle: bool
    ) -> None:
        for name, problems in sources.items():
            if not problems:
                raise ValueError(f"source {name!r} has no problems")
        self._sources = dict(sources)
        self.seed = seed
        shares = np.array([weights[name] for name in self._sources], np.float64)
        self._bounds = np.cumsum(shares / shares.sum())
        self._shuffle = shuffle
        self._draws = 0
        self._taken = dict.fromkeys(self._sources, 0)
        self._orders: dict[str, tuple[int, NDArray[np.int64]]] = {}

    def next(self) -> Drawn:
        point = np.random.default_rng((self.seed, self._draws)).random()
        name = list(self._sources)[min(int(np.searchsorted(self._bounds, point, side="right")), len(self._sources) - 1)]
        problems = self._sources[name]
        epoch, position = divmod(self._taken[name], len(problems))
        self._draws += 1
        self._taken[name] += 1
        return Drawn(problems[int(self._order(name, epoch)[position])], epoch, self._draws - 1)

    @property
    def sources(self) -> Mapping[str, Sequence[Problem]]:
        return self._sources

    def observe(self, groups: Sequence[Group]) -> dict[str, float]:
        return {}

    def state_dict(self) -> dict[str, Any]:
        """Example: `{"draws": 7, "sources": {"countdown": {"epoch": 0, "position": 7, "size": 20000}}}`."""
        sources: dict[str, Any] = {}
        for name, problems in self._sources.items():
            epoch, position = divmod(self._taken[name], len(problems))
            sources[name] = {"epoch": epoch, "position": position, "size": len(problems)}
        return {"draws": self._draws, "sources": sources}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue where `state` was saved; {} is the initial state.

        Raises:
            ValueError: the sources differ from those of the state (another name, or another number of problems).
        """
        if not state:
            self._draws, self._taken = 0, dict.fromkeys(self._sources, 0)
            return
        check_same_curriculum(state, present=NO_CURRICULUM)
        present = {name: len(problems) for name, problems in self._sources.items()}
        saved = {name: source["size"] for name, source in state["sources"].items()}
        if present != saved:
            raise ValueError(
                f"the checkpoint was saved with these training problems: {saved}; now they are {present}. Keep data, "
                "model.template and data.max_prompt_length as they were, or start a new run from the checkpoint's weights"
            )
        self._draws = state["draws"]
        self._taken = {name: s["epoch"] * s["size"] + s["position"] for name, s in state["sources"].items()}

    def _order(self, name: str, epoch: int) -> NDArray[np.int64]:
        """The order of a source in one epoch; cached until the next epoch."""
        known, order = self._orders.get(name, (-1, np.empty(0, np.int64)))
        if known != epoch:
            size = len(self._sources[name])
            # The seed contains the name and the epoch, so that no two sources or epochs share an order.
            rng = np.random.default_rng((self.seed, zlib.crc32(name.encode()), epoch))
            order = rng.permutation(size) if self._shuffle else np.arange(size)
            self._orders[name] = (epoch, order)
        return order


def check_same_curriculum(state: Mapping[str, Any], *, present: str) -> None:
    """Raise ValueError when `state` was saved by another curriculum than `present`."""
    saved = state.get("curriculum", NO_CURRICULUM)
    if saved != present:
        raise ValueError(
            f"the checkpoint was saved with data.curriculum.name={saved} and cannot be resumed with {present}: keep it, or start a "
            "new run from the checkpoint's weights"
        )

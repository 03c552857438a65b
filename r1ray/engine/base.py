"""What a rollout engine is: requests are added and finish independently; weights are replaced in place.

The rollout actor (`r1ray.actors.rollout`) owns one engine and is its only caller, from one thread: nothing here needs a lock.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from r1ray.types import Completion, Floats, Ints


@dataclass(frozen=True, slots=True, kw_only=True)
class SamplingSpec:
    """How to sample. Training uses top_p 1 and top_k -1: the trainer knows no sampling mask."""

    temperature: float
    max_tokens: int
    top_p: float = 1.0
    top_k: int = -1
    stop: tuple[str, ...] = ()
    """Texts that end a completion, besides the model's EOS. They are looked for in the text of its tokens and stay in it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """One completion to produce. `id` is unique among the running; `seed` alone decides the sample."""

    id: str
    prompt_ids_T: Ints
    seed: int
    sampling: SamplingSpec


class EngineBroken(RuntimeError):
    """The engine's weights are neither the old nor the new ones: it cannot serve any more and must be replaced."""


class EngineAsleep(RuntimeError):
    """It was asked for something that only an engine that is awake can do."""


class EngineFailed(RuntimeError):
    """The engine of rollout worker `index` has ended, in a worker that goes on: every call that waits, and every later one, fails
    with this. (The index, because Ray does not say whose call it was that failed.)"""

    def __init__(self, index: int, reason: str) -> None:
        super().__init__(index, reason)
        self.index, self.reason = index, reason

    def __str__(self) -> str:
        return f"engine failed: {self.reason}"


class RolloutEngine(Protocol):
    """Implemented by `r1ray.engine.vllm.VllmEngine`."""

    def add(self, request: Request) -> None:
        """Queue a request; it may start with the next `step`."""
        ...

    def step(self) -> list[tuple[str, Completion]]:
        """Advance all running requests by about one token; return (request id, completion) of those that finished."""
        ...

    @property
    def num_unfinished(self) -> int: ...

    def abort(self, request_ids: Sequence[str]) -> None:
        """Forget these requests; unknown ids are ignored."""
        ...

    def score(self, sequences: Sequence[Ints]) -> list[Floats]:
        """Log-probabilities (temperature 1) of given sequences, entry 0 is 0.0. Used by the sync's canaries; running
        requests advance meanwhile."""
        ...

    # Weight replacement. The four phases and their dict arguments are vLLM 0.32's own (VLLMWeightSyncClient).
    def init_weight_transfer(self, init_info: dict[str, object]) -> None: ...

    def update_weights(self, update_info: dict[str, object], *, version: int) -> None:
        """Receive whole into host memory, then load, re-pack and clear the prefix cache. Requests that are still running go on
        with the new weights; their completions carry one version span per weight version. If the transfer fails the old
        weights stay served and another `init_weight_transfer` + `update_weights` may follow. An engine that sleeps wakes: the
        weights before new ones come, the cache after that."""
        ...

    def sleep(self) -> None:
        """Give the device's memory to others until `wake` or `update_weights`; nothing may be running. Weights are kept in host
        memory. A request or a score that comes meanwhile is an error: it would wait for ever."""
        ...

    def wake(self) -> None:
        """Serve again what was served before; nothing to do where it does not sleep. EngineBroken when the memory is not there."""
        ...

    @property
    def version(self) -> int:
        """The weights' version; -1 before the first update (the weights that the model folder held)."""
        ...

    def shutdown(self) -> None: ...

"""The interface of a rollout engine: requests are added and finish independently; weights are replaced in place.

The rollout worker (`r1ray.actors.rollout`) owns one engine and calls it from one thread, so an engine needs no locks.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from r1ray.types import Completion, Floats, Ints


@dataclass(frozen=True, slots=True, kw_only=True)
class SamplingSpec:
    """How to sample. Training uses top_p 1 and top_k -1: the trainer has no sampling mask."""

    temperature: float
    max_tokens: int
    top_p: float = 1.0
    top_k: int = -1
    stop: tuple[str, ...] = ()
    """Texts that end a completion, in addition to the model's EOS. They are matched in the decoded text and stay in it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """One completion to generate. `id` is unique among the running requests; the sample depends on `seed` alone."""

    id: str
    prompt_ids_T: Ints
    seed: int
    sampling: SamplingSpec


class EngineBroken(RuntimeError):
    """The engine cannot serve any more (its weights may be partly old and partly new) and must be replaced."""


class EngineAsleep(RuntimeError):
    """The engine got a call that only an engine that is awake can serve."""


class EngineFailed(RuntimeError):
    """The engine of rollout worker `index` has ended, but the worker's process is alive: all waiting and later calls raise this.
    (`index` is included because Ray does not report in which worker a call failed.)"""

    def __init__(self, index: int, reason: str) -> None:
        super().__init__(index, reason)
        self.index, self.reason = index, reason

    def __str__(self) -> str:
        return f"engine failed: {self.reason}"


class RolloutEngine(Protocol):
    """Implemented by `r1ray.engine.vllm.VllmEngine`."""

    def add(self, request: Request) -> None:
        """Queue a request, which may start with the next `step`."""
        ...

    def step(self) -> list[tuple[str, Completion]]:
        """Advance all running requests by about one token. Returns (request id, completion) of those that finished."""
        ...

    @property
    def num_unfinished(self) -> int: ...

    def abort(self, request_ids: Sequence[str]) -> None:
        """Drop these requests; unknown ids are ignored."""
        ...

    def logprobs_of(self, sequences: Sequence[Ints]) -> list[Floats]:
        """Log-probs (temperature 1) of given sequences; entry 0 is 0.0. Running requests advance meanwhile.

        With these the weight sync compares engine and trainer on a few fixed tokens (`r1ray.sync.canary`).
        """
        ...

    # Weight replacement. The four phases and their dict arguments are vLLM 0.32's own (VLLMWeightSyncClient).
    def init_weight_transfer(self, init_info: dict[str, object]) -> None: ...

    def update_weights(self, update_info: dict[str, object], *, version: int) -> None:
        """Receive all weights into host memory, then load and re-pack them and clear the prefix cache. Running requests continue
        with the new weights; their completions have one version span per weight version. After a failed transfer the engine serves
        the old weights, and `init_weight_transfer` + `update_weights` may be called again. A sleeping engine wakes: it
        allocates its weights before the new ones arrive, and its KV cache afterwards.
        """
        ...

    def sleep(self) -> None:
        """Free the device's memory until `wake` or `update_weights`; no request may be running. Weights are kept in host memory.
        Meanwhile a request or a score raises EngineAsleep, because it would wait forever."""
        ...

    def wake(self) -> None:
        """Return to serving, with the weights from before the sleep; does nothing when awake. Raises EngineBroken when the
        device has too little free memory."""
        ...

    @property
    def version(self) -> int:
        """The version of the weights; -1 before the first update, when they are those of the model folder."""
        ...

    def shutdown(self) -> None: ...

"""An engine without a model, for tests of its callers: completions depend on the seed alone."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from r1ray.config import Config
from r1ray.engine.base import EngineAsleep, Request
from r1ray.types import Completion, FinishReason, Floats, Ints, VersionSpan


@dataclass(slots=True)
class _Running:
    request: Request
    response_T: Ints
    """The whole completion; `step` returns it token by token."""
    finish_reason: FinishReason
    starts: list[tuple[int, int]] = field(default_factory=list)
    """(weight version, first token sampled from it)."""
    num_done: int = 0


class FakeEngine:
    """Tokens and lengths are functions of the request's seed; log-probs are those of a uniform distribution.

    A completion has 1 to `mean_length * 2 - 1` tokens, the last is `eos_id`; a longer one than max_tokens is cut and finishes by
    length. Its text is the numbers of its tokens, in which stop texts are matched. Implements `r1ray.engine.base.RolloutEngine`.
    """

    def __init__(self, *, vocab_size: int = 64, eos_id: int = 1, mean_length: int = 8) -> None:
        self.vocab_size = vocab_size
        self.eos_id = eos_id
        self.mean_length = mean_length
        self.version = -1
        self.asleep = False
        self._running: dict[str, _Running] = {}

    @classmethod
    def from_config(cls, model_path: str, *, cfg: Config) -> "FakeEngine":
        return cls()

    def add(self, request: Request) -> None:
        self._raise_if_asleep()
        if request.id in self._running:
            raise ValueError(f"request {request.id} is already running")
        rng = np.random.default_rng(request.seed)
        length = int(rng.integers(1, self.mean_length * 2))
        response_T = rng.integers(self.eos_id + 1, self.vocab_size, size=length).astype(np.int32)
        response_T[-1] = self.eos_id
        length = min(length, _stopped_at(response_T[:-1], request.sampling.stop))
        finish_reason: FinishReason = "stop" if length <= request.sampling.max_tokens else "length"
        self._running[request.id] = _Running(
            request, response_T[: min(length, request.sampling.max_tokens)], finish_reason
        )

    def step(self) -> list[tuple[str, Completion]]:
        done = []
        for run in list(self._running.values()):
            if not run.starts or run.starts[-1][0] != self.version:
                run.starts.append((self.version, run.num_done))
            run.num_done += 1
            if run.num_done == len(run.response_T):
                del self._running[run.request.id]
                done.append((run.request.id, self._completion(run)))
        return done

    @property
    def num_unfinished(self) -> int:
        return len(self._running)

    def abort(self, request_ids: Sequence[str]) -> None:
        for request_id in request_ids:
            self._running.pop(request_id, None)

    def logprobs_of(self, sequences: Sequence[Ints]) -> list[Floats]:
        self._raise_if_asleep()
        logprob = -np.log(self.vocab_size)
        return [np.array([0.0] + [logprob] * (len(sequence) - 1), np.float32) for sequence in sequences]

    def init_weight_transfer(self, init_info: dict[str, object]) -> None:
        """Nothing to connect: there are no weights."""

    def update_weights(self, update_info: dict[str, object], *, version: int) -> None:
        self.wake()
        self.version = version

    def sleep(self) -> None:
        assert not self._running, "requests are running"
        self.asleep = True

    def wake(self) -> None:
        self.asleep = False

    def shutdown(self) -> None:
        self._running.clear()

    def _raise_if_asleep(self) -> None:
        if self.asleep:
            raise EngineAsleep("the engine sleeps")

    def _completion(self, run: _Running) -> Completion:
        response_T = run.response_T
        ends = [start for _, start in run.starts[1:]] + [len(response_T)]
        text_T = response_T[:-1] if response_T[-1] == self.eos_id else response_T
        return Completion(
            token_ids_T=response_T,
            rollout_logprobs_T=np.full(len(response_T), -np.log(self.vocab_size), np.float32),
            temperature=run.request.sampling.temperature,
            text=_text(text_T),
            finish_reason=run.finish_reason,
            versions=tuple(
                VersionSpan(version=version, start=start, end=end)
                for (version, start), end in zip(run.starts, ends, strict=True)
            ),
        )


def _text(tokens_T: Ints) -> str:
    return " ".join(str(token) for token in tokens_T)


def _stopped_at(tokens_T: Ints, stop: Sequence[str]) -> int:
    """After how many tokens a stop text is complete; one more than there are when it never is."""
    ends = range(1, len(tokens_T) + 1)
    return next((end for end in ends if any(text in _text(tokens_T[:end]) for text in stop)), len(tokens_T) + 1)

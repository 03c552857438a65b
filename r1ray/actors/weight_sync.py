"""One sync, seen from the driver: connect if need be, send and receive at the same time, then attest every engine.

    trainer rank 0   listen -> connect ------> send buckets ... (version, checksum) -> score the canaries
    engine i                   connect ------> receive, verify, load                -> score the canaries

Every wait has an end and names who is late. After any failure the communicator is thrown away and the next `push` builds a new
incarnation with a new tag; engines whose transfer failed go on serving their old weights until then.
"""

import math
import time
import uuid
from collections.abc import Callable, Collection, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from r1ray.actors.group import ActorGroup, settle
from r1ray.config import Config
from r1ray.failures import WorkerUnresponsive
from r1ray.sync import layout
from r1ray.sync.backend import backend_of
from r1ray.sync.canary import canary_gap, canary_sequences, gap_limit
from r1ray.sync.layout import Backend, Rendezvous
from r1ray.types import Floats

Scores = list[Floats]
MIN_TIMEOUT_S = 5.0
SLOW_LINK_BYTES_PER_S = 100e6
START_SKEW_S = 2.0
"""Ranks enter a transfer when their engines have finished their steps, on a machine that others use too."""
ATTEMPTS = 3
GRACE_S = 5.0
"""The driver waits this much longer than the group, so that workers report their own errors first."""


class SyncFailed(RuntimeError):
    """The new weights did not arrive everywhere, or an engine does not compute with them; the message names who and why."""

    def __init__(self, message: str, *, unresponsive: Collection[str] = ()) -> None:
        super().__init__(message)
        self.unresponsive = frozenset(unresponsive)
        """Workers that did not answer in time, though their processes may be well."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Announced:
    """What the trainer says it will send, in its order, in the serving dtype."""

    names: list[str]
    shapes: list[list[int]]
    itemsize: int

    @property
    def num_bytes(self) -> int:
        return sum(math.prod(shape) for shape in self.shapes) * self.itemsize

    def timeout_s(self, *, limit_s: float) -> float:
        """Ten times what a transfer should take, so that a dead peer costs little; never more than the configured limit."""
        expected_s = START_SKEW_S + self.num_bytes / SLOW_LINK_BYTES_PER_S
        return min(limit_s, max(MIN_TIMEOUT_S, 10 * expected_s))


class WeightSync:
    """Pushes the policy's weights to every rollout engine. Fulfils `r1ray.loop.Sync`.

    `trainers` are `TrainerWorker`s in rank order, `rollouts` are `RolloutWorker`s; both may have been replaced between two pushes.
    """

    def __init__(self, trainers: ActorGroup, rollouts: ActorGroup, *, cfg: Config, vocab_size: int) -> None:
        self._trainers, self._rollouts, self._cfg = trainers, rollouts, cfg
        self._limit = gap_limit(cfg)
        self._canaries = canary_sequences(
            vocab_size=vocab_size,
            seed=cfg.seed,
            max_length=cfg.data.max_prompt_length + cfg.rollout.max_response_length - 1,
        )
        self._backend: Backend = backend_of(
            device=cfg.device, sync=cfg.sync, rollout=cfg.rollout, trainer=cfg.trainer, cluster=cfg.cluster
        )
        self._weights: Announced | None = None
        self._version = 0
        self.on_failure: Callable[[SyncFailed], None] = lambda error: None  # noqa: ARG005
        """Called before a failed transfer is tried again: replaces engines that are lost, raises when a trainer is."""
        self._connected: list[Any] = []
        """The actors of the present incarnation."""

    def push(self, version: int) -> dict[str, float]:
        """Returns when all engines serve `version` and agree with the trainer. When a transfer fails, engines that have died are
        replaced and it is tried again, ATTEMPTS times in all. Raises SyncFailed, and what `mend` raises.

        Metrics: time/sync (seconds), sync/bytes, sync/canary_gap (largest over engines).
        """
        started = time.perf_counter()
        self._version = version
        for attempt in range(1, ATTEMPTS + 1):
            try:
                weights = self._weights = self._weights or self._announced()
                gap = self._push(weights)
                break
            except SyncFailed as error:
                if attempt == ATTEMPTS:
                    raise
                self.on_failure(error)
        return {
            "time/sync": time.perf_counter() - started,
            "sync/bytes": float(weights.num_bytes),
            "sync/canary_gap": gap,
        }

    def push_current(self) -> None:
        """Push the version of the last push, for an engine that has been replaced since."""
        self.push(self._version)

    def _push(self, weights: Announced) -> float:
        actors = [*self._trainers.handles, *self._rollouts.handles]
        try:
            if actors != self._connected:
                self._connect(weights)
                self._connected = actors
            ours, engines = self._transfer(weights, version=self._version)
        except SyncFailed:
            self._connected = []
            raise
        return self._attested(ours, engines)

    def _announced(self) -> Announced:
        calls = _calls(self._trainers, "weight_metadata")
        metadata = _settled(calls, what="list its weights", timeout_s=self._cfg.trainer.timeout_s)[0]
        return Announced(
            names=[name for name, _, _ in metadata],
            shapes=[list(shape) for _, _, shape in metadata],
            itemsize=4 if self._cfg.rollout.dtype == "float32" else 2,
        )

    def _connect(self, weights: Announced) -> None:
        """A new incarnation: the sender opens a store on a free port, then all ranks meet there under a tag nobody has used.

        Engines have to say that they are there first: who waits at the rendezvous point cannot be told that somebody will not come.
        """
        timeout_s = weights.timeout_s(limit_s=self._cfg.sync.timeout_s)
        pings = _calls(self._rollouts, "ping")
        _settled(pings, what="answer before it meets the trainer", timeout_s=self._cfg.sync.timeout_s + GRACE_S)
        sender = self._trainers.handles[layout.SENDER_RANK]
        name = self._trainers.name(layout.SENDER_RANK)
        opened = {name: sender.open_transfer.remote(timeout_s=timeout_s)}
        host, port = _settled(opened, what="open a port for the engines", timeout_s=timeout_s + GRACE_S)[0]
        workers = layout.workers_per_engine(tensor_parallel_size=self._cfg.rollout.tensor_parallel_size)
        rendezvous = Rendezvous(
            backend=self._backend,
            host=host,
            port=port,
            tag=uuid.uuid4().hex,
            world_size=layout.world_size(len(self._rollouts), workers=workers),
            timeout_s=timeout_s,
        )
        calls = {name: sender.connect_transfer.remote(rendezvous)}
        for index, handle in enumerate(self._rollouts.handles):
            info = asdict(rendezvous) | {"rank_offset": layout.rank_offset(index, workers=workers)}
            calls[self._rollouts.name(index)] = handle.init_weight_transfer.remote(info)
        _settled(calls, what="connect trainer and engines", timeout_s=timeout_s + GRACE_S)

    def _transfer(self, weights: Announced, *, version: int) -> tuple[Scores, list[Scores]]:
        """Log-probs of the canary tokens by the trainer and by every engine.

        The trainer is asked for them together with the transfer and scores while engines load. Engines are asked afterwards: behind
        the requests that run in them they may take long, which must not look like a transfer that hangs.
        """
        bucket_bytes = int(self._cfg.sync.bucket_mb * 2**20)
        dtype_name = self._cfg.rollout.dtype
        info = {
            "names": weights.names,
            "shapes": weights.shapes,
            "dtype_name": dtype_name,
            "bucket_bytes": bucket_bytes,
        }
        calls = _calls(
            self._trainers, "send_weights", version=version, dtype_name=dtype_name, bucket_bytes=bucket_bytes
        )
        calls |= _calls(self._rollouts, "update_weights", info, version=version)
        scores = _calls(self._trainers, "score", self._canaries)
        # Bounded per bucket by the group's own timeout; this is for a worker that hangs outside of it.
        timeout_s = self._cfg.sync.timeout_s + GRACE_S
        try:
            _settled(calls, what=f"transfer weights of version {version}", timeout_s=timeout_s)
        except SyncFailed:
            settle(scores, what="score the canary tokens", timeout_s=GRACE_S)  # a retry should not queue up behind them
            raise
        scores |= _calls(self._rollouts, "score", self._canaries)
        found = _settled(scores, what="score the canary tokens", timeout_s=self._cfg.trainer.timeout_s)
        return found[layout.SENDER_RANK], found[len(self._trainers) :]

    def _attested(self, ours: Scores, engines: Sequence[Scores]) -> float:
        gaps = [canary_gap(ours, theirs, of=self._limit.of) for theirs in engines]
        wrong = [
            f"{self._rollouts.name(index)} differs by {gap:.3g}"
            for index, gap in enumerate(gaps)
            if gap > self._limit.limit
        ]
        if wrong:
            raise SyncFailed(
                f"log-probs of the canary tokens: {', '.join(wrong)} from the trainer's, the limit is {self._limit.limit:g}; "
                "the engine does not compute with the weights that were sent"
            )
        return max(gaps)


def _calls(group: ActorGroup, method: str, *args: Any, **kwargs: Any) -> dict[str, Any]:
    """{worker name: reference} of one call on every worker of a group."""
    return {
        group.name(index): getattr(handle, method).remote(*args, **kwargs) for index, handle in enumerate(group.handles)
    }


def _settled(calls: dict[str, Any], *, what: str, timeout_s: float) -> list[Any]:
    """All results, or SyncFailed with everything that went wrong."""
    results, failed = settle(calls, what=what, timeout_s=timeout_s)
    if failed:
        unresponsive = [name for name, error in failed.items() if isinstance(error, WorkerUnresponsive)]
        raise SyncFailed("; ".join(map(str, failed.values())), unresponsive=unresponsive)
    return list(results.values())

"""The weight sync, run by the driver: connect if necessary, send and receive at the same time, then verify every engine.

    trainer rank 0   listen -> connect ------> send buckets ... (version, checksum) -> score the canaries
    engine i                   connect ------> receive, verify, load                -> score the canaries

Every wait has a timeout and an error with the names of the workers that did not answer. After any failure the communicator is
dropped, and the next push builds a new one with a new tag. Engines whose transfer failed serve their old weights until then.
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
from r1ray.sync.canary import broken_logprobs, canary_gap, canary_sequences, gap_limit
from r1ray.sync.layout import Backend, Rendezvous
from r1ray.types import Floats

Scores = list[Floats]
MIN_TIMEOUT_S = 5.0
SLOW_LINK_BYTES_PER_S = 100e6
START_SKEW_S = 2.0
"""How far apart ranks may enter a transfer: an engine first finishes its step, which takes longer on a busy machine."""
ATTEMPTS = 3
GRACE_S = 5.0
"""The driver waits this much longer than the workers, so that they report their own errors first."""


class SyncFailed(RuntimeError):
    """The new weights did not reach every engine, or an engine does not compute with them. The message names the worker and why."""

    def __init__(self, message: str, *, unresponsive: Collection[str] = ()) -> None:
        super().__init__(message)
        self.unresponsive = frozenset(unresponsive)
        """Workers that did not answer in time; their processes may still be healthy."""


@dataclass(frozen=True, slots=True, kw_only=True)
class WeightManifest:
    """The weights that the trainer will send, in its order, in the engines' dtype."""

    names: list[str]
    shapes: list[list[int]]
    itemsize: int

    @property
    def num_bytes(self) -> int:
        return sum(math.prod(shape) for shape in self.shapes) * self.itemsize

    def timeout_s(self, *, limit_s: float) -> float:
        """Ten times what a transfer should take, so that a dead peer costs little time; never more than the configured limit."""
        expected_s = START_SKEW_S + self.num_bytes / SLOW_LINK_BYTES_PER_S
        return min(limit_s, max(MIN_TIMEOUT_S, 10 * expected_s))


class Diverged(RuntimeError):
    """The weights to be sent compute no usable log-probs."""


def diverged(found: str, *, cfg: Config, version: int) -> str:
    """The message when the trainer's log-probs of the canary tokens are `found`."""
    if version == 0:
        return (
            f"the weights of the model from which this stage starts are damaged: its log-probs of fixed tokens are {found}. "
            "Check the files of model.path, or of the stage before"
        )
    return (
        f"training has diverged: after update {version} the policy's log-probs of fixed tokens are {found}, so its weights are "
        f"useless. Lower trainer.lr={cfg.trainer.lr:g} (papers use 1e-6 to 5e-6 for large models), or set "
        f"trainer.warmup_updates and trainer.grad_clip (now {cfg.trainer.grad_clip:g}). "
        "resume=auto goes on from the last checkpoint"
    )


class WeightSync:
    """Pushes the policy's weights to every rollout engine. Implements `r1ray.loop.Sync`.

    Args:
        trainers: `TrainerWorker`s in rank order; may be replaced between two pushes, as `rollouts` may.
        rollouts: `RolloutWorker`s.
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
        self._weights: WeightManifest | None = None
        self._version = 0
        self.on_failure: Callable[[SyncFailed], None] = lambda error: None  # noqa: ARG005
        """Called before a failed transfer is retried: replaces lost engines, raises TrainersLost when a trainer is lost."""
        self._connected: list[Any] = []
        """The actors that the current communicator connects; [] when there is none."""

    def push(self, version: int) -> dict[str, float]:
        """Returns when all engines serve `version` and agree with the trainer. A failed transfer is retried after `on_failure`,
        ATTEMPTS times in all. Raises SyncFailed, and what `on_failure` raises.

        Metrics: time/sync (seconds), sync/bytes, sync/canary_gap (largest over engines).
        """
        started = time.perf_counter()
        self._version = version
        for attempt in range(1, ATTEMPTS + 1):
            try:
                weights = self._weights = self._weights or self._weight_manifest()
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
        """Repeat the last push with the same version, for an engine that was replaced after it."""
        self.push(self._version)

    def _push(self, weights: WeightManifest) -> float:
        actors = [*self._trainers.handles, *self._rollouts.handles]
        try:
            if actors != self._connected:
                self._connect(weights)
                self._connected = actors
            trainer, engines = self._transfer(weights, version=self._version)
        except SyncFailed:
            self._connected = []
            raise
        return self._verified_gap(trainer, engines)

    def _weight_manifest(self) -> WeightManifest:
        calls = _calls(self._trainers, "weight_metadata")
        metadata = _settled(calls, what="list the weights", timeout_s=self._cfg.trainer.timeout_s)[0]
        return WeightManifest(
            names=[name for name, _, _ in metadata],
            shapes=[list(shape) for _, _, shape in metadata],
            itemsize=4 if self._cfg.rollout.dtype == "float32" else 2,
        )

    def _connect(self, weights: WeightManifest) -> None:
        """Build a new communicator: the sender opens a store on a free port, then all ranks join under a new tag.

        Engines are pinged first: ranks that wait at the rendezvous cannot be interrupted when one does not come.
        """
        timeout_s = weights.timeout_s(limit_s=self._cfg.sync.timeout_s)
        pings = _calls(self._rollouts, "ping")
        _settled(pings, what="ping before a transfer", timeout_s=self._cfg.sync.timeout_s + GRACE_S)
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

    def _transfer(self, weights: WeightManifest, *, version: int) -> tuple[Scores, list[Scores]]:
        """Log-probs of the canary tokens by the trainer and by every engine.

        The trainer's scores are requested together with the transfer, and computed while engines load. The engines' scores are
        requested after it: they wait behind the running requests of an engine, which may take long and must not look like a
        transfer that hangs.
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
        scores = _calls(self._trainers, "logprobs_of", self._canaries)
        # The communicator's own timeout limits each bucket; this one is for a worker that hangs outside the communicator.
        timeout_s = self._cfg.sync.timeout_s + GRACE_S
        try:
            _settled(calls, what=f"transfer weights of version {version}", timeout_s=timeout_s)
        except SyncFailed:
            settle(scores, what="score the canary tokens", timeout_s=GRACE_S)  # a retry should not queue behind them
            raise
        scores |= _calls(self._rollouts, "logprobs_of", self._canaries)
        results = _settled(scores, what="score the canary tokens", timeout_s=self._cfg.trainer.timeout_s)
        return results[layout.SENDER_RANK], results[len(self._trainers) :]

    def _verified_gap(self, trainer: Scores, engines: Sequence[Scores]) -> float:
        """The largest gap over engines.

        Raises SyncFailed when one is above the limit, and Diverged when that is no fault of the engines, because the trainer's own
        log-probs are not those of a working model: then another transfer does not help.
        """
        gaps = [canary_gap(trainer, engine, statistic=self._limit.statistic) for engine in engines]
        wrong = [
            f"{self._rollouts.name(index)} by {gap:.3g}" for index, gap in enumerate(gaps) if gap > self._limit.limit
        ]
        if wrong and (found := broken_logprobs(trainer)):
            raise Diverged(diverged(found, cfg=self._cfg, version=self._version))
        if wrong:
            raise SyncFailed(
                f"log-probs of the canary tokens differ from the trainer's: {', '.join(wrong)} (limit {self._limit.limit:g}). The "
                "engine does not compute with the weights that were sent"
            )
        return max(gaps)


def _calls(group: ActorGroup, method: str, *args: Any, **kwargs: Any) -> dict[str, Any]:
    """{worker: reference} of one call on every worker of a group."""
    return {
        group.name(index): getattr(handle, method).remote(*args, **kwargs) for index, handle in enumerate(group.handles)
    }


def _settled(calls: dict[str, Any], *, what: str, timeout_s: float) -> list[Any]:
    """All results, or SyncFailed with every error."""
    results, failed = settle(calls, what=what, timeout_s=timeout_s)
    if failed:
        unresponsive = [name for name, error in failed.items() if isinstance(error, WorkerUnresponsive)]
        raise SyncFailed("; ".join(map(str, failed.values())), unresponsive=unresponsive)
    return list(results.values())

"""The actors of one role: calling them with a timeout and an error that names the worker, and restarting them.

`TrainerGroup`, `ReferenceGroup` and `RayWorkers` put typed methods around an `ActorGroup`; `r1ray.actors.spawn` makes one.
"""

import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import ray
from ray.actor import ActorHandle
from ray.exceptions import ObjectLostError, OutOfMemoryError, RayActorError, RayError, RayTaskError

from r1ray.failures import Failures, ResultLost, WorkerDied, WorkerFailed, WorkerUnresponsive

HEALTH_TIMEOUT_S = 10.0
CHECK_S = 1.0
LOST_PEER = ("gloo/transport", "DistBackendError", "DistNetworkError", "DistStoreError", "CUDA error")
"""A rank whose error contains one of these texts may be healthy: the cause may be another rank, the network or the device."""


class ActorGroup:
    """The actors of one role. `handles[i]` is the worker named `<role>-<i>` in every message and log.

    Args:
        start: starts worker i; None for a group that cannot be restarted.
        rendezvous: called before all workers restart together, to choose the address at which they meet.
        restarted_by_ray: Ray restarts a worker that ends, under the same handle.
    """

    def __init__(
        self,
        role: str,
        handles: Sequence[ActorHandle],
        *,
        start: Callable[[int], ActorHandle] | None = None,
        rendezvous: Callable[[], None] = lambda: None,
        restarted_by_ray: bool = False,
    ) -> None:
        self.role, self.restarted_by_ray = role, restarted_by_ray
        self.handles = list(handles)
        self.starting: set[int] = set()
        """Workers that are restarting and cannot answer yet."""
        self._start, self._rendezvous = start, rendezvous
        self.spawned = time.monotonic()

    def __len__(self) -> int:
        return len(self.handles)

    def name(self, index: int) -> str:
        return f"{self.role}-{index}"

    def gather(self, refs: Sequence[Any], *, what: str, timeout_s: float, key: str = "") -> list[Any]:
        """Results of one call on every worker, in order; `refs[i]` belongs to `handles[i]`.

        Raises the first failure at once, without waiting for the others: in a collective they would hang until their own timeouts.
        Raises WorkerUnresponsive with the names of all workers that have not answered in time.

        Args:
            key: the configuration key of the timeout, for the message.
        """
        return gather(refs, [self.name(index) for index in range(len(refs))], what=what, timeout_s=timeout_s, key=key)

    def restart(self, names: Collection[str], *, timeout_s: float) -> Failures:
        """Kill these workers, whatever their state, and start them again in the same slots. Returns those that failed to start."""
        with self._restarting([index for index in range(len(self)) if self.name(index) in names]) as pings:
            return settle(pings, what="restart", timeout_s=timeout_s)[1]

    def restart_all(self, *, timeout_s: float) -> Failures:
        """`restart` for a group that computes together: all workers, and the first failure is raised at once, because the other
        workers would wait for that one.
        """
        with self._restarting(range(len(self)), rendezvous=self._rendezvous) as pings:
            gather(list(pings.values()), list(pings), what="restart", timeout_s=timeout_s)
        return {}

    @contextmanager
    def _restarting(
        self, indices: Collection[int], *, rendezvous: Callable[[], None] = lambda: None
    ) -> Iterator[dict[str, Any]]:
        """{worker: its first ping}, for which the body waits."""
        start = self._start
        assert start is not None, f"the {self.role} group was not made by spawn"
        self.starting |= set(indices)
        try:
            for index in indices:
                ray.kill(self.handles[index], no_restart=True)
            rendezvous()
            for index in indices:
                self.handles[index] = start(index)
            yield {self.name(index): self.handles[index].ping.remote() for index in indices}
        finally:
            self.starting -= set(indices)

    def cause_of(self, error: WorkerDied | WorkerFailed | WorkerUnresponsive) -> Exception | None:
        """Why a call on all workers failed: the error of the worker that was lost; None when a healthy worker raised `error`.

        When one of several ranks dies, the others often raise an error before Ray reports the death.
        """
        if not isinstance(error, WorkerFailed) or any(sign in str(error) for sign in LOST_PEER):
            return error
        return next(iter(self.unhealthy(timeout_s=HEALTH_TIMEOUT_S).values()), None)

    def unhealthy(self, *, timeout_s: float) -> Failures:
        """The workers whose process or engine has ended, or that do not answer within `timeout_s`."""
        heartbeats = {self.name(index): handle.heartbeat.remote() for index, handle in enumerate(self.handles)}
        statuses, failed = settle(heartbeats, what="heartbeat", timeout_s=timeout_s)
        ended = {name: status["ended"] for name, status in statuses.items() if status.get("ended")}
        return failed | {name: WorkerDied(f"{name}: {reason}") for name, reason in ended.items()}

    def index_of(self, actor_id: str | None) -> int | None:
        """The index of the worker with this id; None when no worker has it (any more)."""
        ids = [handle._actor_id.hex() for handle in self.handles]  # Ray has no public name for it
        return ids.index(actor_id) if actor_id in ids else None

    def shutdown(self) -> None:
        """Kill the processes; calls in progress are lost."""
        for handle in self.handles:
            ray.kill(handle, no_restart=True)
        self.handles.clear()


def gather(
    refs: Sequence[Any],
    names: Sequence[str],
    *,
    what: str,
    timeout_s: float,
    key: str = "",
    arrived: Callable[[str], None] | None = None,
    check: Callable[[], None] = lambda: None,
) -> list[Any]:
    """As `ActorGroup.gather`, for calls on workers of any roles; `names[i]` is the worker that computes `refs[i]`.

    `arrived` is called with the name of each worker whose result has arrived; `check` every CHECK_S, to raise what ends the wait.
    """
    name_of = dict(zip(refs, names, strict=True))
    deadline = time.monotonic() + timeout_s
    pending = list(refs)
    results: dict[Any, Any] = {}
    with waiting(what, lambda: [name_of[ref] for ref in pending]) as wait:
        while pending:
            left_s = max(0.0, deadline - time.monotonic())
            ready, pending = ray.wait(pending, num_returns=1, timeout=min(left_s, CHECK_S))
            check()
            if not ready and left_s > CHECK_S:
                continue
            if not ready:
                raise _unresponsive(", ".join(name_of[ref] for ref in pending), what, timeout_s, key)
            results[ready[0]] = result_of(ready[0], name=name_of[ready[0]], what=what)
            wait.since = time.monotonic()
            if arrived is not None:
                arrived(name_of[ready[0]])
    return [results[ref] for ref in refs]


def settle(calls: Mapping[str, Any], *, what: str, timeout_s: float) -> tuple[dict[str, Any], Failures]:
    """({worker: result}, {worker: error}) of these calls, once each has finished, failed or timed out.

    Unlike `gather` it waits for every call even after a failure: the first worker to fail is often not the cause, and a retry must
    not find workers that are still busy with these calls.
    """
    deadline = time.monotonic() + timeout_s
    results: dict[str, Any] = {}
    failed: Failures = {}
    for name, ref in calls.items():
        try:
            [results[name]] = gather([ref], [name], what=what, timeout_s=max(0.0, deadline - time.monotonic()))
        except WorkerUnresponsive:
            failed[name] = _unresponsive(name, what, timeout_s)
        except (WorkerDied, WorkerFailed) as error:
            failed[name] = error
    return results, failed


def _unresponsive(names: str, what: str, timeout_s: float, key: str = "") -> WorkerUnresponsive:
    return WorkerUnresponsive(
        f"{names} did not finish '{what}' within {timeout_s:.0f} s" + (f" ({key})" if key else "")
    )


@dataclass(slots=True, eq=False)
class Wait:
    """A wait of the driver, which the watchdog reports when it lasts too long."""

    what: str
    pending: Callable[[], list[str]]
    """The workers that have not answered yet."""
    since: float = field(default_factory=time.monotonic)
    """When the wait began, or when the last result arrived."""


WAITS: list[Wait] = []
"""The waits of all threads of the driver at this moment."""


@contextmanager
def waiting(what: str, pending: Callable[[], list[str]]) -> Iterator[Wait]:
    wait = Wait(what, pending)
    WAITS.append(wait)
    try:
        yield wait
    finally:
        WAITS.remove(wait)


def result_of(ref: Any, *, name: str, what: str) -> Any:
    """The result of a call that is ready, or an error that names the worker, the call and the remote cause."""
    try:
        return ray.get(ref)
    except RayActorError as error:
        if "creation task" in str(error):  # the constructor raised; Ray passes on its traceback as text only
            raise WorkerFailed(f"{name} failed in '{what}': {str(error).strip().splitlines()[-1]}") from error
        raise WorkerDied(f"{name} died during '{what}': {short_reason(error)}", actor_id=error.actor_id) from error
    except OutOfMemoryError as error:
        raise WorkerDied(f"{name} was killed during '{what}': {short_reason(error)}") from error
    except ObjectLostError as error:
        raise ResultLost(f"the result of '{what}' from {name} is lost: {error}") from error
    except RayTaskError as error:
        cause = error.cause if isinstance(error.cause, BaseException) else error
        if isinstance(cause, ObjectLostError):
            raise ResultLost(f"an argument of '{what}' for {name} is lost: {cause}") from error
        raise WorkerFailed(f"{name} failed in '{what}': {type(cause).__name__}: {cause}") from error
    except RayError as error:
        raise WorkerFailed(f"{name} failed in '{what}': {error}") from error


def short_reason(error: RayActorError | OutOfMemoryError) -> str:
    """Ray's reason for an actor's death in one line, without its list of common causes and its table of memory users."""
    lines = str(error).splitlines()
    reasons = [line for line in lines if line.startswith("The actor is dead because")] or lines[:1]
    return reasons[0].split(" Some common causes")[0]

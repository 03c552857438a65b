"""N actors of one role: waiting for them with an end and a name to blame, and starting them again.

Facades with typed methods (`TrainerGroup`, `ReferenceGroup`) hold one `ActorGroup` and stand in files of their own;
`r1ray.actors.spawn` makes one.
"""

import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import ray
from ray.actor import ActorHandle
from ray.exceptions import ObjectLostError, OutOfMemoryError, RayActorError, RayError, RayTaskError

ALIVE_TIMEOUT_S = 10.0
LOST_PEER = ("gloo/transport", "DistBackendError", "DistNetworkError", "DistStoreError", "CUDA error")
"""What the error of a rank says when the cause is another rank, the network between them or the device."""


class WorkerUnresponsive(TimeoutError):
    """A worker did not answer in time; the message names it and what it was doing."""


class WorkerDied(RuntimeError):
    """A worker's process ended; the message names it, what it was doing and Ray's reason."""

    def __init__(self, message: str, *, actor_id: str | None = None) -> None:
        super().__init__(message)
        self.actor_id = actor_id
        """Whose process it was: a call also fails when the worker that was to make its argument has died."""


class WorkerFailed(RuntimeError):
    """A call raised in the worker; the message holds the remote cause first."""


class ResultLost(WorkerFailed):
    """The call was made and its result is gone, with the node that held it: it has to be made once more."""


class ActorGroup:
    """The actors of one role. `handles[i]` is the worker named `<role>-<i>` in every message and log.

    Args:
        start: starts worker i; None for a group that cannot be started again.
        rendezvous: called before all workers are started again, for what they share (a meeting point).
        restarted_by_ray: a worker that ends comes back by itself, under the same handle.
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
        """Workers that are being started again: they cannot answer yet."""
        self._start, self._rendezvous = start, rendezvous

    def __len__(self) -> int:
        return len(self.handles)

    def name(self, index: int) -> str:
        return f"{self.role}-{index}"

    def gather(self, refs: Sequence[Any], *, what: str, timeout_s: float) -> list[Any]:
        """Results of one call on every worker, in order; `refs[i]` belongs to `handles[i]`.

        Raises the first failure at once, without waiting for the others: in a collective the others would hang until their own
        timeouts. Raises WorkerUnresponsive with the names of all that are late.
        """
        return gather(refs, [self.name(index) for index in range(len(refs))], what=what, timeout_s=timeout_s)

    def restart(self, names: Collection[str], *, timeout_s: float) -> "Failures":
        """End these workers, dead, hung or alive, start them anew in their places; those that have not come up in time, and why."""
        with self._restarting([index for index in range(len(self)) if self.name(index) in names]) as pings:
            return settle(pings, what="start again", timeout_s=timeout_s)[1]

    def restart_all(self, *, timeout_s: float) -> "Failures":
        """As `restart`, for a group that computes together: nobody is left out, and the first failure is raised at once, for the
        others would wait for that worker.
        """
        with self._restarting(range(len(self)), rendezvous=self._rendezvous) as pings:
            gather(list(pings.values()), list(pings), what="start again", timeout_s=timeout_s)
        return {}

    @contextmanager
    def _restarting(
        self, indices: Collection[int], *, rendezvous: Callable[[], None] = lambda: None
    ) -> Iterator[dict[str, Any]]:
        """{worker: its first answer}, which the body waits for."""
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

    def cause_of(self, error: "WorkerDied | WorkerFailed | WorkerUnresponsive") -> "Exception | None":
        """The loss of a worker that made a call on all of them fail; None where one failed for reasons of its own.

        Of workers that compute together, those that are left complain before the death of the one that is gone is known.
        """
        if not isinstance(error, WorkerFailed) or any(sign in str(error) for sign in LOST_PEER):
            return error
        return next(iter(self.unhealthy(timeout_s=ALIVE_TIMEOUT_S).values()), None)

    def unhealthy(self, *, timeout_s: float) -> "Failures":
        """The workers whose process or engine has ended, or who do not answer within `timeout_s`."""
        beats = {self.name(index): handle.heartbeat.remote() for index, handle in enumerate(self.handles)}
        status, failed = settle(beats, what="say that it is alive", timeout_s=timeout_s)
        ended = {name: said["ended"] for name, said in status.items() if said.get("ended")}
        return failed | {name: WorkerDied(f"{name}: {end}") for name, end in ended.items()}

    def index_of(self, actor_id: str | None) -> int | None:
        """Which worker has this id now; None when none has."""
        ids = [handle._actor_id.hex() for handle in self.handles]  # Ray has no public name for it
        return ids.index(actor_id) if actor_id in ids else None

    def shutdown(self) -> None:
        """End the processes; what they were doing is lost."""
        for handle in self.handles:
            ray.kill(handle, no_restart=True)
        self.handles.clear()


def gather(refs: Sequence[Any], names: Sequence[str], *, what: str, timeout_s: float) -> list[Any]:
    """As `ActorGroup.gather`, for calls on workers of any roles; `names[i]` is whom to blame for `refs[i]`."""
    name_of = dict(zip(refs, names, strict=True))
    deadline = time.monotonic() + timeout_s
    pending = list(refs)
    results: dict[Any, Any] = {}
    with waiting(what, lambda: [name_of[ref] for ref in pending]) as wait:
        while pending:
            ready, pending = ray.wait(pending, num_returns=1, timeout=max(0.0, deadline - time.monotonic()))
            if not ready:
                unresponsive = ", ".join(name_of[ref] for ref in pending)
                raise WorkerUnresponsive(f"{unresponsive} did not finish '{what}' within {timeout_s:.0f} s")
            results[ready[0]] = result_of(ready[0], name=name_of[ready[0]], what=what)
            wait.since = time.monotonic()
    return [results[ref] for ref in refs]


def short_reason(error: RayActorError | OutOfMemoryError) -> str:
    """Ray's reason for an actor's death, without its guesses and its table of who used how much memory."""
    lines = str(error).splitlines()
    reasons = [line for line in lines if line.startswith("The actor is dead because")] or lines[:1]
    return reasons[0].split(" Some common causes")[0]


Failures = dict[str, WorkerDied | WorkerFailed | WorkerUnresponsive]
"""{worker: why}."""


def settle(calls: Mapping[str, Any], *, what: str, timeout_s: float) -> tuple[dict[str, Any], Failures]:
    """({worker: result}, {worker: error}) of these calls, once every one has ended or is late.

    Unlike `gather` it waits for every call even after a failure: the cause is often in another worker than the first to complain,
    and a retry must not meet workers that are still busy with these.
    """
    deadline = time.monotonic() + timeout_s
    results: dict[str, Any] = {}
    failed: Failures = {}
    for name, ref in calls.items():
        try:
            [results[name]] = gather([ref], [name], what=what, timeout_s=max(0.0, deadline - time.monotonic()))
        except (WorkerDied, WorkerFailed, WorkerUnresponsive) as error:
            failed[name] = error
    return results, failed


@dataclass(slots=True, eq=False)
class Wait:
    """One wait of the driver, for the watchdog."""

    what: str
    pending: Callable[[], list[str]]
    """The workers that are waited for now."""
    since: float = field(default_factory=time.monotonic)
    """The begin, or when something last arrived."""


WAITS: list[Wait] = []
"""Every wait that the driver's threads are in now."""


@contextmanager
def waiting(what: str, pending: Callable[[], list[str]]) -> Iterator[Wait]:
    wait = Wait(what, pending)
    WAITS.append(wait)
    try:
        yield wait
    finally:
        WAITS.remove(wait)


def result_of(ref: Any, *, name: str, what: str) -> Any:
    """The result of a call that is ready, or an error that names the worker and leads with the remote cause."""
    try:
        return ray.get(ref)
    except RayActorError as error:
        if "creation task" in str(error):  # a constructor that raised; Ray hands on its traceback as text only
            raise WorkerFailed(f"{name} failed in '{what}': {str(error).strip().splitlines()[-1]}") from error
        raise WorkerDied(f"{name} died during '{what}': {short_reason(error)}", actor_id=error.actor_id) from error
    except OutOfMemoryError as error:
        raise WorkerDied(f"{name} was ended in '{what}' because {short_reason(error)}") from error
    except ObjectLostError as error:
        raise ResultLost(f"the result of {name}'s '{what}' is lost: {error}") from error
    except RayTaskError as error:
        cause = error.cause if isinstance(error.cause, BaseException) else error
        if isinstance(cause, ObjectLostError):
            raise ResultLost(f"what {name} needed for '{what}' is lost: {cause}") from error
        raise WorkerFailed(f"{name} failed in '{what}': {type(cause).__name__}: {cause}") from error
    except RayError as error:
        raise WorkerFailed(f"{name} failed in '{what}': {error}") from error

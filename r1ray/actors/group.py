"""N actors of one role: spawning them, waiting for them with an end and a name to blame.

The only file that turns a plain class into Ray actors. Facades with typed methods (`TrainerGroup`, `ReferenceGroup`) hold one
`ActorGroup` and stand in files of their own.
"""

import os
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import ray
from ray.actor import ActorHandle
from ray.exceptions import RayActorError, RayError, RayTaskError

from r1ray.actors.placement import Slot


class WorkerLate(TimeoutError):
    """A worker did not answer in time; the message names it and what it was doing."""


class WorkerDied(RuntimeError):
    """A worker's process ended; the message names it, what it was doing and Ray's reason."""

    def __init__(self, message: str, *, actor_id: str | None = None) -> None:
        super().__init__(message)
        self.actor_id = actor_id
        """Whose process it was: a call also fails when the worker that was to make its argument has died."""


class WorkerFailed(RuntimeError):
    """A call raised in the worker; the message holds the remote cause first."""


class ActorGroup:
    """The actors of one role. `handles[i]` is the worker named `<role>-<i>` in every message and log."""

    def __init__(
        self, role: str, handles: Sequence[ActorHandle], *, make: Callable[[int], ActorHandle] | None = None
    ) -> None:
        self.role = role
        self.handles = list(handles)
        self._make = make

    def __len__(self) -> int:
        return len(self.handles)

    def gather(self, refs: Sequence[Any], *, what: str, timeout_s: float) -> list[Any]:
        """Results of one call on every worker, in order; `refs[i]` belongs to `handles[i]`.

        Raises the first failure at once, without waiting for the others: in a collective the others would hang until their own
        timeouts. Raises WorkerLate with the names of all that are late.
        """
        return gather(refs, [f"{self.role}-{index}" for index in range(len(refs))], what=what, timeout_s=timeout_s)

    def restart(self, index: int, *, timeout_s: float) -> None:
        """End worker `index`, dead, hung or alive, start it anew in its place and wait until it is up."""
        assert self._make is not None, f"the {self.role} group was not made by spawn"
        ray.kill(self.handles[index], no_restart=True)
        self.handles[index] = self._make(index)
        gather([self.handles[index].ping.remote()], [f"{self.role}-{index}"], what="start again", timeout_s=timeout_s)

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
    while pending:
        ready, pending = ray.wait(pending, num_returns=1, timeout=max(0.0, deadline - time.monotonic()))
        if not ready:
            late = ", ".join(name_of[ref] for ref in pending)
            raise WorkerLate(f"{late} did not finish '{what}' within {timeout_s:.0f} s")
        result_of(ready[0], name=name_of[ready[0]], what=what)
    return ray.get(list(refs))


def result_of(ref: Any, *, name: str, what: str) -> Any:
    """The result of a call that is ready, or an error that names the worker and leads with the remote cause."""
    try:
        return ray.get(ref)
    except RayActorError as error:
        if "creation task" in str(error):  # a constructor that raised; Ray hands on its traceback as text only
            raise WorkerFailed(f"{name} failed in '{what}': {str(error).strip().splitlines()[-1]}") from error
        raise WorkerDied(f"{name} died during '{what}': {error}", actor_id=error.actor_id) from error
    except RayTaskError as error:
        cause = error.cause if isinstance(error.cause, BaseException) else error
        raise WorkerFailed(f"{name} failed in '{what}': {type(cause).__name__}: {cause}") from error
    except RayError as error:
        raise WorkerFailed(f"{name} failed in '{what}': {error}") from error


def spawn(
    worker_class: type,
    *,
    role: str,
    slots: Sequence[Slot],
    kwargs_of: Callable[[int], Mapping[str, Any]],
    env_of: Callable[[int], Mapping[str, str]],
    log_dir: Path,
    max_concurrency: int | None = None,
    any_order: bool = False,
) -> ActorGroup:
    """Start one actor per slot and return at once; call a method with `gather` to wait for the constructors.

    With `any_order` a call whose arguments are ready does not wait for earlier calls whose are not.

    What an actor prints goes to `<log_dir>/<role>-<index>.log` instead of the driver's console.

    Environment variables go on each actor, never into ray.init: a submitted job's runtime_env would collide with them.
    """
    actor_class = ray.remote(_logging_to_file(worker_class))

    def make(index: int) -> ActorHandle:
        slot = slots[index]
        env = dict(env_of(index))
        if not slot.need.gpus:
            # Ray 2.60 leaves the variable as inherited when num_gpus is 0: the actor would see every GPU of its node.
            env["CUDA_VISIBLE_DEVICES"] = ""
        options: dict[str, Any] = {
            "num_cpus": slot.need.cpus,
            "num_gpus": slot.need.gpus,
            "scheduling_strategy": slot.strategy,
            "runtime_env": {"env_vars": env},
        }
        if max_concurrency is not None:
            options["max_concurrency"] = max_concurrency
        if any_order:
            options["allow_out_of_order_execution"] = True
        handle: Any = actor_class.options(**options).remote(f"{log_dir}/{role}-{index}.log", kwargs_of(index))
        return handle

    return ActorGroup(role, [make(index) for index in range(len(slots))], make=make)


def _logging_to_file(worker_class: type) -> type:
    """The class with a constructor that first points this process's stdout and stderr at a file (append: resumes share it)."""

    class Worker(worker_class):  # type: ignore[misc]
        def __init__(self, log_path: str, kwargs: Mapping[str, Any]) -> None:
            os.makedirs(os.path.dirname(log_path), exist_ok=True)
            log = os.open(log_path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
            os.dup2(log, 1)
            os.dup2(log, 2)
            os.close(log)
            super().__init__(**kwargs)

    Worker.__name__ = Worker.__qualname__ = worker_class.__name__
    return Worker

"""Makes plain classes Ray actors."""

import os
import signal
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import ray
from ray.actor import ActorHandle

from r1ray.actors.group import ActorGroup
from r1ray.actors.placement import Slot
from r1ray.run.usage import memory_in_use

MAX_LOG_BYTES = 100 << 20
SIGNALS = {"kill": signal.SIGKILL, "stop": signal.SIGSTOP}


def spawn(
    worker_class: type,
    *,
    role: str,
    slots: Sequence[Slot],
    kwargs_of: Callable[[int], Mapping[str, Any]],
    env_of: Callable[[int], Mapping[str, str]],
    log_dir: Path,
    rendezvous: Callable[[], None] = lambda: None,
    max_concurrency: int | None = None,
    out_of_order: bool = False,
    restarted_by_ray: bool = False,
) -> ActorGroup:
    """Start one actor per slot and return at once. To wait for the constructors, `gather` a call.

    With `out_of_order` a call whose arguments are ready does not wait for earlier calls whose arguments are not. A restart calls
    `kwargs_of` again; a restart of all workers calls `rendezvous` first. With `restarted_by_ray` Ray itself restarts a worker,
    however often it ends.

    The output of an actor goes to `<log_dir>/<role>-<index>.log`, not to the driver's console.

    Environment variables are set for each actor, never in ray.init, where they would collide with a submitted job's runtime_env.
    """
    actor: Any = ray.remote
    actor_class = actor(concurrency_groups={"heartbeat": 1})(as_actor(worker_class))

    def start(index: int) -> ActorHandle:
        slot = slots[index]
        env = dict(env_of(index))
        if not slot.need.gpus:
            # Ray 2.60 does not change the variable when num_gpus is 0: the actor would see every GPU of its node.
            env["CUDA_VISIBLE_DEVICES"] = ""
        options: dict[str, Any] = {
            "num_cpus": slot.need.cpus,
            "num_gpus": slot.need.gpus,
            "scheduling_strategy": slot.strategy,
            "runtime_env": {"env_vars": env},
        }
        if max_concurrency is not None:
            options["max_concurrency"] = max_concurrency
        if out_of_order:
            options["allow_out_of_order_execution"] = True
        if restarted_by_ray:
            options["max_restarts"] = -1
        handle: Any = actor_class.options(**options).remote(f"{log_dir}/{role}-{index}.log", kwargs_of(index))
        return handle

    rendezvous()
    handles = [start(index) for index in range(len(slots))]
    return ActorGroup(role, handles, start=start, rendezvous=rendezvous, restarted_by_ray=restarted_by_ray)


def cut_log(log: int, *, limit: int = MAX_LOG_BYTES) -> None:
    """Keep the first half of a log that is larger than the limit: a reward that prints without end must not fill the disk.

    What comes later is appended, so the last output of a worker is in its log.
    """
    if os.fstat(log).st_size > limit:
        os.ftruncate(log, limit // 2)
        os.write(log, f"\nr1ray: the log was larger than {limit} bytes and was cut here\n".encode())


def as_actor(worker_class: type) -> type:
    """The class with a log file, fault injection, and a heartbeat whose own thread answers whatever the worker is doing."""

    class Worker(worker_class):  # type: ignore[misc]
        def __init__(self, log_path: str, kwargs: Mapping[str, Any]) -> None:
            # Append: the worker that replaces this one writes to the same file.
            os.makedirs(os.path.dirname(log_path), exist_ok=True)
            log = os.open(log_path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
            os.dup2(log, 1)
            os.dup2(log, 2)
            self._log = log  # kept open: user code may close 1, and another file may then get that number
            super().__init__(**kwargs)

        @ray.method(concurrency_group="heartbeat")
        def heartbeat(self) -> dict[str, Any]:
            """The process, its node and memory, and the `status` of the class."""
            cut_log(self._log)
            node = ray.get_runtime_context().get_node_id()
            return {"pid": os.getpid(), "node": node, "memory": memory_in_use(), **getattr(super(), "status", dict)()}

        @ray.method(concurrency_group="heartbeat")
        def inject_fault(self, action: str) -> None:
            """Inject a fault: `kill`, `stop`, or one of the `fault_actions` of the class."""
            actions = getattr(super(), "fault_actions", dict)()
            if action in actions:
                actions[action]()
            else:
                os.kill(os.getpid(), SIGNALS[action])

    Worker.__name__ = Worker.__qualname__ = worker_class.__name__
    return Worker

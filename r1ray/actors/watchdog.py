"""The watchdog of a stage: a thread of the driver that polls the workers' heartbeats and reports what is stuck.

A worker that misses three heartbeats is killed. So a hung worker looks like a dead one to its callers, which handle both in the
same way (`RayWorkers`, `ReferenceGroup`, and `r1ray.stages.recovery` for trainers). Before that, and when no call has finished for
`cluster.watchdog_s`, a report goes to events.jsonl and the console: which workers the driver waits for, in which call, how many
requests each worker has left, and every worker's stack.
"""

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import ray
from ray.exceptions import ActorDiedError, RayError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from r1ray.actors.group import WAITS, ActorGroup, Wait
from r1ray.config import ClusterConfig

MAX_MISSED = 3
MAX_MISSED_STARTING = 40
"""For a worker that Ray is restarting: its process has to start and import first."""
STACKS_TIMEOUT_S = 10.0
STACK_LINES = 40


@dataclass(slots=True)
class Heartbeat:
    """The heartbeat of one worker's process."""

    handle: Any
    pending: Any
    """The call that has not answered yet."""
    missed: int = 0
    """Polls since the last answer."""
    starting: bool = False
    """The worker may not be able to answer yet: its status says so, or Ray is about to restart it."""
    status: dict[str, Any] = field(default_factory=dict)
    """Its last answer (`r1ray.actors.spawn`)."""
    last_progress: float = 0.0
    """When its progress was last seen to change."""


class Watchdog:
    """`with Watchdog(groups, cfg=..., event=...) as watchdog:` once the workers are ready. Workers may be replaced meanwhile."""

    def __init__(
        self, groups: Mapping[str, ActorGroup], *, cfg: ClusterConfig, event: Callable[..., None], say: Callable = print
    ) -> None:
        self._groups, self._cfg, self._event, self._say = groups, cfg, event, say
        self._heartbeats: dict[tuple[str, int], Heartbeat] = {}
        self._reported: set[tuple[Wait, float]] = set()
        """Waits without a result (the wait, since when) that have been reported."""
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True, name="watchdog")

    def __enter__(self) -> "Watchdog":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stopped.set()
        self._thread.join()

    def last_progress(self, role: str, index: int) -> float:
        """`time.monotonic()` when this worker's heartbeat last showed progress; 0.0 if it never did."""
        heartbeat = self._heartbeats.get((role, index))
        return heartbeat.last_progress if heartbeat else 0.0

    def memory(self) -> dict[str, float]:
        """{memory/<role>, gpu_memory/<role>: GiB of the worker that uses most}, by the last heartbeats."""
        most: dict[str, float] = {}
        for (role, _), heartbeat in list(self._heartbeats.items()):
            for name, amount in heartbeat.status.get("memory", {}).items():
                most[f"{name}/{role}"] = max(amount, most.get(f"{name}/{role}", 0.0))
        return most

    def _last_progress_by_name(self, name: str) -> float:
        role, _, index = name.rpartition("-")
        return self.last_progress(role, int(index)) if index.isdigit() else 0.0

    def _run(self) -> None:
        while not self._stopped.wait(self._cfg.heartbeat_s):
            try:
                self.poll()
            except Exception as error:
                # A failed poll must not end the watchdog. (If it did, the driver's waits would still time out.)
                self._event("watchdog_failed", error=f"{type(error).__name__}: {error}")

    def poll(self) -> None:
        """Read the heartbeats, and report the innermost wait if it has lasted too long."""
        for role, group in self._groups.items():
            for index, handle in enumerate(list(group.handles)):
                if index not in group.starting:
                    self._poll_heartbeat(group, role, index, handle)
        now = time.monotonic()
        self._reported &= {(wait, wait.since) for wait in list(WAITS)}
        for wait in list(WAITS)[-1:]:  # only the innermost wait: the outer ones wait for the same workers
            pending = wait.pending()
            last_progress = max((self._last_progress_by_name(name) for name in pending), default=0.0)
            since = wait.since
            if now - max(since, last_progress) > self._cfg.watchdog_s and (wait, since) not in self._reported:
                self._reported.add((wait, since))
                self._report(f"no result of '{wait.what}' for {now - since:.0f} s", unresponsive=pending)

    def _poll_heartbeat(self, group: ActorGroup, role: str, index: int, handle: Any) -> None:
        heartbeat = self._heartbeats.get((role, index))
        if heartbeat is None or heartbeat.handle is not handle:
            self._heartbeats[role, index] = Heartbeat(handle, handle.heartbeat.remote())
            return
        if not ray.wait([heartbeat.pending], timeout=0)[0]:
            heartbeat.missed += 1
            if heartbeat.missed >= (MAX_MISSED_STARTING if heartbeat.starting else MAX_MISSED):
                self._kill(group, index, heartbeat)
            return
        try:
            status: Any = ray.get(heartbeat.pending)
        except RayError as error:
            if isinstance(error, ActorDiedError) and not group.restarted_by_ray:
                return  # the next caller gets the same error, and knows what was lost
            heartbeat.pending = handle.heartbeat.remote()  # the worker may be unreachable for a moment only
            heartbeat.starting = group.restarted_by_ray
            return
        if status["pid"] != heartbeat.status.get("pid", status["pid"]):
            self._event("worker_restarted", worker=group.name(index), reason="its process had ended; Ray restarted it")
        if status.get("progress") != heartbeat.status.get("progress"):
            heartbeat.last_progress = time.monotonic()
        heartbeat.status, heartbeat.missed, heartbeat.starting = status, 0, status.get("starting", False)
        heartbeat.pending = handle.heartbeat.remote()

    def _kill(self, group: ActorGroup, index: int, heartbeat: Heartbeat) -> None:
        seconds = heartbeat.missed * self._cfg.heartbeat_s
        heartbeat.missed = 0
        try:
            self._report(f"{group.name(index)} has not answered for {seconds:.0f} s and is killed", unresponsive=[])
        finally:
            status = heartbeat.status if not heartbeat.starting else {}  # the last status is of an earlier process
            if not group.restarted_by_ray or not status:
                ray.kill(heartbeat.handle, no_restart=not group.restarted_by_ray)
            kill_process(status)
            heartbeat.starting = group.restarted_by_ray

    def _report(self, what: str, *, unresponsive: list[str]) -> None:
        workers = {
            f"{role}-{index}": heartbeat.status
            for (role, index), heartbeat in self._heartbeats.items()
            if heartbeat.status
        }
        waits = [
            {"what": wait.what, "for_s": round(time.monotonic() - wait.since), "pending": wait.pending()}
            for wait in list(WAITS)
        ]
        self._event(
            "watchdog", what=what, unresponsive=unresponsive, waits=waits, workers=workers, stacks=stacks_of(workers)
        )
        unfinished = ", ".join(f"{name} {s['unfinished']:g}" for name, s in workers.items() if s.get("unfinished"))
        self._say(
            f"r1ray: {what}"
            + (f"; waiting for {', '.join(unresponsive)}" if unresponsive else "")
            + (f"; unfinished requests: {unfinished}" if unfinished else "")
            + "; the workers' stacks are in events.jsonl"
        )


def kill_process(status: Mapping[str, Any]) -> None:
    """SIGKILL the process on its own node; nothing when it has never sent a status.

    Ray gives a worker that it kills 5 seconds to exit. A worker that hangs uses all 5 seconds with its sockets open,
    so its peers in a collective or a weight transfer wait too.
    """

    def kill(pid: int) -> None:
        os.kill(pid, signal.SIGKILL)

    if status:
        node = NodeAffinitySchedulingStrategy(status["node"], soft=False)
        ray.remote(num_cpus=0, max_retries=0)(kill).options(scheduling_strategy=node).remote(status["pid"])


def stacks_of(workers: Mapping[str, Mapping[str, Any]]) -> dict[str, str]:
    """{worker: its Python stacks}, each read on the worker's node by py-spy, which can also read a stopped process.

    Args:
        workers: {name: its last status}.
    """
    task = ray.remote(num_cpus=0, max_retries=0)(dump_stacks)
    names: dict[str, list[str]] = {}
    for name, status in workers.items():
        names.setdefault(status["node"], []).append(name)
    refs = {
        node: task.options(scheduling_strategy=NodeAffinitySchedulingStrategy(node, soft=False)).remote(
            [workers[name]["pid"] for name in there]
        )
        for node, there in names.items()
    }
    ready, _ = ray.wait(list(refs.values()), num_returns=len(refs), timeout=STACKS_TIMEOUT_S) if refs else ([], [])
    stacks: dict[str, str] = {}
    for node, there in names.items():
        try:
            if refs[node] not in ready:
                raise TimeoutError(f"no answer within {STACKS_TIMEOUT_S:.0f} s")
            stacks |= dict(zip(there, cast(list[str], ray.get(refs[node])), strict=True))
        except (RayError, TimeoutError) as error:
            stacks |= dict.fromkeys(there, f"its node could not be reached: {error}")
            ray.cancel(refs[node], force=True)
    return stacks


def dump_stacks(pids: Sequence[int]) -> list[str]:
    """The stacks of processes of this machine."""
    with ThreadPoolExecutor(4) as threads:
        return list(threads.map(dump_stack, pids))


def dump_stack(pid: int) -> str:
    """The stack of one process, or why py-spy could not read it (in a container it needs SYS_PTRACE)."""
    installed = Path(sys.executable).with_name("py-spy")  # Ray's workers may not have it in their PATH
    command = [str(installed) if installed.exists() else "py-spy", "dump", "--nonblocking", "--pid", str(pid)]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=STACKS_TIMEOUT_S, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        return f"py-spy failed: {error}"
    return "\n".join((done.stdout or done.stderr).splitlines()[:STACK_LINES])

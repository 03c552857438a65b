"""The watch over a stage's workers: a thread of the driver that hears their hearts and says what is stuck.

A worker that misses three beats is killed, so that whoever waits for it sees a death and not a silence: there is one way back for
both (`RayWorkers`, `ReferenceGroup`, the trainers' restart in `r1ray.stages.recovery`). Before that, and whenever nothing has
finished for `cluster.watchdog_s`, the evidence goes to events.jsonl and the console: who is late, on what, how much each worker
has to do, and every worker's stack.
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
"""Of one that Ray is starting again: its process has to come up and import first."""
STACKS_TIMEOUT_S = 10.0
STACK_LINES = 40


@dataclass(slots=True)
class Heartbeat:
    """What is known of one worker's process."""

    handle: Any
    pending: Any
    """The heartbeat that has been asked for."""
    missed: int = 0
    starting: bool = False
    """It may not be able to answer yet: so it says, or Ray is about to start it again."""
    status: dict[str, Any] = field(default_factory=dict)
    last_progress: float = 0.0
    """When its progress was last seen to have grown."""


class Watchdog:
    """`with Watchdog(groups, cfg=..., event=...) as watch:` once the workers are ready. Workers may be replaced meanwhile."""

    def __init__(
        self, groups: Mapping[str, ActorGroup], *, cfg: ClusterConfig, event: Callable[..., None], say: Callable = print
    ) -> None:
        self._groups, self._cfg, self._event, self._say = groups, cfg, event, say
        self._heartbeats: dict[tuple[str, int], Heartbeat] = {}
        self._reported: set[tuple[Wait, float]] = set()
        """Silences (a wait, and since when) that have been told."""
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True, name="watch")

    def __enter__(self) -> "Watchdog":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join()

    def last_progress(self, role: str, index: int) -> float:
        """`time.monotonic()` of the last progress that this worker's heartbeat has shown; 0.0 when it shows none."""
        heartbeat = self._heartbeats.get((role, index))
        return heartbeat.last_progress if heartbeat else 0.0

    def _last_progress_by_name(self, name: str) -> float:
        role, _, index = name.rpartition("-")
        return self.last_progress(role, int(index)) if index.isdigit() else 0.0

    def _run(self) -> None:
        while not self._ended.wait(self._cfg.heartbeat_s):
            try:
                self.poll()
            except Exception as error:  # the watch outlives whatever it meets; the loop's own waits have ends too
                self._event("watch_failed", error=f"{type(error).__name__}: {error}")

    def poll(self) -> None:
        """One round: a beat of every heartbeat, and the waits that have become too long."""
        for role, group in self._groups.items():
            for index, handle in enumerate(list(group.handles)):
                if index not in group.starting:
                    self._poll_heartbeat(group, role, index, handle)
        now = time.monotonic()
        self._reported &= {(wait, wait.since) for wait in list(WAITS)}
        for wait in list(WAITS)[-1:]:  # the innermost: those around it wait for the same
            unresponsive = wait.pending()
            last_progress = max((self._last_progress_by_name(name) for name in unresponsive), default=0.0)
            since = wait.since
            if now - max(since, last_progress) > self._cfg.watchdog_s and (wait, since) not in self._reported:
                self._reported.add((wait, since))
                self._report(f"nothing finished for {now - since:.0f} s in '{wait.what}'", unresponsive=unresponsive)

    def _poll_heartbeat(self, group: ActorGroup, role: str, index: int, handle: Any) -> None:
        heartbeat = self._heartbeats.get((role, index))
        if heartbeat is None or heartbeat.handle is not handle:
            self._heartbeats[role, index] = Heartbeat(handle, handle.heartbeat.remote())
            return
        if not ray.wait([heartbeat.pending], timeout=0)[0]:
            heartbeat.missed += 1
            if heartbeat.missed >= (MAX_MISSED_STARTING if heartbeat.starting else MAX_MISSED):
                seconds = heartbeat.missed * self._cfg.heartbeat_s
                heartbeat.missed = 0
                try:
                    self._report(
                        f"{group.name(index)} has not answered for {seconds:.0f} s and is killed", unresponsive=[]
                    )
                finally:
                    known = heartbeat.status if not heartbeat.starting else {}  # else of the process before
                    if not group.restarted_by_ray or not known:
                        ray.kill(handle, no_restart=not group.restarted_by_ray)
                    end_process(known)
                    heartbeat.starting = group.restarted_by_ray
            return
        try:
            status: Any = ray.get(heartbeat.pending)
        except RayError as error:
            if isinstance(error, ActorDiedError) and not group.restarted_by_ray:
                return  # whoever calls it next sees that too, and knows what was lost
            heartbeat.pending = handle.heartbeat.remote()  # out of reach for a moment, perhaps
            heartbeat.starting = group.restarted_by_ray
            return
        if status["pid"] != heartbeat.status.get("pid", status["pid"]):
            self._event(
                "worker_restarted", worker=group.name(index), reason="its process had ended; Ray has begun anew"
            )
        if status.get("progress") != heartbeat.status.get("progress"):
            heartbeat.last_progress = time.monotonic()
        heartbeat.status, heartbeat.missed, heartbeat.starting = status, 0, status.get("starting", False)
        heartbeat.pending = handle.heartbeat.remote()

    def _report(self, what: str, *, unresponsive: list[str]) -> None:
        status = {
            f"{role}-{index}": heartbeat.status
            for (role, index), heartbeat in self._heartbeats.items()
            if heartbeat.status
        }
        waits = [
            {"what": wait.what, "for_s": round(time.monotonic() - wait.since), "pending": wait.pending()}
            for wait in list(WAITS)
        ]
        self._event(
            "watchdog", what=what, unresponsive=unresponsive, waits=waits, workers=status, stacks=stacks_of(status)
        )
        queue = ", ".join(f"{name} {v['unfinished']:g}" for name, v in status.items() if v.get("unfinished"))
        self._say(
            f"r1ray: {what}"
            + (f"; unresponsive: {', '.join(unresponsive)}" if unresponsive else "")
            + (f"; still to do: {queue}" if queue else "")
            + "; the workers' stacks are in events.jsonl"
        )


def end_process(status: Mapping[str, Any]) -> None:
    """SIGKILL on its own node; where it has never said where that is, nothing.

    Ray gives a worker that it ends 5 seconds to go by itself. One that hangs uses them up; its sockets stay open as long, and
    everybody waits who computes or exchanges weights with it.
    """

    def kill(pid: int) -> None:
        os.kill(pid, signal.SIGKILL)

    if status:
        node = NodeAffinitySchedulingStrategy(status["node"], soft=False)
        ray.remote(num_cpus=0, max_retries=0)(kill).options(scheduling_strategy=node).remote(status["pid"])


def stacks_of(workers: Mapping[str, Mapping[str, Any]]) -> dict[str, str]:
    """{worker: its Python stacks}, each read on its own node by py-spy, which also reads a process that is stopped.

    Args:
        workers: {name: its status}.
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
                raise TimeoutError(f"no answer from its node within {STACKS_TIMEOUT_S:.0f} s")
            stacks |= dict(zip(there, cast(list[str], ray.get(refs[node])), strict=True))
        except (RayError, TimeoutError) as error:
            stacks |= dict.fromkeys(there, f"its node could not be asked: {error}")
            ray.cancel(refs[node], force=True)
    return stacks


def dump_stacks(pids: Sequence[int]) -> list[str]:
    """Of processes of this machine."""
    with ThreadPoolExecutor(4) as threads:
        return list(threads.map(dump_stack, pids))


def dump_stack(pid: int) -> str:
    """Of one process; why not, where py-spy may not look (it needs SYS_PTRACE in a container)."""
    beside = Path(sys.executable).with_name("py-spy")  # Ray's workers need not have it in their PATH
    command = [str(beside) if beside.exists() else "py-spy", "dump", "--nonblocking", "--pid", str(pid)]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=STACKS_TIMEOUT_S, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        return f"py-spy failed: {error}"
    return "\n".join((done.stdout or done.stderr).splitlines()[:STACK_LINES])

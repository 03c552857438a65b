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

STRIKES = 3
START_STRIKES = 40
"""Of one that Ray is starting again: its process has to come up and import first."""
STACKS_TIMEOUT_S = 10.0
STACK_LINES = 40


@dataclass(slots=True)
class Heartbeat:
    """What is known of one worker's process."""

    handle: Any
    beat: Any
    """The heartbeat that has been asked for."""
    strikes: int = 0
    starting: bool = False
    """It may not be able to answer yet: so it says, or Ray is about to start it again."""
    vitals: dict[str, Any] = field(default_factory=dict)
    moved: float = 0.0
    """When its progress was last seen to have grown."""


class Watch:
    """`with Watch(groups, cfg=..., event=...) as watch:` once the workers are up; the groups' workers may be replaced meanwhile."""

    def __init__(
        self, groups: Mapping[str, ActorGroup], *, cfg: ClusterConfig, event: Callable[..., None], say: Callable = print
    ) -> None:
        self._groups, self._cfg, self._event, self._say = groups, cfg, event, say
        self._heartbeats: dict[tuple[str, int], Heartbeat] = {}
        self._reported: set[tuple[Wait, float]] = set()
        """Silences (a wait, and since when) that have been told."""
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True, name="watch")

    def __enter__(self) -> "Watch":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join()

    def moved(self, role: str, index: int) -> float:
        """`time.monotonic()` of the last progress that this worker's heartbeat has shown; 0.0 when it shows none."""
        heart = self._heartbeats.get((role, index))
        return heart.moved if heart else 0.0

    def _moved_by_name(self, name: str) -> float:
        role, _, index = name.rpartition("-")
        return self.moved(role, int(index)) if index.isdigit() else 0.0

    def _run(self) -> None:
        while not self._ended.wait(self._cfg.heartbeat_s):
            try:
                self.look()
            except Exception as error:  # the watch outlives whatever it meets; the loop's own waits have ends too
                self._event("watch_failed", error=f"{type(error).__name__}: {error}")

    def look(self) -> None:
        """One round: a beat of every heart, and the waits that have become too long."""
        for role, group in self._groups.items():
            for index, handle in enumerate(list(group.handles)):
                if index not in group.starting:
                    self._listen(group, role, index, handle)
        now = time.monotonic()
        self._reported &= {(wait, wait.since) for wait in list(WAITS)}
        for wait in list(WAITS)[-1:]:  # the innermost: those around it wait for the same
            late = wait.late()
            moved = max((self._moved_by_name(name) for name in late), default=0.0)
            since = wait.since
            if now - max(since, moved) > self._cfg.watchdog_s and (wait, since) not in self._reported:
                self._reported.add((wait, since))
                self._report(f"nothing finished for {now - since:.0f} s in '{wait.what}'", late=late)

    def _listen(self, group: ActorGroup, role: str, index: int, handle: Any) -> None:
        heart = self._heartbeats.get((role, index))
        if heart is None or heart.handle is not handle:
            self._heartbeats[role, index] = Heartbeat(handle, handle.heartbeat.remote())
            return
        if not ray.wait([heart.beat], timeout=0)[0]:
            heart.strikes += 1
            if heart.strikes >= (START_STRIKES if heart.starting else STRIKES):
                seconds = heart.strikes * self._cfg.heartbeat_s
                heart.strikes = 0
                try:
                    self._report(f"{group.name(index)} has not answered for {seconds:.0f} s and is killed", late=[])
                finally:
                    known = heart.vitals if not heart.starting else {}  # else of the process before
                    if not group.restarted_by_ray or not known:
                        ray.kill(handle, no_restart=not group.restarted_by_ray)
                    end_process(known)
                    heart.starting = group.restarted_by_ray
            return
        try:
            vitals: Any = ray.get(heart.beat)
        except RayError as error:
            if isinstance(error, ActorDiedError) and not group.restarted_by_ray:
                return  # whoever calls it next sees that too, and knows what was lost
            heart.beat = handle.heartbeat.remote()  # out of reach for a moment, perhaps
            heart.starting = group.restarted_by_ray
            return
        if vitals["pid"] != heart.vitals.get("pid", vitals["pid"]):
            self._event(
                "worker_restarted", worker=group.name(index), reason="its process had ended; Ray has begun anew"
            )
        if vitals.get("progress") != heart.vitals.get("progress"):
            heart.moved = time.monotonic()
        heart.vitals, heart.strikes, heart.starting = vitals, 0, vitals.get("starting", False)
        heart.beat = handle.heartbeat.remote()

    def _report(self, what: str, *, late: list[str]) -> None:
        vitals = {f"{role}-{index}": heart.vitals for (role, index), heart in self._heartbeats.items() if heart.vitals}
        waits = [
            {"what": wait.what, "for_s": round(time.monotonic() - wait.since), "late": wait.late()}
            for wait in list(WAITS)
        ]
        self._event("watchdog", what=what, late=late, waits=waits, workers=vitals, stacks=stacks_of(vitals))
        queue = ", ".join(f"{name} {v['unfinished']:g}" for name, v in vitals.items() if v.get("unfinished"))
        self._say(
            f"r1ray: {what}"
            + (f"; late: {', '.join(late)}" if late else "")
            + (f"; still to do: {queue}" if queue else "")
            + "; the workers' stacks are in events.jsonl"
        )


def end_process(vitals: Mapping[str, Any]) -> None:
    """SIGKILL on its own node; where it has never said where that is, nothing.

    Ray gives a worker that it ends 5 seconds to go by itself. One that hangs uses them up; its sockets stay open as long, and
    everybody waits who computes or exchanges weights with it.
    """

    def kill(pid: int) -> None:
        os.kill(pid, signal.SIGKILL)

    if vitals:
        node = NodeAffinitySchedulingStrategy(vitals["node"], soft=False)
        ray.remote(num_cpus=0, max_retries=0)(kill).options(scheduling_strategy=node).remote(vitals["pid"])


def stacks_of(workers: Mapping[str, Mapping[str, Any]]) -> dict[str, str]:
    """{worker: its Python stacks}, each read on its own node by py-spy, which also reads a process that is stopped.

    Args:
        workers: {name: its vitals}.
    """
    task = ray.remote(num_cpus=0, max_retries=0)(dump_stacks)
    names: dict[str, list[str]] = {}
    for name, vitals in workers.items():
        names.setdefault(vitals["node"], []).append(name)
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

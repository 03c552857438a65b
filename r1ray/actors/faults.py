"""Injuries on purpose (`r1ray.run.fault` has their syntax): they show that a run survives them, on any cluster.

Each happens once in a run directory, however often its step is made again or the run resumed: events.jsonl remembers.
"""

import os
import signal
import threading
import time
from collections.abc import Mapping, Sequence

from r1ray.actors.group import ActorGroup
from r1ray.run.directory import RunDir
from r1ray.run.fault import Fault, parse

LOOK_S = 0.1
DRIVER_SIGNALS = {"kill": signal.SIGKILL, "term": signal.SIGTERM}


class Faults:
    """Told of every step that begins, injures whom it was asked to."""

    def __init__(self, wanted: Sequence[str], *, stage: str, groups: Mapping[str, ActorGroup], run: RunDir) -> None:
        done = {event["fault"] for event in run.read_events("fault") if event.get("stage") == stage}
        there = {*groups, "driver"}
        self._left = [fault for fault in map(parse, wanted) if fault.role in there and str(fault) not in done]
        self._stage, self._groups, self._event = stage, groups, run.event

    def begin(self, step: int) -> None:
        for fault in [fault for fault in self._left if fault.step == step]:
            self._left.remove(fault)
            timer = threading.Timer(fault.seconds, self._inject, [fault])
            timer.daemon = True
            timer.start()

    def _inject(self, fault: Fault) -> None:
        group = self._groups.get(fault.role)
        while group and fault.index in group.starting:  # a new fault once the last is overcome
            time.sleep(LOOK_S)
        self._event("fault", stage=self._stage, fault=str(fault))
        if group is None:
            os.kill(os.getpid(), DRIVER_SIGNALS[fault.action])
        elif group.handles:  # none any more when the stage has just ended
            group.handles[fault.index].inject_fault.remote(fault.action)

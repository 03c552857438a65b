"""Fault injection (`fault=`, syntax in `r1ray.run.fault`): shows, on any cluster, that a run survives the faults.

Each fault happens once in a run directory, even when its step is repeated or the run is resumed: events.jsonl records it.
"""

import os
import signal
import threading
import time
from collections.abc import Mapping, Sequence

from r1ray.actors.group import ActorGroup
from r1ray.run.directory import RunDir
from r1ray.run.fault import Fault, parse

POLL_S = 0.1
DRIVER_SIGNALS = {"kill": signal.SIGKILL, "term": signal.SIGTERM}


class Faults:
    """Injects the faults of a stage at the steps that they name."""

    def __init__(self, wanted: Sequence[str], *, stage: str, groups: Mapping[str, ActorGroup], run: RunDir) -> None:
        done = {event["fault"] for event in run.read_events("fault_injected") if event.get("stage") == stage}
        roles = {*groups, "driver"}
        self._pending = [fault for fault in map(parse, wanted) if fault.role in roles and str(fault) not in done]
        self._stage, self._groups, self._event = stage, groups, run.event

    def begin_step(self, step: int) -> None:
        for fault in [fault for fault in self._pending if fault.step == step]:
            self._pending.remove(fault)
            timer = threading.Timer(fault.seconds, self._inject, [fault])
            timer.daemon = True
            timer.start()

    def _inject(self, fault: Fault) -> None:
        group = self._groups.get(fault.role)
        while group and fault.index in group.starting:  # the worker is still recovering from an earlier fault
            time.sleep(POLL_S)
        self._event("fault_injected", stage=self._stage, fault=str(fault))
        if group is None:
            os.kill(os.getpid(), DRIVER_SIGNALS[fault.action])
        elif group.handles:  # empty when the stage has just ended
            group.handles[fault.index].inject_fault.remote(fault.action)

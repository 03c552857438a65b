"""The watchdog with faked heartbeats: which worker is killed, what is reported, and that an error does not end the watchdog."""

import subprocess
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import pytest
from ray.exceptions import RayActorError, RayError

from r1ray.actors import group as group_module
from r1ray.actors import watchdog as watchdog_module
from r1ray.actors.group import WAITS, ActorGroup, gather, waiting
from r1ray.actors.watchdog import MAX_MISSED, MAX_MISSED_STARTING, STACK_LINES, Watchdog, dump_stack, stacks_of
from r1ray.run.usage import memory_in_use


class Worker:
    """A process as the watchdog sees it. A heartbeat requested while it is stuck is answered when it resumes."""

    def __init__(self, name: str, **status: Any) -> None:
        self.name, self.status, self.state, self.asked = name, status, "up", 0
        self.heartbeat = SimpleNamespace(remote=self._ask)

    def _ask(self) -> "Worker":
        self.asked += 1
        return self


@dataclass
class World:
    now: float = 1000.0
    did: list[str] = field(default_factory=list)
    """Reports and kills, in order."""
    events: list[dict[str, Any]] = field(default_factory=list)
    said: list[str] = field(default_factory=list)
    kill: Callable[..., None] = lambda handle, **_: None

    def __post_init__(self) -> None:
        self.kill = self._kill

    def wait(self, beats: list[Worker], *, timeout: float) -> tuple[list[Worker], list[Worker]]:
        return [w for w in beats if w.state != "stuck"], [w for w in beats if w.state == "stuck"]

    def get(self, beat: Worker) -> dict[str, Any]:
        if beat.state == "dead":
            raise RayActorError
        return {"pid": 1, "node": "n", **beat.status}

    def _kill(self, handle: Worker, *, no_restart: bool) -> None:
        handle.state = "dead"
        self.did.append(f"kill {handle.name}")

    def event(self, kind: str, **fields: Any) -> None:
        self.events.append({"kind": kind, **fields})
        self.did.append(kind)

    def watch(self, *groups: ActorGroup, heartbeat_s: float = 5, watchdog_s: float = 120, say: Any = None) -> Watchdog:
        cfg: Any = SimpleNamespace(heartbeat_s=heartbeat_s, watchdog_s=watchdog_s)
        roles = {group.role: group for group in groups}
        return Watchdog(roles, cfg=cfg, event=self.event, say=say or self.said.append)


@pytest.fixture
def world(monkeypatch: pytest.MonkeyPatch) -> World:
    made = World()
    monkeypatch.setattr(watchdog_module, "ray", made)
    monkeypatch.setattr(watchdog_module, "stacks_of", lambda workers: {name: f"stack of {name}" for name in workers})
    monkeypatch.setattr(watchdog_module, "kill_process", lambda status: made.did.append(f"SIGKILL {status.get('pid')}"))
    monkeypatch.setattr(watchdog_module, "time", SimpleNamespace(monotonic=lambda: made.now))
    return made


def group(*workers: Worker, role: str = "rollout") -> ActorGroup:
    return ActorGroup(role, list(workers))  # type: ignore[arg-type]


def poll(watch: Watchdog, times: int) -> None:
    for _ in range(times):
        watch.poll()


def test_an_engine_that_sleeps_for_long_is_left_alone(world: World) -> None:
    """It answers heartbeats without progress and has no requests; the driver waits for a trainer that makes progress."""
    engine = Worker("rollout-0", progress=7, unfinished=0)
    trainer = Worker("policy-0", progress=0)
    watch = world.watch(group(engine), group(trainer, role="policy"), watchdog_s=60)
    with waiting("update", lambda: ["policy-0"]):
        for _ in range(50):
            world.now += 30
            trainer.status["progress"] += 1
            watch.poll()
    assert not world.did


def test_a_worker_that_misses_three_heartbeats_is_reported_and_killed_once(world: World) -> None:
    stuck, well = Worker("rollout-0", unfinished=3), Worker("rollout-1")
    watch = world.watch(group(stuck, well))
    poll(watch, 2)
    stuck.state = "stuck"
    poll(watch, MAX_MISSED - 1)
    assert not world.did
    poll(watch, 10)
    assert world.did == ["watchdog", "kill rollout-0", "SIGKILL 1"]
    (event,) = world.events
    assert event["what"] == "rollout-0 has not answered for 15 s and is killed"
    assert event["stacks"] == {name: f"stack of {name}" for name in ("rollout-0", "rollout-1")}
    assert event["workers"]["rollout-0"]["unfinished"] == 3
    assert "rollout-0 has not answered" in world.said[0] and "unfinished requests: rollout-0 3" in world.said[0]


def test_an_answer_resets_the_count_of_missed_heartbeats(world: World) -> None:
    worker = Worker("rollout-0")
    watch = world.watch(group(worker))
    poll(watch, 2)
    for _ in range(3):
        worker.state = "stuck"
        poll(watch, MAX_MISSED - 1)
        worker.state = "up"
        poll(watch, 1)
    assert not world.did


def test_a_worker_that_hangs_before_its_first_heartbeat_is_killed(world: World) -> None:
    """A worker that was restarted and is ready may hang before its first heartbeat."""
    worker = Worker("rollout-0")
    worker.state = "stuck"
    watch = world.watch(group(worker))
    poll(watch, MAX_MISSED)
    assert not world.did
    poll(watch, 1)
    assert "kill rollout-0" in world.did


def test_a_worker_that_is_starting_is_not_polled(world: World) -> None:
    worker = Worker("rollout-0")
    actors = group(worker)
    watch = world.watch(actors)
    poll(watch, 2)
    actors.starting.add(0)
    worker.state, asked = "stuck", worker.asked
    poll(watch, 10)
    assert not world.did and worker.asked == asked


def test_a_replacement_starts_with_no_missed_heartbeats(world: World) -> None:
    old, new = Worker("rollout-0", progress=1), Worker("rollout-0'")
    actors = group(old)
    watch = world.watch(actors)
    poll(watch, 2)
    old.state = "stuck"
    poll(watch, MAX_MISSED - 1)
    assert watch.last_progress("rollout", 0) == 1000
    actors.handles[0] = new  # type: ignore[call-overload]
    new.state = "stuck"
    poll(watch, MAX_MISSED)  # together with those of the old worker it would be killed
    assert not world.did and watch.last_progress("rollout", 0) == 0


def test_a_dead_worker_is_left_to_its_callers(world: World) -> None:
    worker = Worker("reward-0")
    watch = world.watch(group(worker, role="reward"))
    poll(watch, 2)
    worker.state = "dead"
    poll(watch, 10)
    assert not world.did


def test_a_hung_worker_is_killed_even_when_the_report_fails(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watchdog_module, "stacks_of", fail(RayError("the cluster is busy")))
    worker = Worker("rollout-0")
    watch = world.watch(group(worker))
    poll(watch, 2)
    worker.state = "stuck"
    for _ in range(2 * MAX_MISSED):
        with suppress(RayError):
            watch.poll()
    assert "kill rollout-0" in world.did


def test_last_progress_is_when_the_number_in_the_heartbeat_changed(world: World) -> None:
    engine, judge = Worker("rollout-0", progress=4), Worker("reward-0")
    watch = world.watch(group(engine), group(judge, role="reward"))
    assert watch.last_progress("rollout", 0) == 0
    poll(watch, 2)
    world.now = 1010
    poll(watch, 1)
    assert watch.last_progress("rollout", 0) == 1000
    engine.status["progress"] = 5
    poll(watch, 1)
    assert watch.last_progress("rollout", 0) == 1010 and watch.last_progress("reward", 0) == 0


def test_a_wait_that_is_too_long_is_reported_once_with_the_pending_workers(world: World) -> None:
    watch = world.watch(group(Worker("rollout-0", unfinished=2)))
    poll(watch, 2)
    with waiting("completions and scores", lambda: ["rollout-0"]) as wait:
        wait.since = world.now
        world.now += 120
        poll(watch, 1)
        assert not world.events
        world.now += 1
        poll(watch, 5)
    (event,) = world.events
    assert event["what"] == "no result of 'completions and scores' for 121 s" and event["unresponsive"] == ["rollout-0"]
    assert event["waits"] == [{"what": "completions and scores", "for_s": 121, "pending": ["rollout-0"]}]
    assert event["stacks"] == {"rollout-0": "stack of rollout-0"}
    assert world.said == [
        "r1ray: no result of 'completions and scores' for 121 s; waiting for rollout-0; unfinished requests: rollout-0 2; "
        "the workers' stacks are in events.jsonl"
    ]


def test_a_wait_is_reported_again_when_it_stalls_after_a_result(world: World) -> None:
    watch = world.watch()
    with waiting("completions and scores", list) as wait:
        for _ in range(2):
            wait.since = world.now
            world.now += 100
            poll(watch, 1)
            world.now += 100
            poll(watch, 2)
    assert [event["what"] for event in world.events] == ["no result of 'completions and scores' for 200 s"] * 2


def test_two_waits_of_one_name_are_both_reported(world: World) -> None:
    watch = world.watch()
    for _ in range(2):
        with waiting("update", list) as wait:
            wait.since = world.now
            world.now += 121
            poll(watch, 2)
    assert len(world.events) == 2


def test_each_result_of_a_gather_restarts_its_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    now, seen = iter(range(5000, 6000, 10)), []

    def wait(refs: list[str], **_: Any) -> tuple[list[str], list[str]]:
        seen.append(WAITS[-1].since)
        return refs[:1], refs[1:]

    monkeypatch.setattr(group_module, "ray", SimpleNamespace(wait=wait, get=lambda refs: refs))
    monkeypatch.setattr(group_module, "time", SimpleNamespace(monotonic=lambda: next(now)))
    assert gather(["a", "b"], ["policy-0", "policy-1"], what="update", timeout_s=900) == ["a", "b"]
    assert seen[1] != seen[0], "`since` is the time of the last result"


def fail(error: Exception) -> Callable[..., Any]:
    def raising(*_: object) -> Any:
        raise error

    return raising


def eventually(condition: Callable[[], bool]) -> bool:
    end = time.monotonic() + 3
    while not condition() and time.monotonic() < end:
        time.sleep(0.005)
    return condition()


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
@pytest.mark.parametrize(
    ("stacks", "say"),
    [(fail(RayError("no such node")), None), (fail(ValueError("no node")), None), (dict, fail(OSError("no console")))],
    ids=["ray", "stacks", "console"],
)
def test_a_report_that_fails_does_not_end_the_watchdog(
    world: World, monkeypatch: pytest.MonkeyPatch, stacks: Any, say: Any
) -> None:
    monkeypatch.setattr(watchdog_module, "stacks_of", stacks)
    worker = Worker("rollout-0")
    with world.watch(group(worker), heartbeat_s=0.005, say=say), waiting("update", list) as wait:
        assert eventually(lambda: worker.asked > 3)
        wait.since = -1000
        assert eventually(lambda: bool(world.events))
        asked = worker.asked
        assert eventually(lambda: worker.asked > asked + 3)


def test_the_watchdog_ends_with_its_block(world: World) -> None:
    worker = Worker("rollout-0")
    with world.watch(group(worker), heartbeat_s=0.005):
        assert eventually(lambda: worker.asked > 1)
    assert "watchdog" not in {thread.name for thread in threading.enumerate()}


def test_stacks_of_workers_that_cannot_be_reached_give_the_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    well, slow, gone = "aa" * 28, "bb" * 28, "cc" * 28

    def get(node: str) -> list[str]:
        if node == gone:
            raise RayError("node cc is gone")
        return [f"stack on {node}"]

    def options(*, scheduling_strategy: Any) -> Any:
        return SimpleNamespace(remote=lambda pids: scheduling_strategy.node_id)

    fake = SimpleNamespace(
        remote=lambda **_: lambda function: SimpleNamespace(options=options),
        wait=lambda refs, **_: ([ref for ref in refs if ref != slow], [slow]),
        get=get,
        cancel=lambda ref, **_: None,
    )
    monkeypatch.setattr(watchdog_module, "ray", fake)
    asked = {"well": {"pid": 7, "node": well}, "slow": {"pid": 8, "node": slow}, "gone": {"pid": 9, "node": gone}}
    assert stacks_of(asked) == {
        "well": f"stack on {well}",
        "slow": "its node could not be reached: no answer within 10 s",
        "gone": "its node could not be reached: node cc is gone",
    }
    assert stacks_of({}) == {}


def test_a_stack_is_cut_and_an_error_of_py_spy_is_passed_on(monkeypatch: pytest.MonkeyPatch) -> None:
    answers = iter([("frame\n" * 500, ""), ("", "Permission Denied")])

    def run(command: list[str], **_: Any) -> Any:
        out, err = next(answers)
        return SimpleNamespace(stdout=out, stderr=err)

    monkeypatch.setattr(subprocess, "run", run)
    assert dump_stack(1).splitlines() == ["frame"] * STACK_LINES
    assert dump_stack(1) == "Permission Denied"


@pytest.mark.parametrize("error", [FileNotFoundError("py-spy"), subprocess.TimeoutExpired("py-spy", 10)])
def test_a_missing_py_spy_is_reported_in_place_of_the_stack(monkeypatch: pytest.MonkeyPatch, error: Exception) -> None:
    monkeypatch.setattr(subprocess, "run", lambda *_, **__: fail(error)())
    assert dump_stack(1).startswith("py-spy failed: ")


def test_a_worker_that_ray_restarts_is_killed_once_and_reported_once(world: World) -> None:
    """It keeps its handle, and cannot answer while it starts."""
    judge = Worker("judge-0", starting=False)
    watch = world.watch(ActorGroup("judge", [judge], restarted_by_ray=True))  # type: ignore[list-item]
    watch.poll()
    watch.poll()
    judge.state = "stuck"
    for _ in range(MAX_MISSED_STARTING):
        watch.poll()
    assert world.did == ["watchdog", "SIGKILL 1"], "Ray does not restart what ray.kill ends"
    judge.state, judge.status = "up", {"pid": 2, "starting": True}
    watch.poll()
    assert world.events[-1]["kind"] == "worker_restarted" and world.events[-1]["worker"] == "judge-0"
    judge.state = "stuck"  # while it imports
    for _ in range(MAX_MISSED_STARTING - 1):
        watch.poll()
    judge.state, judge.status = "up", {"pid": 2, "starting": False}
    watch.poll()
    assert world.did == ["watchdog", "SIGKILL 1", "worker_restarted"]
    judge.state = "stuck"
    for _ in range(MAX_MISSED):
        watch.poll()
    assert world.did[-1] == "SIGKILL 2"
    for _ in range(
        MAX_MISSED_STARTING
    ):  # the process that Ray started hangs before its first heartbeat: its id is unknown
        watch.poll()
    assert world.did[-2:] == ["kill judge-0", "SIGKILL None"]


def test_a_dead_worker_that_ray_restarts_is_polled_again(world: World) -> None:
    judge = Worker("judge-0")
    watch = world.watch(ActorGroup("judge", [judge], restarted_by_ray=True))  # type: ignore[list-item]
    watch.poll()
    judge.state, asked = "dead", judge.asked
    watch.poll()
    assert judge.asked == asked + 1 and not world.did


def test_memory_of_the_worker_that_uses_most_is_known_by_role(world: World) -> None:
    engines = [Worker(f"rollout-{i}", memory={"memory": 1.0 + i}) for i in (0, 1)]
    trainer = Worker("policy-0", memory={"memory": 0.5, "gpu_memory": 9.0})
    watch = world.watch(group(*engines, Worker("rollout-2")), group(trainer, role="policy"))
    assert watch.memory() == {}
    poll(watch, 2)
    assert watch.memory() == {"memory/rollout": 2.0, "memory/policy": 0.5, "gpu_memory/policy": 9.0}
    assert 0 < memory_in_use()["memory"] < 200, "GiB"

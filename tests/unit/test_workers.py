"""Workers that time out, die or fail, and how their calls are repeated. Ray and the clock are faked."""

from collections.abc import Callable, Sequence
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

import r1ray.actors.group as group_module
from r1ray.actors import workers
from r1ray.actors.group import ActorGroup
from r1ray.actors.workers import Call, RayWorkers
from r1ray.engine.base import EngineFailed
from r1ray.failures import RestartBudget, ResultLost, WorkerDied, WorkerFailed, WorkerUnresponsive


class World:
    """Engines answer one call after the other, each after `seconds`; time passes only in `wait`."""

    def __init__(self) -> None:
        self.now = 100.0
        self.ready_at: dict[str, float] = {}
        self.completions_of: dict[str, str] = {}
        """{score: the call whose completions it was given by reference}."""
        self.calls: list[tuple[str, str]] = []
        self.sent: list[tuple[str, str, Any]] = []
        """(worker, problem, completions) of every score."""
        self.fate: dict[str, Exception] = {}
        """Calls, kinds of calls of an actor, or actors whose calls all fail; and how."""
        self.dies_at: dict[str, float] = {}
        """Actors that answer until then."""
        self.events: list[str] = []
        self.notes: list[str] = []
        """What restarted reward workers find in the notes of their predecessors, restart by restart."""
        self.not_up: dict[str, Exception] = {}
        """Workers that fail to start the next time."""
        self.slow: set[str] = set()
        """Actors that answer the next heartbeat too slowly."""
        self.restarts: list[list[str]] = []
        """Workers that were restarted together."""
        self.log: list[str] = []
        """Calls and events in their order."""

    def actor(self, name: str, seconds: float) -> Any:
        def method(kind: str) -> Any:
            def remote(**arguments: Any) -> str:
                ref = f"{name}/{kind}/{len(self.calls)}"
                before = (
                    [ref for ref in self.ready_at if ref.startswith(f"{name}/generate")] if kind == "generate" else []
                )
                completions = arguments.get("completions_G")
                if completions in self.ready_at:
                    self.completions_of[ref] = completions
                    before.append(completions)
                begin = max([self.now, *(self.ready_at[one] for one in before)])
                self.ready_at[ref] = begin + (seconds if kind in ("generate", "score") else 0)
                self.calls.append((name, kind))
                self.log.append(f"{name}/{kind}")
                if kind == "score":
                    self.sent.append((name, arguments["problem"].id, completions))
                return ref

            return SimpleNamespace(remote=remote)

        kinds = ("generate", "score", "hold", "release", "abort", "sleep", "wake", "interrupted")
        methods = {kind: method(kind) for kind in kinds}
        return SimpleNamespace(name=name, _actor_id=name.encode(), **methods)

    def workers_called(self, kind: str) -> list[str]:
        """The workers that got calls of this kind, in order."""
        return [name for name, called in self.calls if called == kind]

    def outcome(self, ref: str) -> tuple[float, Exception | None]:
        """When a call is ready, and how it has failed. A score fails as its completions do."""
        name, kind, _ = ref.split("/")
        ready = self.ready_at[ref]
        for key in (ref, f"{name}/{kind}", name):
            if key in self.fate:
                return ready, self.fate[key]
        if ref in self.completions_of:
            time, error = self.outcome(self.completions_of[ref])
            if error is not None:
                return time, error
        death = self.dies_at.get(name)
        return (death, self.died(name)) if death is not None and ready > death else (ready, None)

    def wait(self, refs: Sequence[str], *, num_returns: int, timeout: float) -> tuple[list[str], list[str]]:
        times = sorted(self.outcome(ref)[0] for ref in refs)
        self.now = max(self.now, min(times[num_returns - 1], self.now + timeout))
        ready = [ref for ref in refs if self.outcome(ref)[0] <= self.now][:num_returns]
        return ready, [ref for ref in refs if ref not in ready]

    def result_of(self, ref: str, **_: Any) -> str:
        time, error = self.outcome(ref)
        assert time <= self.now, "fetched before it was ready: in a run that blocks without an end"
        if error:
            raise error
        if "/interrupted/" in ref:
            return self.notes.pop(0) if self.notes else ""
        return f"value of {ref}"

    def gather(self, refs: Sequence[str], names: Sequence[str], *, what: str, timeout_s: float) -> list[str]:
        ready, pending = self.wait(refs, num_returns=len(refs), timeout=timeout_s)
        if pending:
            raise WorkerUnresponsive(f"{pending} did not finish '{what}'")
        return [self.result_of(ref) for ref in ready]

    def restart(self, group: ActorGroup, names: Sequence[str]) -> dict[str, Exception]:
        self.now += 30  # longer than any timeout here: progress ray_workers meanwhile is not seen
        self.restarts.append(sorted(names))
        for index in (index for index in range(len(group)) if group.name(index) in names):
            group.handles[index] = self.actor(f"{group.handles[index].name}'", 0.5)
        return {name: self.not_up.pop(name) for name in names if name in self.not_up}

    def unhealthy(self, group: ActorGroup) -> dict[str, Exception]:
        slow = {
            group.name(i): WorkerUnresponsive("slow")
            for i, handle in enumerate(group.handles)
            if handle.name in self.slow
        }
        self.slow = set()
        dead = {*self.fate, *(name for name, time in self.dies_at.items() if time <= self.now)}
        died = {group.name(i): self.died(handle.name) for i, handle in enumerate(group.handles) if handle.name in dead}
        return slow | died

    def died(self, name: str) -> WorkerDied:
        return WorkerDied(f"{name} died", actor_id=name.encode().hex())

    def event(self, text: str) -> None:
        self.events.append(text)
        self.log.append(text)


class TaskError(Exception):
    """As Ray's."""

    def __init__(self, cause: Exception) -> None:
        self.cause = cause


def engine_ended(index: int) -> WorkerFailed:
    failed = WorkerFailed("a worker failed in 'generate p': engine failed")
    failed.__cause__ = TaskError(EngineFailed(index, "bad kernel"))
    return failed


@pytest.fixture
def world(monkeypatch: pytest.MonkeyPatch) -> World:
    fake = World()
    monkeypatch.setattr(workers, "ray", fake)
    monkeypatch.setattr(workers.time, "monotonic", lambda: fake.now)
    monkeypatch.setattr(workers, "result_of", fake.result_of)
    monkeypatch.setattr(group_module, "gather", fake.gather)
    monkeypatch.setattr(ActorGroup, "restart", lambda self, names, **_: fake.restart(self, names))
    monkeypatch.setattr(ActorGroup, "unhealthy", lambda self, **_: fake.unhealthy(self))
    return fake


def pool(
    world: World,
    rollout_s: Sequence[float],
    reward_s: float = 0.0,
    *,
    num_rewards: int = 1,
    deterministic: bool = False,
    sleep: bool = False,
    last_progress: Callable[[str, int], float] = lambda role, index: 0.0,
) -> RayWorkers:
    cfg: Any = SimpleNamespace(
        rollout=SimpleNamespace(timeout_s=2, start_timeout_s=9, sleep=sleep),
        reward=SimpleNamespace(timeout_s=1),
        deterministic=deterministic,
    )

    def push() -> None:
        """Like a push that meets a dead engine: the engine is replaced, then all engines get the weights."""
        ray_workers.restart_unhealthy()
        world.event("weights")

    ray_workers = RayWorkers(
        ActorGroup("rollout", [world.actor(f"rollout-{i}", seconds) for i, seconds in enumerate(rollout_s)]),
        ActorGroup("reward", [world.actor(f"reward-{i}", reward_s) for i in range(num_rewards)]),
        cfg=cfg,
        restarts=RestartBudget(20, event=lambda kind, **f: world.event(f"{kind} {f['worker']}: {f['reason']}")),
        push_current=push,
        last_progress=last_progress,
    )
    return ray_workers


def submit(ray_workers: RayWorkers, count: int) -> list[Call]:
    """Problems p0, p1, ...: the completions and the scores of each."""
    calls = []
    for number in range(count):
        problem: Any = SimpleNamespace(id=f"p{number}", prompt_ids_T=np.array([1], np.int32))
        completions = ray_workers.generate(problem, seeds=[1], sampling=None)  # type: ignore[arg-type]
        calls += [completions, ray_workers.score(problem, completions, None)]  # type: ignore[arg-type]
    return calls


def drain(ray_workers: RayWorkers, calls: list[Call]) -> list[str]:
    """The results in the order of arrival."""
    results: list[str] = []
    while calls:
        for call in ray_workers.wait(calls):
            calls.remove(call)
            results.append(ray_workers.result(call))
    return results


def test_a_long_queue_is_no_timeout(world: World) -> None:
    ray_workers = pool(world, [1.0])
    drain(ray_workers, submit(ray_workers, 20))
    assert world.now == 120.0 and not world.events


def test_a_worker_that_finishes_no_call_is_replaced_and_its_calls_are_repeated(world: World) -> None:
    ray_workers = pool(world, [0.5, 1000.0])
    results = drain(ray_workers, submit(ray_workers, 6))
    assert len(results) == 12 and len({name for name in results if "rollout-1'" in name}) == 3
    complaint, weights = world.events
    assert complaint == (
        "worker_restarted rollout-1: rollout-1 made no progress on 'generate p1' for 2 s (rollout.timeout_s)"
    )
    assert weights == "weights", "the new engine is given what the others serve"


def test_a_dead_engine_is_replaced_once_and_the_reward_worker_is_not_blamed(world: World) -> None:
    ray_workers = pool(world, [1.0, 0.5])
    calls = submit(ray_workers, 6)
    world.fate["rollout-1"] = world.died("rollout-1")
    results = drain(ray_workers, calls)
    assert len(results) == 12 and sum("rollout-1'" in name for name in results) == 3
    assert world.events == ["worker_restarted rollout-1: rollout-1 died", "weights"]


def test_engines_that_die_together_are_restarted_together(world: World) -> None:
    ray_workers = pool(world, [1.0, 0.5, 0.5])
    world.slow = {"rollout-1"}
    calls = submit(ray_workers, 6)
    for name in ("rollout-0", "rollout-2"):
        world.fate[name] = world.died(name)
    assert len(drain(ray_workers, calls)) == 12
    assert world.restarts == [["rollout-0", "rollout-2"]]
    assert sorted(world.events) == [
        "weights",
        "worker_restarted rollout-0: rollout-0 died",
        "worker_restarted rollout-2: rollout-2 died",
    ]


def test_only_workers_that_failed_to_start_are_restarted_again(world: World) -> None:
    ray_workers = pool(world, [1.0, 0.5])
    calls = submit(ray_workers, 4)
    for name in ("rollout-0", "rollout-1"):
        world.fate[name] = world.died(name)
    world.not_up = {"rollout-1": WorkerUnresponsive("rollout-1 did not finish 'start again'")}
    assert len(drain(ray_workers, calls)) == 8
    assert world.restarts == [["rollout-0", "rollout-1"], ["rollout-1"]]
    assert "worker_restarted rollout-1: rollout-1 did not finish 'start again'" in world.events


def test_a_dead_reward_worker_is_replaced(world: World) -> None:
    ray_workers = pool(world, [0.5])
    calls = submit(ray_workers, 3)
    world.fate["reward-0"] = world.died("reward-0")
    assert sum("reward-0'" in name for name in drain(ray_workers, calls)) == 3
    assert world.events == ["worker_restarted reward-0: reward-0 died"]


def test_an_engine_that_ended_in_a_live_worker_counts_as_dead(world: World) -> None:
    ray_workers = pool(world, [0.5])
    calls = submit(ray_workers, 2)
    world.fate["rollout-0"] = engine_ended(0)
    assert sum("rollout-0'" in name for name in drain(ray_workers, calls)) == 2


def test_a_score_that_fails_with_its_engine_blames_the_engine(world: World) -> None:
    ray_workers = pool(world, [0.5, 0.5])
    calls = submit(ray_workers, 2)
    world.fate[calls[3].ref] = world.fate[calls[2].ref] = engine_ended(1)
    calls = [calls[1], calls[3], calls[0], calls[2]]  # in whatever order they are seen
    assert len(drain(ray_workers, calls)) == 4
    assert "rollout-1: " in world.events[0] and world.workers_called("generate").count("rollout-1'") == 1


def test_a_call_that_raises_is_not_repeated(world: World) -> None:
    ray_workers = pool(world, [0.5])
    calls = submit(ray_workers, 1)
    world.fate["reward-0"] = WorkerFailed("reward-0 failed in 'score p': ValueError: no verifier")
    with pytest.raises(WorkerFailed, match="no verifier"):
        drain(ray_workers, calls)
    assert not world.events


def test_restarts_are_limited(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    ray_workers = pool(world, [0.5])
    monkeypatch.setattr(ActorGroup, "restart", lambda self, index, **_: None)  # it restarts, and dies again
    world.fate["rollout-0"] = world.died("rollout-0")
    with pytest.raises(WorkerDied, match="giving up after 20 restarts"):
        drain(ray_workers, submit(ray_workers, 1))


def test_the_time_of_a_score_starts_with_its_completions(world: World) -> None:
    ray_workers = pool(world, [1.9], reward_s=0.9)
    drain(ray_workers, submit(ray_workers, 3))
    assert not world.events
    slow = pool(world, [1.9], reward_s=1.5)
    drain(slow, submit(slow, 1))
    assert "for 1 s (reward.timeout_s)" in world.events[0]


def test_a_wait_ends_with_its_condition_and_its_calls_continue(world: World) -> None:
    ray_workers = pool(world, [1.9])
    calls = submit(ray_workers, 1)
    assert ray_workers.wait(calls, until=lambda: world.now > 100) == []
    assert 100 < world.now < 101
    assert len(drain(ray_workers, calls)) == 2 and world.workers_called("generate") == ["rollout-0"]
    assert not world.events


def test_scores_that_were_lost_are_computed_again_from_the_same_completions(world: World) -> None:
    ray_workers = pool(world, [0.5])
    calls = submit(ray_workers, 1)
    completions, first = calls[0].ref, calls[1].ref
    world.fate[first] = ResultLost("the result of reward-0's 'score p0' is lost")
    assert len(drain(ray_workers, calls)) == 2
    assert world.sent == [("reward-0", "p0", completions), ("reward-0", "p0", f"value of {completions}")]
    assert world.workers_called("generate") == ["rollout-0"]


@pytest.mark.parametrize(("num_rewards", "workers"), [(3, {"reward-1", "reward-2"}), (1, {"reward-0"})])
def test_completions_are_scored_again_by_another_worker_where_there_is_one(
    world: World, num_rewards: int, workers: set[str]
) -> None:
    """Although the first worker is idle: it fails at once, and would get every call."""
    ray_workers = pool(world, [0.5], num_rewards=num_rewards)
    completions, first = calls = submit(ray_workers, 1)
    drain(ray_workers, calls)
    problem: Any = SimpleNamespace(id="p0")
    again = [ray_workers.score(problem, completions, None, avoid_worker_of=first) for _ in range(4)]  # type: ignore[arg-type]
    drain(ray_workers, list(again))
    assert {call.name for call in again} == workers and first.name == "reward-0"
    assert all(sent == f"value of {completions.ref}" for _, _, sent in world.sent[1:]), "the same completions, by value"
    assert world.workers_called("generate") == ["rollout-0"]


def test_completions_that_were_lost_are_generated_again(world: World) -> None:
    ray_workers = pool(world, [0.5])
    calls = submit(ray_workers, 1)
    world.fate[calls[0].ref] = ResultLost("the result of rollout-0's 'generate p0' is lost")
    assert len(drain(ray_workers, calls)) == 2
    assert world.workers_called("generate") == ["rollout-0"] * 2


def test_many_results_lost_with_a_node_use_no_restarts(world: World) -> None:
    ray_workers = pool(world, [0.01])
    calls = submit(ray_workers, 25)
    for call in calls[1::2]:
        world.fate[call.ref] = ResultLost("lost with its node")
    assert len(drain(ray_workers, calls)) == 50


def test_fetched_completions_of_an_engine_that_has_died_are_scored_by_value(world: World) -> None:
    ray_workers = pool(world, [0.5], reward_s=0.9)
    calls = submit(ray_workers, 1)
    (completions,) = ray_workers.wait(calls)
    calls.remove(completions)
    fetched = ray_workers.result(completions)
    world.dies_at = {"rollout-0": world.now, "reward-0": world.now + 0.1}
    drain(ray_workers, calls)
    assert world.sent[-1] == ("reward-0'", "p0", fetched)
    assert world.workers_called("generate") == ["rollout-0"]


def test_an_engine_lost_during_a_push_gets_weights_before_it_gets_calls(world: World) -> None:
    ray_workers = pool(world, [0.5, 0.5])
    calls = submit(ray_workers, 4)
    world.dies_at = {"rollout-0": 100.2, "rollout-1": 100.3}
    assert len(drain(ray_workers, calls)) == 8
    pushed = world.log.index("weights")
    assert world.log.count("weights") == 1
    assert not {"rollout-0'/generate", "rollout-1'/generate"} & set(world.log[:pushed])
    assert (
        sorted(world.workers_called("generate"))
        == ["rollout-0"] * 2 + ["rollout-0'"] * 2 + ["rollout-1"] * 2 + ["rollout-1'"] * 2
    )


def test_calls_of_an_engine_lost_again_before_the_push_are_repeated_once(world: World) -> None:
    ray_workers = pool(world, [0.5])
    calls = submit(ray_workers, 2)
    world.fate = {"rollout-0": world.died("rollout-0"), "rollout-0'": world.died("rollout-0'")}
    assert len(drain(ray_workers, calls)) == 4
    assert world.workers_called("generate") == ["rollout-0"] * 2 + ["rollout-0''"] * 2


def test_a_worker_with_progress_in_its_heartbeat_does_not_time_out(world: World) -> None:
    ray_workers = pool(world, [20.0], last_progress=lambda role, index: world.now if role == "rollout" else 0.0)
    drain(ray_workers, submit(ray_workers, 1))
    assert world.now == 120 and not world.events


def test_a_worker_times_out_that_long_after_its_last_progress(world: World) -> None:
    ray_workers = pool(world, [20.0], last_progress=lambda role, index: min(world.now, 105.5))
    drain(ray_workers, submit(ray_workers, 1))
    assert "rollout-0 made no progress on 'generate p0' for 2 s" in world.events[0]
    assert world.now == pytest.approx(107.5 + 30 + 0.5, abs=2 * workers.POLL_S)


def test_abort_leaves_no_calls_to_repeat(world: World) -> None:
    ray_workers = pool(world, [0.5, 0.5])
    submit(ray_workers, 6)
    ray_workers.abort()
    assert world.workers_called("abort") == ["rollout-0", "rollout-1"]
    world.fate["rollout-0"] = world.died("rollout-0")
    before = len(world.workers_called("generate"))
    assert len(drain(ray_workers, submit(ray_workers, 2))) == 4
    assert sorted(world.workers_called("generate")[before:]) == ["rollout-0", "rollout-0'", "rollout-1"]


def test_aborted_calls_do_not_count_as_load(world: World) -> None:
    ray_workers = pool(world, [0.5, 0.5])
    submit(ray_workers, 3)
    ray_workers.abort()
    submit(ray_workers, 2)
    assert world.workers_called("generate")[3:] == ["rollout-0", "rollout-1"]


def test_deterministic_takes_turns_and_waits_for_all(world: World) -> None:
    ray_workers = pool(world, [0.1, 0.7], deterministic=True)
    refs = submit(ray_workers, 4)
    assert not world.calls, "no call starts before the wave is complete"
    assert ray_workers.wait(refs) == refs
    assert world.workers_called("generate") == ["rollout-0", "rollout-1"] * 2
    kinds = [kind for _, kind in world.calls]
    assert kinds == ["hold"] * 2 + ["generate"] * 4 + ["release"] * 2 + ["score"] * 4


def test_deterministic_abort_drops_held_calls(world: World) -> None:
    ray_workers = pool(world, [0.1, 0.7], deterministic=True)
    submit(ray_workers, 3)
    ray_workers.abort()
    drain(ray_workers, submit(ray_workers, 2))
    assert world.workers_called("generate") == ["rollout-0", "rollout-1"]


WAVE = ["rollout-0", "rollout-1"] * 2
AGAIN = ["rollout-0", "rollout-1'"] * 2


@pytest.mark.parametrize(("where", "generated"), [("hold", AGAIN), ("release", WAVE + AGAIN)])
def test_deterministic_restarts_the_wave_when_an_engine_is_lost_at_its_start(
    world: World, where: str, generated: list[str]
) -> None:
    ray_workers = pool(world, [0.1, 0.7], deterministic=True)
    calls = submit(ray_workers, 4)
    world.fate[f"rollout-1/{where}"] = world.died("rollout-1")
    assert len(drain(ray_workers, calls)) == 8
    assert world.workers_called("generate") == generated
    assert world.log[-4 - 8 : -4] == [  # the last wave is complete, and so are the scores after it
        *("rollout-0/hold", "rollout-1'/hold"),
        *(f"{name}/generate" for name in AGAIN),
        *("rollout-0/release", "rollout-1'/release"),
    ]
    assert world.events == ["worker_restarted rollout-1: rollout-1 died", "weights"]


def test_deterministic_treats_an_engine_that_ended_in_a_live_worker_as_dead(world: World) -> None:
    ray_workers = pool(world, [0.1, 0.7], deterministic=True)
    calls = submit(ray_workers, 2)
    world.fate["rollout-0/hold"] = engine_ended(0)
    assert len(drain(ray_workers, calls)) == 4
    assert world.workers_called("generate") == ["rollout-0'", "rollout-1"]


def test_deterministic_raises_an_error_that_is_no_death(world: World) -> None:
    ray_workers = pool(world, [0.1], deterministic=True)
    calls = submit(ray_workers, 1)
    world.fate["rollout-0/release"] = WorkerFailed("rollout-0 failed in 'release': AssertionError")
    with pytest.raises(WorkerFailed, match="AssertionError"):
        drain(ray_workers, calls)
    assert not world.events


def test_deterministic_repeats_the_wave_on_all_engines_and_keeps_finished_scores(world: World) -> None:
    ray_workers = pool(world, [0.1, 0.7], deterministic=True)
    calls = submit(ray_workers, 4)
    world.dies_at["rollout-1"] = 100.5
    assert len(drain(ray_workers, calls)) == 8
    assert world.workers_called("generate") == WAVE + AGAIN
    scored = [problem for _, problem, _ in world.sent]
    assert {problem: scored.count(problem) for problem in scored} == {"p0": 1, "p1": 2, "p2": 1, "p3": 2}
    assert world.events == ["worker_restarted rollout-1: rollout-1 died", "weights"]


def test_deterministic_repeats_the_wave_when_completions_are_lost(world: World) -> None:
    ray_workers = pool(world, [0.1, 0.7], deterministic=True)
    calls = submit(ray_workers, 4)
    world.fate["rollout-1/generate/3"] = ResultLost("the result of 'generate p1' from rollout-1 is lost")
    assert len(drain(ray_workers, calls)) == 8
    assert world.workers_called("generate") == WAVE * 2


def test_deterministic_replaces_each_of_several_lost_engines_once(world: World) -> None:
    ray_workers = pool(world, [0.1, 0.7], deterministic=True)
    calls = submit(ray_workers, 2)
    world.fate = {name: world.died(name) for name in ("rollout-0", "rollout-1")}
    assert len(drain(ray_workers, calls)) == 4
    assert [event for event in world.events if event != "weights"] == [
        "worker_restarted rollout-0: rollout-0 died",
        "worker_restarted rollout-1: rollout-1 died",
    ]


def test_deterministic_repeats_no_completion_when_a_reward_worker_dies_after_an_engine(world: World) -> None:
    ray_workers = pool(world, [0.1, 0.1], reward_s=0.5, deterministic=True)
    calls = submit(ray_workers, 2)
    world.fate["rollout-1/hold"] = world.died("rollout-1")
    world.dies_at["reward-0"] = 130.3
    assert len(drain(ray_workers, calls)) == 4
    assert world.workers_called("generate") == ["rollout-0", "rollout-1'"]


def test_an_engine_that_hangs_but_answers_heartbeats_is_replaced_after_a_failed_push(world: World) -> None:
    ray_workers = pool(world, [0.1, 0.1])
    ray_workers.restart_unhealthy({"rollout-1", "policy-0"})
    assert [event for event in world.events if event != "weights"] == [
        "worker_restarted rollout-1: rollout-1 hangs, though its process answers heartbeats"
    ]

"""Engines that sleep while trainers work: which calls engines get and when, with a fake engine and with faked actors."""

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

import numpy as np
import pytest
import torch
from fake_engine import FakeEngine
from test_workers import World, drain, engine_ended, pool, submit
from test_workers import world as world

import r1ray.engine
from r1ray.actors.reference import ReferenceWorker
from r1ray.actors.rollout import RolloutWorker
from r1ray.actors.trainer import TrainerWorker
from r1ray.actors.workers import RayWorkers
from r1ray.engine.base import EngineAsleep, EngineBroken, EngineFailed, Request, SamplingSpec
from r1ray.model.memory import frees_memory

PROMPT = np.array([5, 6], np.int32)
SAMPLING = SamplingSpec(temperature=1.0, max_tokens=20)


class Engine(FakeEngine):
    """Records the calls it gets."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[str] = []
        self.no_memory = False

    def add(self, request: Request) -> None:
        super().add(request)
        self.calls.append("add")

    def sleep(self) -> None:
        super().sleep()
        self.calls.append("sleep")

    def wake(self) -> None:
        if self.no_memory:
            raise EngineBroken("no memory for its kv_cache")
        if self.asleep:
            self.calls.append("wake")
        super().wake()

    def update_weights(self, update_info: dict[str, object], *, version: int) -> None:
        self.calls.append("weights")
        super().update_weights(update_info, version=version)


@pytest.fixture
def engine(monkeypatch: pytest.MonkeyPatch) -> Engine:
    fake = Engine()
    monkeypatch.setattr(r1ray.engine, "make", lambda cfg, *, model_path: fake)
    return fake


def run(scenario: Callable[[RolloutWorker], Coroutine[Any, Any, None]]) -> None:
    async def whole() -> None:
        await scenario(RolloutWorker(index=3, cfg=None, model_path=""))  # type: ignore[arg-type]

    asyncio.run(asyncio.wait_for(whole(), 20))


def generate(worker: RolloutWorker) -> Any:
    return worker.generate(request_id="r", prompt_ids_T=PROMPT, seeds=[1], sampling=SAMPLING)


def test_a_step_of_a_worker_generate_sleep_new_weights_generate(engine: Engine) -> None:
    async def scenario(worker: RolloutWorker) -> None:
        await generate(worker)
        await worker.sleep()
        await worker.update_weights({}, version=1)
        await generate(worker)
        await worker.sleep()
        await worker.wake()
        await generate(worker)

    run(scenario)
    assert engine.calls == ["add", "sleep", "weights", "wake", "add", "sleep", "wake", "add"]


def test_a_sleeping_engine_refuses_work_at_once_and_still_wakes(engine: Engine) -> None:
    async def scenario(worker: RolloutWorker) -> None:
        await worker.sleep()
        with pytest.raises(EngineAsleep):
            await generate(worker)
        with pytest.raises(EngineAsleep):
            await worker.logprobs_of([PROMPT])
        status = worker.status()
        assert (status["unfinished"], status["ended"]) == (0, None)
        await worker.wake()
        assert len(await generate(worker)) == 1

    run(scenario)


def test_running_calls_are_aborted_before_it_sleeps(engine: Engine) -> None:
    async def scenario(worker: RolloutWorker) -> None:
        await worker.hold()
        call = asyncio.create_task(generate(worker))
        await asyncio.sleep(0.05)
        await worker.sleep()
        with pytest.raises(asyncio.CancelledError):
            await asyncio.wait_for(call, 5)

    run(scenario)
    assert engine.calls == ["sleep"]


def test_an_engine_that_cannot_wake_has_ended_and_its_error_has_the_worker_index(engine: Engine) -> None:
    async def scenario(worker: RolloutWorker) -> None:
        await worker.sleep()
        engine.no_memory = True
        with pytest.raises(EngineFailed, match="no memory for its kv_cache") as caught:
            await worker.wake()
        assert caught.value.index == 3
        assert "no memory" in worker.status()["ended"]

    run(scenario)


def sleepers(world: World, num: int = 2) -> RayWorkers:
    ray_workers = pool(world, [0.5] * num, sleep=True)
    drain(ray_workers, submit(ray_workers, num))
    world.log.clear()
    return ray_workers


def test_all_engines_sleep_after_a_step_and_wake_before_the_next(world: World) -> None:
    ray_workers = sleepers(world)
    ray_workers.sleep()
    assert world.log == ["rollout-0/sleep", "rollout-1/sleep"]
    drain(ray_workers, submit(ray_workers, 4))
    assert world.log[2:4] == ["rollout-0/wake", "rollout-1/wake"]
    assert world.log.count("rollout-0/wake") == 1
    assert not world.events


def test_without_rollout_sleep_engines_get_no_such_calls(world: World) -> None:
    ray_workers = pool(world, [0.5])
    ray_workers.sleep()
    drain(ray_workers, submit(ray_workers, 1))
    assert not {"rollout-0/sleep", "rollout-0/wake"} & set(world.log)


def test_a_long_sleep_is_no_timeout(world: World) -> None:
    ray_workers = sleepers(world)
    ray_workers.sleep()
    world.now += 10_000
    drain(ray_workers, submit(ray_workers, 2))
    assert not world.events


@pytest.mark.parametrize("how", ["death", "no memory"])
def test_an_engine_lost_while_asleep_is_replaced_and_gets_weights_before_it_generates(world: World, how: str) -> None:
    ray_workers = sleepers(world)
    ray_workers.sleep()
    if how == "death":
        world.fate["rollout-1"] = world.died("rollout-1")
    else:
        world.fate["rollout-1/wake"] = engine_ended(1)
    drain(ray_workers, submit(ray_workers, 2))
    assert world.restarts == [["rollout-1"]]
    assert world.events[0].startswith("worker_restarted rollout-1: ")
    order = [world.log.index(what) for what in ("weights", "rollout-1'/wake", "rollout-0/generate")]
    assert order == sorted(order), world.log


def test_an_engine_that_cannot_sleep_is_replaced_and_its_replacement_sleeps(world: World) -> None:
    ray_workers = sleepers(world)
    world.fate["rollout-0/sleep"] = engine_ended(0)
    ray_workers.sleep()
    assert world.restarts == [["rollout-0"]]
    # The push to the replacement has woken the other engine too.
    assert world.log[-3:] == ["weights", "rollout-0'/sleep", "rollout-1/sleep"]


def test_a_bug_in_wake_is_raised_and_not_retried(world: World) -> None:
    from r1ray.failures import WorkerFailed

    ray_workers = sleepers(world)
    ray_workers.sleep()
    world.fate["rollout-1/wake"] = WorkerFailed("rollout-1 failed in 'wake': AttributeError: no wake")
    with pytest.raises(WorkerFailed, match="rollout-1 failed in 'wake'"):
        submit(ray_workers, 1)
    assert not world.events


def test_deterministic_engines_wake_before_they_get_calls(world: World) -> None:
    ray_workers = pool(world, [0.5, 0.5], sleep=True, deterministic=True)
    drain(ray_workers, submit(ray_workers, 2))
    ray_workers.sleep()
    before = len(world.log)
    drain(ray_workers, submit(ray_workers, 2))
    assert world.log[before : before + 4] == [f"rollout-{i}/{what}" for what in ("wake", "hold") for i in (0, 1)]


@pytest.mark.parametrize("fails", [False, True])
@pytest.mark.parametrize("shared", [False, True])
def test_a_worker_frees_the_memory_that_torch_has_cached(
    monkeypatch: pytest.MonkeyPatch, shared: bool, fails: bool
) -> None:
    emptied: list[str] = []
    monkeypatch.setattr(torch.cuda, "empty_cache", lambda: emptied.append("cache"))

    class Worker:
        shares_memory = shared

        @frees_memory
        def update(self, number: int) -> int:
            assert not emptied, "freed only after the call"
            return 6 // number

    if fails:
        with pytest.raises(ZeroDivisionError):
            Worker().update(0)
    else:
        assert Worker().update(2) == 3
    assert emptied == ["cache"] * shared


def test_every_method_that_computes_on_the_device_frees_memory() -> None:
    """Methods that run the model or gather whole weights."""
    for worker, methods in (
        (
            TrainerWorker,
            ("update", "compute_logprobs_or_values", "logprobs_of", "send_weights", "save", "load", "export_hf"),
        ),
        (ReferenceWorker, ("load", "compute_logprobs_or_values")),
    ):
        for name in methods:
            assert hasattr(getattr(worker, name), "__wrapped__"), f"{worker.__name__}.{name}"

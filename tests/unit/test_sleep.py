"""Engines that sleep while trainers work: who is told what and when, with a fake engine and with faked actors."""

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
    """Writes down what it is told."""

    def __init__(self) -> None:
        super().__init__()
        self.told: list[str] = []
        self.no_memory = False

    def add(self, request: Request) -> None:
        super().add(request)
        self.told.append("add")

    def sleep(self) -> None:
        super().sleep()
        self.told.append("sleep")

    def wake(self) -> None:
        if self.no_memory:
            raise EngineBroken("no memory for its kv_cache")
        if self.asleep:
            self.told.append("wake")
        super().wake()

    def update_weights(self, update_info: dict[str, object], *, version: int) -> None:
        self.told.append("weights")
        super().update_weights(update_info, version=version)


@pytest.fixture
def engine(monkeypatch: pytest.MonkeyPatch) -> Engine:
    made = Engine()
    monkeypatch.setattr(r1ray.engine, "make", lambda cfg, *, model_path: made)
    return made


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
    assert engine.told == ["add", "sleep", "weights", "wake", "add", "sleep", "wake", "add"]


def test_a_sleeper_refuses_work_at_once_and_goes_on(engine: Engine) -> None:
    async def scenario(worker: RolloutWorker) -> None:
        await worker.sleep()
        with pytest.raises(EngineAsleep):
            await generate(worker)
        with pytest.raises(EngineAsleep):
            await worker.score([PROMPT])
        status = worker.status()
        assert (status["unfinished"], status["ended"]) == (0, None)
        await worker.wake()
        assert len(await generate(worker)) == 1

    run(scenario)


def test_what_still_runs_is_forgotten_before_it_sleeps(engine: Engine) -> None:
    async def scenario(worker: RolloutWorker) -> None:
        await worker.hold()
        call = asyncio.create_task(generate(worker))
        await asyncio.sleep(0.05)
        await worker.sleep()
        with pytest.raises(asyncio.CancelledError):
            await asyncio.wait_for(call, 5)

    run(scenario)
    assert engine.told == ["sleep"]


def test_an_engine_that_cannot_wake_has_ended_and_says_whose_it_was(engine: Engine) -> None:
    async def scenario(worker: RolloutWorker) -> None:
        await worker.sleep()
        engine.no_memory = True
        with pytest.raises(EngineFailed, match="no memory for its kv_cache") as caught:
            await worker.wake()
        assert caught.value.index == 3
        assert "no memory" in worker.status()["ended"]

    run(scenario)


def sleepers(world: World, num: int = 2) -> RayWorkers:
    made = pool(world, [0.5] * num, sleep=True)
    drain(made, submit(made, num))
    world.log.clear()
    return made


def test_all_engines_sleep_after_a_step_and_wake_before_the_next(world: World) -> None:
    made = sleepers(world)
    made.sleep()
    assert world.log == ["rollout-0/sleep", "rollout-1/sleep"]
    drain(made, submit(made, 4))
    assert world.log[2:4] == ["rollout-0/wake", "rollout-1/wake"]
    assert world.log.count("rollout-0/wake") == 1
    assert not world.events


def test_without_rollout_sleep_nobody_is_told_anything(world: World) -> None:
    made = pool(world, [0.5])
    made.sleep()
    drain(made, submit(made, 1))
    assert not {"rollout-0/sleep", "rollout-0/wake"} & set(world.log)


def test_a_long_sleep_makes_nobody_late(world: World) -> None:
    made = sleepers(world)
    made.sleep()
    world.now += 10_000
    drain(made, submit(made, 2))
    assert not world.events


@pytest.mark.parametrize("how", ["death", "no memory"])
def test_an_engine_lost_in_its_sleep_is_replaced_by_name_and_served_before_it_works(world: World, how: str) -> None:
    made = sleepers(world)
    made.sleep()
    if how == "death":
        world.fate["rollout-1"] = world.died("rollout-1")
    else:
        world.fate["rollout-1/wake"] = engine_ended(1)
    drain(made, submit(made, 2))
    assert world.restarts == [["rollout-1"]]
    assert world.events[0].startswith("worker_restarted rollout-1: ")
    order = [world.log.index(what) for what in ("weights", "rollout-1'/wake", "rollout-0/generate")]
    assert order == sorted(order), world.log


def test_an_engine_that_cannot_sleep_is_replaced_and_its_successor_sleeps(world: World) -> None:
    made = sleepers(world)
    world.fate["rollout-0/sleep"] = engine_ended(0)
    made.sleep()
    assert world.restarts == [["rollout-0"]]
    # The push to the successor has woken the other one too.
    assert world.log[-3:] == ["weights", "rollout-0'/sleep", "rollout-1/sleep"]


def test_a_mistake_in_a_wake_is_not_an_accident(world: World) -> None:
    from r1ray.failures import WorkerFailed

    made = sleepers(world)
    made.sleep()
    world.fate["rollout-1/wake"] = WorkerFailed("rollout-1 failed in 'wake': AttributeError: no wake")
    with pytest.raises(WorkerFailed, match="rollout-1 failed in 'wake'"):
        submit(made, 1)
    assert not world.events


def test_engines_taking_turns_wake_before_they_are_given_anything(world: World) -> None:
    made = pool(world, [0.5, 0.5], sleep=True, deterministic=True)
    drain(made, submit(made, 2))
    made.sleep()
    before = len(world.log)
    drain(made, submit(made, 2))
    assert world.log[before : before + 4] == [f"rollout-{i}/{what}" for what in ("wake", "hold") for i in (0, 1)]


@pytest.mark.parametrize("fails", [False, True])
@pytest.mark.parametrize("lent", [False, True])
def test_a_worker_gives_back_what_torch_has_cached(monkeypatch: pytest.MonkeyPatch, lent: bool, fails: bool) -> None:
    emptied: list[str] = []
    monkeypatch.setattr(torch.cuda, "empty_cache", lambda: emptied.append("cache"))

    class Worker:
        shares_memory = lent

        @frees_memory
        def update(self, number: int) -> int:
            assert not emptied, "only when it is through"
            return 6 // number

    if fails:
        with pytest.raises(ZeroDivisionError):
            Worker().update(0)
    else:
        assert Worker().update(2) == 3
    assert emptied == ["cache"] * lent


def test_whoever_computes_on_the_device_gives_memory_back() -> None:
    """Every method that runs the model or makes whole weights of parts."""
    for worker, methods in (
        (TrainerWorker, ("update", "outputs", "score", "send_weights", "save", "load", "export_hf")),
        (ReferenceWorker, ("load", "outputs")),
    ):
        for name in methods:
            assert hasattr(getattr(worker, name), "__wrapped__"), f"{worker.__name__}.{name}"

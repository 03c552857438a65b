"""The rollout worker around a fake engine: which calls wait, fail or are aborted."""

import asyncio
import threading
from collections.abc import Callable, Coroutine
from typing import Any

import numpy as np
import pytest
from fake_engine import FakeEngine

import r1ray.engine
from r1ray.actors.rollout import EngineThread, RolloutWorker
from r1ray.engine.base import EngineBroken, EngineFailed, Request, SamplingSpec
from r1ray.types import Completion

PROMPT = np.array([5, 6], np.int32)
SAMPLING = SamplingSpec(temperature=1.0, max_tokens=20)


class Engine(FakeEngine):
    """Steps only while `go` is set; refuses empty budgets as vLLM refuses too long prompts."""

    def __init__(self) -> None:
        super().__init__()
        self.go = threading.Event()
        self.go.set()
        self.fault: Exception | None = None
        self.added: list[int] = []
        """Seeds of the requests, in order."""
        self.shut_down = threading.Event()

    def add(self, request: Request) -> None:
        if request.sampling.max_tokens == 0:
            raise ValueError("max_tokens must be at least 1")
        self.added.append(request.seed)
        super().add(request)

    def step(self) -> list[tuple[str, Completion]]:
        self.go.wait(10)
        if self.fault is not None:
            raise self.fault
        return super().step()

    def shutdown(self) -> None:
        self.shut_down.set()
        super().shutdown()

    def update_weights(self, update_info: dict[str, object], *, version: int) -> None:
        if update_info:
            raise EngineBroken("half loaded") if update_info["broken"] else ConnectionError("reset by peer")
        super().update_weights(update_info, version=version)


@pytest.fixture
def engine(monkeypatch: pytest.MonkeyPatch) -> Engine:
    fake = Engine()
    monkeypatch.setattr(r1ray.engine, "make", lambda cfg, *, model_path: fake)
    return fake


def run(scenario: Callable[[RolloutWorker], Coroutine[Any, Any, None]]) -> None:
    async def whole() -> None:
        worker = RolloutWorker(index=0, cfg=None, model_path="")  # type: ignore[arg-type]
        await scenario(worker)

    asyncio.run(asyncio.wait_for(whole(), 20))


def generate(worker: RolloutWorker, seeds: list[int], sampling: SamplingSpec = SAMPLING) -> Any:
    return worker.generate(request_id="r", prompt_ids_T=PROMPT, seeds=seeds, sampling=sampling)


def test_completions_come_in_the_order_of_the_seeds_and_calls_run_together(engine: Engine) -> None:
    async def scenario(worker: RolloutWorker) -> None:
        first, second = await asyncio.gather(generate(worker, [1, 2, 3]), generate(worker, [3, 1]))
        tokens = [completion.token_ids_T.tolist() for completion in first]
        assert [completion.token_ids_T.tolist() for completion in second] == [tokens[2], tokens[0]]

    run(scenario)


def test_progress_grows_while_the_engine_works_and_not_while_it_is_stuck(engine: Engine) -> None:
    async def scenario(worker: RolloutWorker) -> None:
        await worker.ping()
        idle = worker.status()
        assert idle["unfinished"] == 0 and idle["ended"] is None
        engine.go.clear()
        call = asyncio.create_task(generate(worker, [1, 2]))
        await asyncio.sleep(0.05)
        stuck = worker.status()
        assert stuck["unfinished"] == 2 and stuck["progress"] > idle["progress"]
        await asyncio.sleep(0.05)
        assert worker.status() == stuck
        engine.go.set()
        await call
        assert worker.status()["progress"] > stuck["progress"]
        assert worker.status()["unfinished"] == 0

    run(scenario)


def test_the_status_says_why_the_engine_has_ended(engine: Engine) -> None:
    async def scenario(worker: RolloutWorker) -> None:
        await worker.ping()
        worker.fault_actions()["fail"]()
        with pytest.raises(EngineFailed, match="fault injected"):
            await generate(worker, [1])
        assert "fault injected by fault=" in worker.status()["ended"]

    run(scenario)


def test_an_injected_fault_does_not_block_heartbeats(engine: Engine) -> None:
    """`inject_fault` runs on the thread of the heartbeats: waiting there would make the worker look hung."""

    async def scenario(worker: RolloutWorker) -> None:
        thread = threading.Thread(target=worker.fault_actions()["kill_in_sync"], daemon=True)
        thread.start()
        thread.join(1)
        assert not thread.is_alive()

    run(scenario)


def test_kill_in_sync_waits_for_the_next_update(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    killed = threading.Event()
    monkeypatch.setattr("r1ray.actors.rollout.os.kill", lambda pid, number: killed.set())

    async def scenario(worker: RolloutWorker) -> None:
        threading.Thread(target=worker.fault_actions()["kill_in_sync"], daemon=True).start()
        await asyncio.gather(generate(worker, [1]), worker.logprobs_of([PROMPT]))
        assert not killed.is_set()
        monkeypatch.setattr(engine, "update_weights", lambda *_, **__: killed.wait(5))
        await worker.update_weights({}, version=1)
        assert killed.is_set()

    run(scenario)


def test_a_step_that_fails_fails_all_waiting_and_all_later_calls(engine: Engine) -> None:
    async def scenario(worker: RolloutWorker) -> None:
        engine.go.clear()
        calls = [asyncio.create_task(generate(worker, [seed])) for seed in (1, 2)]
        await asyncio.sleep(0.05)
        engine.fault = ValueError("bad kernel")
        engine.go.set()
        for call in calls:
            with pytest.raises(RuntimeError, match="engine failed: ValueError: bad kernel"):
                await call
        for later in (
            generate(worker, [1]),
            worker.ping(),
            worker.logprobs_of([PROMPT]),
            worker.update_weights({}, version=1),
        ):
            with pytest.raises(RuntimeError, match="bad kernel"):
                await later

    run(scenario)


def test_an_engine_that_has_failed_is_shut_down_so_that_its_connections_close(engine: Engine) -> None:
    async def scenario(worker: RolloutWorker) -> None:
        await worker.ping()
        worker.fault_actions()["fail"]()
        with pytest.raises(EngineFailed, match="fault injected"):
            await worker.ping()
        assert engine.shut_down.wait(5)

    run(scenario)


def test_an_engine_that_does_not_start_gives_the_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(cfg: Any, *, model_path: str) -> Engine:
        raise ValueError("no such model")

    monkeypatch.setattr(r1ray.engine, "make", fail)

    async def scenario(worker: RolloutWorker) -> None:
        with pytest.raises(RuntimeError, match="ValueError: no such model"):
            await worker.ping()

    run(scenario)


def test_an_engine_that_breaks_at_a_request_has_failed(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(request: Request) -> None:
        raise EngineBroken("out of memory")

    async def scenario(worker: RolloutWorker) -> None:
        await worker.ping()
        monkeypatch.setattr(engine, "add", broken)
        for _ in range(2):
            with pytest.raises((EngineBroken, EngineFailed), match="out of memory"):
                await generate(worker, [1, 2])

    run(scenario)


def test_an_engine_has_ended_before_its_callers_learn_of_it() -> None:
    thread, go = EngineThread(FakeEngine, index=0), threading.Event()

    def fail(engine: Any) -> None:
        go.wait(10)
        raise EngineBroken("half loaded")

    seen: list[str | None] = []
    called = thread.call(fail)
    called.add_done_callback(lambda _: seen.append(thread.ended))
    go.set()
    assert isinstance(called.exception(10), EngineFailed)
    assert seen and "half loaded" in str(seen[0])


def test_a_refused_request_fails_its_call_alone(engine: Engine) -> None:
    async def scenario(worker: RolloutWorker) -> None:
        with pytest.raises(ValueError, match="at least 1"):
            await generate(worker, [1, 2], SamplingSpec(temperature=1.0, max_tokens=0))
        assert len(await generate(worker, [1, 2])) == 2

    run(scenario)


def test_a_cancelled_call_is_aborted_in_the_engine(engine: Engine) -> None:
    async def scenario(worker: RolloutWorker) -> None:
        engine.go.clear()
        call = asyncio.create_task(generate(worker, [1, 2]))
        await asyncio.sleep(0.05)
        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call
        engine.go.set()
        await worker.ping()
        assert engine.num_unfinished == 0

    run(scenario)


def test_weights_change_between_steps_of_running_requests(engine: Engine) -> None:
    async def scenario(worker: RolloutWorker) -> None:
        await worker.update_weights({}, version=3)
        engine.go.clear()
        call = asyncio.create_task(generate(worker, [3]))
        await asyncio.sleep(0.05)
        update = asyncio.create_task(worker.update_weights({}, version=4))
        await asyncio.sleep(0.05)
        engine.go.set()
        await update
        (completion,) = await call
        assert [span.version for span in completion.versions] == [3, 4]
        assert completion.versions[-1].end == len(completion.token_ids_T)

    run(scenario)


def test_engine_continues_after_a_failed_transfer_and_stops_when_broken(engine: Engine) -> None:
    async def scenario(worker: RolloutWorker) -> None:
        with pytest.raises(ConnectionError):
            await worker.update_weights({"broken": False}, version=1)
        assert await worker.ping() == -1
        with pytest.raises(EngineFailed, match="half loaded"):
            await worker.update_weights({"broken": True}, version=1)
        with pytest.raises(RuntimeError, match="half loaded"):
            await generate(worker, [1])

    run(scenario)


async def cancelled(call: "asyncio.Task[Any]") -> bool:
    with pytest.raises(asyncio.CancelledError):
        await asyncio.wait_for(call, 5)
    return True


def test_abort_ends_running_calls(engine: Engine) -> None:
    async def scenario(worker: RolloutWorker) -> None:
        engine.go.clear()
        call = asyncio.create_task(generate(worker, [1, 2]))
        await asyncio.sleep(0.05)
        aborting = asyncio.create_task(worker.abort())
        await asyncio.sleep(0.05)
        engine.go.set()
        await aborting
        assert engine.num_unfinished == 0 and worker.status()["unfinished"] == 0
        assert await cancelled(call)
        assert len(await generate(worker, [3])) == 1

    run(scenario)


def test_abort_ends_held_calls(engine: Engine) -> None:
    async def scenario(worker: RolloutWorker) -> None:
        await worker.hold()
        call = asyncio.create_task(generate(worker, [1]))
        await asyncio.sleep(0.05)
        await worker.abort()
        assert await cancelled(call)

    run(scenario)


def test_hold_aborts_running_calls_and_release_starts_held_calls_in_the_order_of_their_ids(engine: Engine) -> None:
    async def scenario(worker: RolloutWorker) -> None:
        engine.go.clear()
        running = asyncio.create_task(generate(worker, [9]))
        await asyncio.sleep(0.05)
        holding = asyncio.create_task(worker.hold())
        await asyncio.sleep(0.05)
        engine.go.set()
        await holding
        assert await cancelled(running)
        calls = [
            asyncio.create_task(worker.generate(request_id=id, prompt_ids_T=PROMPT, seeds=[seed], sampling=SAMPLING))
            for id, seed in (("b", 2), ("a", 1))
        ]
        await asyncio.sleep(0.05)
        assert engine.added == [9]
        await worker.release(num_calls=2)
        await asyncio.gather(*calls)
        assert engine.added == [9, 1, 2]

    run(scenario)

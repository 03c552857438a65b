"""A rollout worker: one engine, one thread that owns it, and an event loop on which any number of calls wait.

Requests of many calls run together in the engine and finish independently. Everything else (weights, scores) runs between two
engine steps, in the order in which it was asked for. Plain class: Ray makes it an async actor when it is spawned.
"""

import asyncio
import os
import queue
import random
import signal
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from contextlib import suppress
from copy import copy
from dataclasses import dataclass, field
from typing import Any

import r1ray.engine
from r1ray.config import Config
from r1ray.engine.base import EngineBroken, EngineFailed, Request, RolloutEngine, SamplingSpec
from r1ray.types import Completion, Floats, Ints


class RolloutWorker:
    """One engine behind awaitable calls. The constructor returns at once; `ping` waits until the engine is ready."""

    def __init__(self, *, index: int, cfg: Config, model_path: str) -> None:
        self.index = index
        self._num_calls = 0
        self._held: list[Generation] | None = None
        """Calls that wait for `release`, in any order; None when calls go to the engine at once."""
        self._receiving = threading.Event()
        """Set while new weights come in."""
        self._engine = EngineThread(lambda: r1ray.engine.make(cfg, model_path=model_path), index=index)

    @property
    def starting(self) -> bool:
        """Whether the engine is being made."""
        return self._engine.starting

    async def ping(self) -> int:
        """The engine's weight version, once it is ready; raises what its start raised."""
        return await self._call(lambda engine: engine.version)

    async def generate(
        self, *, request_id: str, prompt_ids_T: Ints, seeds: Sequence[int], sampling: SamplingSpec
    ) -> tuple[Completion, ...]:
        """One completion per seed, in their order. `request_id` is for messages and orders held calls; it need not be unique."""
        self._num_calls += 1
        generation = Generation(
            id=request_id,
            requests=[
                Request(
                    id=f"{request_id}#{self._num_calls}/{k}", prompt_ids_T=prompt_ids_T, seed=seed, sampling=sampling
                )
                for k, seed in enumerate(seeds)
            ],
        )
        if self._held is None:
            self._engine.submit([generation])
        else:
            self._held.append(generation)
        try:
            return await asyncio.wrap_future(generation.future)
        except BaseException:
            self._engine.abort(generation)  # cancelled: nobody waits for it any more
            raise

    async def abort(self) -> None:
        """End everything that runs or is held: nobody waits for it any more."""
        held, self._held = self._held or [], None
        for generation in held:
            generation.future.cancel()
        await asyncio.wrap_future(self._engine.abort_all())

    async def hold(self) -> None:
        """Forget what runs, and keep the calls that come from now on until `release`."""
        await self.abort()
        self._held = []

    async def release(self, *, num_calls: int) -> None:
        """Admit what is held, once it is `num_calls` calls, together and in the order of their ids.

        What runs together decides how sums are rounded: admitted like this, the same calls give the same completions to the last
        bit.
        """
        assert self._held is not None, "release without hold"
        while len(self._held) < num_calls:  # Ray may run an async actor's calls in another order than they were made
            await asyncio.sleep(0.001)
        held, self._held = sorted(self._held, key=lambda generation: generation.id), None
        self._engine.submit(held)

    async def sleep(self) -> None:
        """Until `wake`, or `update_weights`; forgets what still runs. Its heart goes on beating, its progress stands still."""
        await self.abort()
        await self._call(lambda engine: engine.sleep())

    async def wake(self) -> None:
        await self._call(lambda engine: engine.wake())

    async def score(self, sequences: Sequence[Ints]) -> list[Floats]:
        """Log-probabilities at temperature 1 of given sequences; entry 0 of each is 0.0."""
        return await self._call(lambda engine: engine.score(sequences))

    async def init_weight_transfer(self, init_info: dict[str, object]) -> None:
        await self._call(lambda engine: engine.init_weight_transfer(init_info))

    async def update_weights(self, update_info: dict[str, object], *, version: int) -> None:
        self._receiving.set()
        try:
            await self._call(lambda engine: engine.update_weights(update_info, version=version))
        finally:
            self._receiving.clear()

    def status(self) -> dict[str, Any]:
        """For the heartbeat: what moves while the engine makes progress, how much it has to do, and why it has ended if it has."""
        engine = self._engine
        return {"progress": engine.num_steps, "unfinished": engine.num_unfinished, "ended": engine.ended}

    def fault_actions(self) -> dict[str, Callable[[], None]]:
        """`fail`: the engine ends, the worker goes on. `kill_in_sync`: the process ends in the middle of the next update."""
        # On a thread of its own: the heart goes on beating until then.
        later = threading.Thread(target=self._die_receiving, daemon=True)
        return {"fail": self._fail, "kill_in_sync": later.start}

    def _fail(self) -> None:
        def broken(engine: RolloutEngine) -> None:
            raise EngineBroken("injured by fault=")

        self._engine.call(broken)

    def _die_receiving(self) -> None:
        self._receiving.wait()
        time.sleep(random.random() * 0.02)  # anywhere between the buckets
        os.kill(os.getpid(), signal.SIGKILL)

    async def shutdown(self) -> None:
        await asyncio.wrap_future(self._engine.stop())

    async def _call(self, function: Callable[[RolloutEngine], Any]) -> Any:
        return await asyncio.wrap_future(self._engine.call(function))


@dataclass(slots=True, eq=False, kw_only=True)
class Generation:
    """The requests of one call. It is settled once, when all of its completions are there: a caller that was woken for each of them
    would take the interpreter from the engine every time.
    """

    id: str
    requests: list[Request]
    completions: dict[str, Completion] = field(default_factory=dict)
    future: Future[tuple[Completion, ...]] = field(default_factory=Future)

    def add(self, request_id: str, completion: Completion) -> None:
        self.completions[request_id] = completion
        if len(self.completions) == len(self.requests):
            _settle(self.future, tuple(self.completions[request.id] for request in self.requests))


class EngineThread:
    """The one thread that touches an engine; its methods may be called from any other.

    When the engine cannot be built, a step raises, or a call raises EngineBroken, every waiting call fails with that cause and so
    does every later one, at once. Another exception of a call belongs to that call alone.
    """

    def __init__(self, make: Callable[[], RolloutEngine], *, index: int) -> None:
        self._index = index
        self.num_steps = 0
        """Commands run and engine steps made: stands still only while the engine is stuck or has nothing to do."""
        self.starting = True
        self._commands: queue.SimpleQueue[tuple[Callable[[RolloutEngine], Any], Future[Any]]] = queue.SimpleQueue()
        self._running: dict[str, Generation] = {}
        """By the ids of the requests that are not finished."""
        self._lock = threading.Lock()
        """Between a command that is put and the thread's end, so that no command is left behind unanswered."""
        self._end: BaseException | None = None
        threading.Thread(target=self._run, args=(make,), daemon=True, name="engine").start()

    @property
    def num_unfinished(self) -> int:
        return len(self._running)

    @property
    def ended(self) -> str | None:
        return str(self._end) if self._end else None

    def call(self, function: Callable[[RolloutEngine], Any]) -> Future[Any]:
        """Run `function(engine)` between two steps."""
        future: Future[Any] = Future()
        with self._lock:
            if self._end is not None:
                raise copy(self._end) from self._end
            self._commands.put((function, future))
        return future

    def submit(self, generations: Sequence[Generation]) -> None:
        """Begin all of them between the same two steps; one of which a request is refused fails, and leaves nothing behind."""

        def begin(engine: RolloutEngine) -> None:
            for generation in generations:
                try:
                    for request in generation.requests:
                        engine.add(request)
                        self._running[request.id] = generation
                except EngineBroken:
                    raise
                except Exception as error:
                    self._drop(engine, generation)
                    _settle(generation.future, error=error)

        def refused(begun: Future[None]) -> None:
            if error := begun.exception():  # the engine has ended before it came to this
                for generation in generations:
                    _settle(generation.future, error=error)

        self.call(begin).add_done_callback(refused)

    def abort(self, generation: Generation) -> None:
        with suppress(RuntimeError):  # an engine that has ended has nothing to forget
            self.call(lambda engine: self._drop(engine, generation))

    def abort_all(self) -> Future[None]:
        """Every generation is aborted and cancelled."""

        def forget(engine: RolloutEngine) -> None:
            for generation in set(self._running.values()):
                self._drop(engine, generation)
                generation.future.cancel()

        return self.call(forget)

    def _drop(self, engine: RolloutEngine, generation: Generation) -> None:
        ids = [request.id for request in generation.requests]
        engine.abort(ids)
        for request_id in ids:
            self._running.pop(request_id, None)

    def stop(self) -> Future[Any]:
        """Shut the engine down and end the thread; what still waits fails."""

        def shut_down(engine: RolloutEngine) -> None:
            engine.shutdown()
            raise _Stopped("the rollout worker was shut down")

        return self.call(shut_down)

    def _run(self, make: Callable[[], RolloutEngine]) -> None:
        engine = None
        try:
            engine = make()
            self.starting = False
            while True:
                self._run_commands(engine)
                if engine.num_unfinished:
                    finished = engine.step()
                    self.num_steps += 1
                    for request_id, completion in finished:
                        self._running.pop(request_id).add(request_id, completion)
        except BaseException as error:
            self._fail_all(error)
            if engine is not None and not isinstance(error, _Stopped):
                with suppress(Exception):
                    engine.shutdown()  # its connections too: a trainer in the middle of a transfer hears of it at once

    def _run_commands(self, engine: RolloutEngine) -> None:
        """All that have come in; with nothing to generate it waits for one (a call or `stop` frees it)."""
        while not self._commands.empty() or not engine.num_unfinished:
            function, future = self._commands.get()
            try:
                result = function(engine)
            except _Stopped:
                _settle(future)
                raise
            except EngineBroken as error:
                _settle(future, error=self._failed(error))
                raise
            except Exception as error:
                _settle(future, error=error)
            else:
                _settle(future, result)
            self.num_steps += 1

    def _failed(self, error: BaseException) -> EngineFailed:
        return EngineFailed(self._index, f"{type(error).__name__}: {error}")

    def _fail_all(self, error: BaseException) -> None:
        with self._lock:
            stopped = isinstance(error, _Stopped)
            self._end = error if stopped else self._failed(error)
        waiting: list[Future[Any]] = [generation.future for generation in set(self._running.values())]
        while not self._commands.empty():
            waiting.append(self._commands.get()[1])
        for future in waiting:
            _settle(future, error=self._end)


class _Stopped(RuntimeError):
    pass


def _settle(future: Future[Any], result: Any = None, *, error: BaseException | None = None) -> None:
    """Answer, unless the caller has been answered before or was cancelled."""
    if not future.done() and future.set_running_or_notify_cancel():
        if error is None:
            future.set_result(result)
        else:
            future.set_exception(error)

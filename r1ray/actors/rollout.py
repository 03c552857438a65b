"""A rollout worker: one engine, one thread that owns it, and an event loop on which any number of calls wait.

Requests of many calls run together in the engine and finish independently. Everything else (weights, scores) runs between two
engine steps, in the order of the calls. A plain class, which `spawn` makes an async Ray actor.
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
        """Calls that wait for `release`; None when calls go to the engine at once."""
        self._receiving = threading.Event()
        """Set while new weights are received."""
        self._engine = EngineThread(lambda: r1ray.engine.make(cfg, model_path=model_path), index=index)

    @property
    def starting(self) -> bool:
        """Whether the engine is still being built."""
        return self._engine.starting

    async def ping(self) -> int:
        """The engine's weight version, once it is ready. Raises the error with which its start failed."""
        return await self._call(lambda engine: engine.version)

    async def generate(
        self, *, request_id: str, prompt_ids_T: Ints, seeds: Sequence[int], sampling: SamplingSpec
    ) -> tuple[Completion, ...]:
        """One completion per seed, in order. `request_id` appears in messages and orders held calls; it need not be unique."""
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
            self._engine.abort(generation)  # the call was cancelled
            raise

    async def abort(self) -> None:
        """Drop all calls, running or held."""
        held, self._held = self._held or [], None
        for generation in held:
            generation.future.cancel()
        await asyncio.wrap_future(self._engine.abort_all())

    async def hold(self) -> None:
        """Drop all calls, and hold those that arrive from now on until `release`."""
        await self.abort()
        self._held = []

    async def release(self, *, num_calls: int) -> None:
        """Start the held calls together, in the order of their ids, once `num_calls` have arrived.

        The calls that are batched together change how sums are rounded. Calls that always start together and in the same order
        give the same completions to the last bit.
        """
        assert self._held is not None, "release without hold"
        while len(self._held) < num_calls:  # Ray may run the calls of an async actor out of order
            await asyncio.sleep(0.001)
        held, self._held = sorted(self._held, key=lambda generation: generation.id), None
        self._engine.submit(held)

    async def sleep(self) -> None:
        """Sleep until `wake` or `update_weights`, dropping all calls. Heartbeats are still answered, without progress."""
        await self.abort()
        await self._call(lambda engine: engine.sleep())

    async def wake(self) -> None:
        await self._call(lambda engine: engine.wake())

    async def logprobs_of(self, sequences: Sequence[Ints]) -> list[Floats]:
        """Log-probs at temperature 1 of given sequences; entry 0 of each is 0.0."""
        return await self._call(lambda engine: engine.logprobs_of(sequences))

    async def init_weight_transfer(self, init_info: dict[str, object]) -> None:
        await self._call(lambda engine: engine.init_weight_transfer(init_info))

    async def update_weights(self, update_info: dict[str, object], *, version: int) -> None:
        self._receiving.set()
        try:
            await self._call(lambda engine: engine.update_weights(update_info, version=version))
        finally:
            self._receiving.clear()

    def status(self) -> dict[str, Any]:
        """For the heartbeat: a count that grows with progress, the number of unfinished requests, why the engine has ended."""
        engine = self._engine
        return {"progress": engine.num_steps, "unfinished": engine.num_unfinished, "ended": engine.ended}

    def fault_actions(self) -> dict[str, Callable[[], None]]:
        """`fail`: the engine ends, the worker stays. `kill_in_sync`: the process is killed in the middle of the next update."""
        # On its own thread, so that heartbeats are answered until then.
        thread = threading.Thread(target=self._kill_receiving, daemon=True)
        return {"fail": self._fail, "kill_in_sync": thread.start}

    def _fail(self) -> None:
        def broken(engine: RolloutEngine) -> None:
            raise EngineBroken("fault injected by fault=")

        self._engine.call(broken)

    def _kill_receiving(self) -> None:
        self._receiving.wait()
        time.sleep(random.random() * 0.02)  # so that the kill may hit any bucket of the transfer
        os.kill(os.getpid(), signal.SIGKILL)

    async def _call(self, function: Callable[[RolloutEngine], Any]) -> Any:
        return await asyncio.wrap_future(self._engine.call(function))


@dataclass(slots=True, eq=False, kw_only=True)
class Generation:
    """The requests of one call. Its future gets all completions at once: waking the caller for each would take the interpreter lock
    from the engine every time.
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
    """The one thread that uses an engine. Its methods may be called from any other thread.

    When the engine cannot be built, a step raises, or a call raises EngineBroken, every waiting and every later call fails at once
    with that cause. Any other exception of a call belongs to that call alone.
    """

    def __init__(self, make: Callable[[], RolloutEngine], *, index: int) -> None:
        self._index = index
        self.num_steps = 0
        """Commands and engine steps so far: constant only while the engine is stuck or idle."""
        self.starting = True
        self._commands: queue.SimpleQueue[tuple[Callable[[RolloutEngine], Any], Future[Any]]] = queue.SimpleQueue()
        self._running: dict[str, Generation] = {}
        """{request id: its call}, of the unfinished requests."""
        self._lock = threading.Lock()
        """Held to queue a command and to end the thread, so that no command is left unanswered."""
        self._end: EngineFailed | None = None
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
        """Start all of them between the same two steps. When the engine refuses a request, its call fails and the other requests
        of that call are aborted.
        """

        def start(engine: RolloutEngine) -> None:
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

        def fail(started: Future[None]) -> None:
            if error := started.exception():  # the engine ended before it ran this command
                for generation in generations:
                    _settle(generation.future, error=error)

        self.call(start).add_done_callback(fail)

    def abort(self, generation: Generation) -> None:
        with suppress(RuntimeError):  # an engine that has ended has nothing to abort
            self.call(lambda engine: self._drop(engine, generation))

    def abort_all(self) -> Future[None]:
        """Abort all requests and cancel their calls."""

        def abort(engine: RolloutEngine) -> None:
            for generation in set(self._running.values()):
                self._drop(engine, generation)
                generation.future.cancel()

        return self.call(abort)

    def _drop(self, engine: RolloutEngine, generation: Generation) -> None:
        ids = [request.id for request in generation.requests]
        engine.abort(ids)
        for request_id in ids:
            self._running.pop(request_id, None)

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
            if engine is not None:
                with suppress(Exception):
                    engine.shutdown()  # closes its connections, so that a trainer in a transfer fails at once

    def _run_commands(self, engine: RolloutEngine) -> None:
        """Run all queued commands. Without requests it waits for the next one."""
        while not self._commands.empty() or not engine.num_unfinished:
            function, future = self._commands.get()
            try:
                result = function(engine)
            except EngineBroken as error:
                _settle(future, error=self._end_with(error))
                raise
            except Exception as error:
                _settle(future, error=error)
            else:
                _settle(future, result)
            self.num_steps += 1

    def _end_with(self, error: BaseException) -> EngineFailed:
        """From here on new calls are refused. Before any caller learns of the error, so that it finds `ended` set."""
        with self._lock:
            self._end = self._end or EngineFailed(self._index, f"{type(error).__name__}: {error}")
        return self._end

    def _fail_all(self, error: BaseException) -> None:
        end = self._end_with(error)
        waiting: list[Future[Any]] = [generation.future for generation in set(self._running.values())]
        while not self._commands.empty():
            waiting.append(self._commands.get()[1])
        for future in waiting:
            _settle(future, error=end)


def _settle(future: Future[Any], result: Any = None, *, error: BaseException | None = None) -> None:
    """Set the result, unless the future is done or was cancelled."""
    if not future.done() and future.set_running_or_notify_cancel():
        if error is None:
            future.set_result(result)
        else:
            future.set_exception(error)

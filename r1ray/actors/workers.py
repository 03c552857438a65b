"""The rollout and reward workers as the collector and the evaluator see them: submit, wait, result. Every wait has a timeout.

A worker that dies or hangs is restarted in its slot (an engine with the current weights) and its unfinished calls are sent again.
Seeds come from ids, so the completions are the same as in the first attempt. Only the last result of a call counts: whatever an
earlier attempt still produces is never read.
"""

import math
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import ray

from r1ray.actors.culprits import MAX_DEATHS, identity, last_scored, no_scores
from r1ray.actors.group import HEALTH_TIMEOUT_S, ActorGroup, Wait, result_of, settle, waiting
from r1ray.config import Config
from r1ray.engine.base import EngineFailed, SamplingSpec
from r1ray.failures import Failures, RestartBudget, ResultLost, WorkerDied, WorkerFailed, WorkerUnresponsive
from r1ray.reward.base import RewardContext
from r1ray.types import Problem

MAX_RETRIES = 5
POLL_S = 0.05
"""How long a poll collects results that are ready: on a small machine a driver that wakes for every single result takes a tenth of
the engines' time."""
DEATH_TIMEOUT_S = 1.0
"""Timeout of a heartbeat that only has to find dead workers: Ray reports a dead actor immediately."""


@dataclass(slots=True, eq=False)
class Call:
    """One call on one worker. When the worker is restarted, the call is sent to the new process."""

    group: ActorGroup
    index: int
    what: str
    method: str
    arguments: dict[str, Any]
    sent_at: float
    retries: int = 0
    """How often its result was lost."""
    deaths: int = 0
    """For a score: how many workers ended while they computed it."""
    after: "Call | None" = None
    """For a score: the call whose completions it waits for."""
    ref: Any = None
    done_at: float | None = None
    """When the driver saw that it was ready."""
    result: Any = None
    error: WorkerFailed | None = None

    @property
    def name(self) -> str:
        return self.group.name(self.index)

    def send(self) -> None:
        """Send it to the worker, or again to its replacement."""
        self.sent_at = time.monotonic()
        self.done_at = self.result = self.error = None
        # Completions that were fetched are sent by value: the engine that holds them may be gone.
        completions = (
            {"completions_G": self.after.ref if self.after.result is None else self.after.result} if self.after else {}
        )
        self.ref = getattr(self.group.handles[self.index], self.method).remote(**self.arguments, **completions)


class RayWorkers:
    """`r1ray.collect.workers.Workers` over actors. A call goes to the worker with the fewest unfinished calls.

    Completions travel from the engine to the reward worker by reference: the driver never copies them in between.

    A worker has timed out when it has work and its role's timeout has passed without progress. Calls queue up in a worker, so the
    age of one call does not matter. (`r1ray.actors.watchdog` finds a process that is stuck much earlier.)

    With `deterministic=true` nothing depends on which worker is faster: problems go to the engines in turn, the calls made before a
    `wait` start together as one wave, and `wait` returns when all of them are ready. The calls that are
    batched together change how sums are rounded, so all engines repeat the whole wave when one of them is lost.

    Args:
        push_current: sends all engines the current weights (`WeightSync.push_current`); nothing to do in an evaluation.
        last_progress: when a worker's heartbeat last showed progress (`Watchdog.last_progress`).
    """

    def __init__(
        self,
        rollouts: ActorGroup,
        rewards: ActorGroup,
        *,
        cfg: Config,
        restarts: RestartBudget,
        push_current: Callable[[], object] = lambda: None,
        last_progress: Callable[[str, int], float] = lambda role, index: 0.0,  # noqa: ARG005
    ) -> None:
        self._rollouts, self._rewards = rollouts, rewards
        self._restarts, self._push_current, self._last_progress = restarts, push_current, last_progress
        self._timeout_s = {rollouts.role: cfg.rollout.timeout_s, rewards.role: cfg.reward.timeout_s}
        self._start_timeout_s = cfg.rollout.start_timeout_s
        self._open: list[Call] = []
        """Calls whose result has not been fetched."""
        self._deterministic = cfg.deterministic
        self._sleep = cfg.rollout.sleep
        self._asleep = False
        """Whether engines may be asleep: from `sleep` to the next `generate`."""
        self._to_resend: list[Call] = []
        """Calls of restarted workers, to be sent again once the replacements have the current weights."""
        self._held: list[Call] | None = None
        """Calls kept back until `wait`; None when calls go to the engines at once."""
        self._load = {group.role: [0] * len(group) for group in (rollouts, rewards)}
        self._answered_at = {group.role: [0.0] * len(group) for group in (rollouts, rewards)}
        """When each worker last finished a call, or when its timeout started over."""
        self._num_calls = 0

    def generate(self, problem: Problem, *, seeds: Sequence[int], sampling: SamplingSpec) -> Call:
        if self._asleep:
            # A push wakes the engines too, but a frozen policy is not pushed.
            self._on_all_engines("wake")
            self._asleep = False
        self._num_calls += 1
        arguments = {
            "request_id": f"{self._num_calls:09d}",
            "prompt_ids_T": problem.prompt_ids_T,
            "seeds": list(seeds),
            "sampling": sampling,
        }
        call = self._new_call(self._rollouts, method="generate", what=f"generate {problem.id}", arguments=arguments)
        if self._deterministic:
            self._held = [*(self._held or ()), call]
        else:
            call.send()
        return call

    def score(
        self, problem: Problem, completions: Call, context: RewardContext, *, avoid_worker_of: Call | None = None
    ) -> Call:
        arguments = {"problem": problem, "context": context}
        what = f"score {problem.id}"
        index = None if avoid_worker_of is None else avoid_worker_of.index
        call = self._new_call(
            self._rewards, method="score", what=what, arguments=arguments, after=completions, avoided=index
        )
        if completions.ref is not None:
            call.send()
        return call

    def wait(self, refs: Sequence[Call], *, until: Callable[[], bool] = lambda: False) -> list[Call]:
        """The calls that are ready, at least one; none when `until` returns True first."""
        if self._held is not None and not until():
            self._send_held()
        pending = lambda: sorted({call.name for call in refs if call.done_at is None})  # noqa: E731
        with waiting("completions and scores", pending) as wait:
            while not until():
                if (done := self._poll(refs, wait)) is not None:
                    return done
        return []

    def result(self, ref: Call) -> Any:
        self._open.remove(ref)
        self._load[ref.group.role][ref.index] -= 1
        if ref.error is not None:
            raise ref.error
        return ref.result

    def sleep(self) -> None:
        """Nothing is generated until the next `generate`. With rollout.sleep it returns when all engines sleep: the trainers then
        find the memory free.
        """
        if self._sleep:
            self._asleep = True
            self._on_all_engines("sleep")

    def restart_unhealthy(self, unresponsive: Collection[str] = ()) -> None:
        """Restart the engines that do not answer, after a failed weight transfer or a restart of the trainers.

        Args:
            unresponsive: names of workers to restart even though their heartbeats answer.
        """
        engines = {self._rollouts.name(index) for index in range(len(self._rollouts))}
        hung: Failures = {
            name: WorkerUnresponsive(f"{name} hangs, though its process answers heartbeats")
            for name in sorted(engines & set(unresponsive))
        }
        if failed := hung | self._rollouts.unhealthy(timeout_s=HEALTH_TIMEOUT_S):
            self._replace(self._rollouts, failed)

    def abort(self) -> None:
        """Drop all calls: engines stop generating, and no result will be fetched.

        An engine that is dead by now is replaced when it is next used.
        """
        self._open.clear()
        self._to_resend.clear()
        self._held = None
        for load in self._load.values():
            load[:] = [0] * len(load)
        refs: list[Any] = [handle.abort.remote() for handle in self._rollouts.handles]
        ray.wait(refs, num_returns=len(refs), timeout=HEALTH_TIMEOUT_S)

    def _new_call(self, group: ActorGroup, *, avoided: int | None = None, **fields: Any) -> Call:
        load = self._load[group.role]
        in_turn = self._deterministic and group is self._rollouts
        # A worker with a broken sandbox fails at once, and would always have the lowest load.
        others = [index for index in range(len(group)) if index != avoided] or [0]
        index = len(self._held or ()) % len(group) if in_turn else min(others, key=load.__getitem__)
        load[index] += 1
        call = Call(group=group, index=index, sent_at=0.0, **fields)
        self._open.append(call)
        return call

    def _poll(self, refs: Sequence[Call], wait: Wait) -> list[Call] | None:
        """The calls that are ready after POLL_S; None when the wait continues."""
        pending: dict[Any, Call] = {call.ref: call for call in refs if call.done_at is None}
        ready, _ = ray.wait(list(pending), num_returns=len(pending), timeout=POLL_S) if pending else ([], [])
        for ref in ready:
            if pending[ref].ref == ref:  # otherwise a restart in this loop has just sent the call again
                self._fetch(pending[ref])
        done = [call for call in refs if call.done_at is not None]
        if done and (len(done) == len(refs) or not self._deterministic):
            return done
        if ready:
            wait.since = time.monotonic()
            return None
        first = min((call for call in refs if call.done_at is None), key=self._deadline)
        if self._deadline(first) <= time.monotonic():
            self._restart(first.group, first.index, WorkerUnresponsive(self._timeout_message(first)))
            wait.since = time.monotonic()
        return None

    def _fetch(self, call: Call) -> None:
        """Fetch a result that is ready. When a worker died or a result was lost, restart the worker and send the call again."""
        try:
            call.result = result_of(call.ref, name=call.name, what=call.what)
        except WorkerDied as error:
            return self._restart_actor(call, error.actor_id, error)
        except ResultLost as error:
            return self._retry(call, error)
        except WorkerFailed as error:
            if (engine := failed_engine(error)) is not None:
                return self._restart(self._rollouts, engine, error)
            call.error = error
        call.done_at = self._answered_at[call.group.role][call.index] = time.monotonic()

    def _restart_actor(self, call: Call, actor_id: str | None, error: Exception) -> None:
        """Restart the worker with this id: a score also fails when the engine whose completions it waits for has died."""
        if actor_id is None:
            return self._restart(call.group, call.index, error)
        for group in (self._rollouts, self._rewards):
            index = group.index_of(actor_id)
            if index is not None:
                return self._restart(group, index, error)
        self._retry(call, error)  # that worker has been replaced already

    def _retry(self, call: Call, error: Exception) -> None:
        """Send a call again because its result was lost together with a node. The call's own worker may still be healthy."""
        call.retries += 1
        if call.retries > MAX_RETRIES:
            call.error, call.done_at = WorkerFailed(f"{error} (for the {call.retries}th time)"), time.monotonic()
            return
        if self._deterministic:
            return self._repeat_wave()
        self._resend([call.after] if call.after is not None and call.after.result is None else [call])

    def _restart(self, group: ActorGroup, index: int, error: Exception) -> None:
        """Restart a worker, together with all others of its role that have died, and send their unfinished calls again."""
        others = group.unhealthy(timeout_s=DEATH_TIMEOUT_S)
        died = {other: why for other, why in others.items() if isinstance(why, WorkerDied)}
        failed = died | {group.name(index): error}
        suspected = any(call.deaths and call.name in failed for call in self._open if call.done_at is None)
        self._replace(group, failed, counted=not suspected)
        if group is self._rollouts:
            self._push_current()
        elif not self._end_culprits(failed) and suspected:
            self._restarts.charge(failed)
        for times in self._answered_at.values():
            times[:] = [time.monotonic()] * len(times)  # progress made during the restart was not seen
        calls, self._to_resend = self._to_resend, []
        if self._deterministic and group is self._rollouts:
            return self._repeat_wave()
        self._resend(calls)

    def _resend(self, calls: Sequence[Call]) -> None:
        """Send these calls again, and the scores that wait for them."""
        for call in calls:
            call.send()
        for call in self._open:
            if call.done_at is None and call.after in calls:
                call.send()

    def _end_culprits(self, failed: Mapping[str, Exception]) -> bool:
        """Among the calls of reward workers that were just restarted, end those that have ended their workers before. Returns
        whether there is one.
        """
        notes = last_scored(self._rewards, failed)
        found = False
        for call in list(self._to_resend) if notes else ():
            if call.after is None or identity(call.arguments["problem"], call.arguments["context"]) not in notes:
                continue
            call.deaths += 1
            if call.deaths == MAX_DEATHS:
                num, error = len(call.after.arguments["seeds"]), failed[call.name]
                call.result, call.done_at = no_scores(num, worker=call.name, error=error), time.monotonic()
                call.ref = None  # the failure of the last attempt may be ready and not fetched yet
                self._to_resend.remove(call)
                self._restarts.excuse()  # the restart after its first death; this one has not been counted
                found = True
        return found

    def _replace(self, group: ActorGroup, failed: Mapping[str, Exception], *, counted: bool = True) -> None:
        """Restart these workers together."""
        self._restarts.restart(failed, partial(group.restart, timeout_s=self._start_timeout_s), counted=counted)
        # These calls are sent after the next push: until then a new engine has the weights of the model folder.
        calls = [call for call in self._open if call.done_at is None and call.name in failed]
        self._to_resend += [call for call in calls if call not in self._to_resend]

    def _deadline(self, call: Call) -> float:
        """When the call's worker times out; never while the completions that the call needs are still being generated, because the
        engine that generates them has a timeout of its own.
        """
        if call.after is not None and call.after.done_at is None:
            return math.inf
        role, index = call.group.role, call.index
        could_begin = max(call.sent_at, (call.after.done_at or 0.0) if call.after else 0.0)
        progress = max(could_begin, self._answered_at[role][index], self._last_progress(role, index))
        return progress + self._timeout_s[role]

    def _timeout_message(self, call: Call) -> str:
        seconds = self._timeout_s[call.group.role]
        return f"{call.name} made no progress on '{call.what}' for {seconds:.0f} s ({call.group.role}.timeout_s)"

    def _send_held(self) -> None:
        """Send the engines all calls that were held, and the reward workers the calls that wait for their completions."""
        held, self._held = self._held or [], None
        self._run_wave(held)
        for call in self._open:
            if call.ref is None:
                call.send()

    def _repeat_wave(self) -> None:
        """Generate all completions of the present wave again. Scores that are ready stay: the completions will be the same."""
        self._run_wave([call for call in self._open if call.group is self._rollouts])
        for call in self._open:
            if call.group is self._rewards and call.done_at is None:
                call.send()

    def _run_wave(self, calls: Sequence[Call]) -> None:
        """Start this wave on all engines. When an engine fails meanwhile it is replaced, and all engines start the wave again."""
        while failed := self._start_wave(calls):
            self._replace(self._rollouts, failed)
            self._push_current()
            self._to_resend.clear()  # the whole wave is sent again

    def _start_wave(self, calls: Sequence[Call]) -> Failures:
        """Every engine drops its calls, gets its share of `calls` and starts them at once. Returns the engines that failed."""
        handles = self._rollouts.handles
        if failed := self._settle("hold", [handle.hold.remote() for handle in handles]):
            return failed
        for call in calls:
            call.send()
        shares = [sum(call.index == index for call in calls) for index in range(len(handles))]
        return self._settle("release", [h.release.remote(num_calls=n) for h, n in zip(handles, shares, strict=True)])

    def _on_all_engines(self, method: str) -> None:
        """Call this method on every engine. When one fails, replace it and push the weights, which wakes all engines; so call all
        again.
        """
        while failed := self._settle(method, [getattr(handle, method).remote() for handle in self._rollouts.handles]):
            self._replace(self._rollouts, failed)
            self._push_current()

    def _settle(self, what: str, refs: Sequence[Any]) -> Failures:
        calls = {self._rollouts.name(index): ref for index, ref in enumerate(refs)}
        _, failed = settle(calls, what=what, timeout_s=self._timeout_s[self._rollouts.role])
        for error in failed.values():
            if isinstance(error, WorkerFailed) and failed_engine(error) is None:
                raise error
        return failed


def failed_engine(error: WorkerFailed) -> int | None:
    """The index of the worker whose engine has ended, if that is why a call failed."""
    cause = getattr(error.__cause__, "cause", None)
    return cause.index if isinstance(cause, EngineFailed) else None

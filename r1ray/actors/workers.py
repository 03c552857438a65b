"""The rollout and reward workers as the collector and the evaluator see them: submit, wait, result. Every wait has an end.

A worker that dies or hangs is started again in its place, an engine with the weights that are served, and its unfinished calls
are made once more: seeds come from ids, so the completions are those that the first attempt would have given. Only the last
completion to a call counts: whatever an earlier attempt still produces is never read.
"""

import math
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import ray

from r1ray.actors.group import HEALTH_TIMEOUT_S, ActorGroup, Wait, result_of, settle, waiting
from r1ray.config import Config
from r1ray.engine.base import EngineFailed, SamplingSpec
from r1ray.failures import Failures, RestartBudget, ResultLost, WorkerDied, WorkerFailed, WorkerUnresponsive
from r1ray.reward.base import RewardContext
from r1ray.types import Problem

MAX_RETRIES = 5
POLL_S = 0.05
"""Between two looks at what is ready, unless all of it is: on a small machine a driver that wakes for every single result takes a
tenth of the engines' time."""
DEATH_REPORTED_S = 1.0
"""Whoever has died says so at once."""


@dataclass(slots=True, eq=False)
class Call:
    """One call on one worker, whichever process that is in the end."""

    group: ActorGroup
    index: int
    what: str
    method: str
    arguments: dict[str, Any]
    sent_at: float
    retries: int = 0
    """How often its result was lost."""
    after: "Call | None" = None
    """Of a score: the call whose completions it waits for."""
    ref: Any = None
    done_at: float | None = None
    """When it was seen to be ready."""
    result: Any = None
    error: WorkerFailed | None = None

    @property
    def name(self) -> str:
        return self.group.name(self.index)

    def send(self) -> None:
        """To the worker, or to the one that has taken its place."""
        self.sent_at = time.monotonic()
        self.done_at = self.result = self.error = None
        # Completions that have been fetched are sent by value: the engine that holds them may be gone by now.
        completions = (
            {"completions_G": self.after.ref if self.after.result is None else self.after.result} if self.after else {}
        )
        self.ref = getattr(self.group.handles[self.index], self.method).remote(**self.arguments, **completions)


class RayWorkers:
    """`r1ray.collect.workers.Workers` over actors. A call goes to the worker with the fewest unfinished ones.

    Completions travel from the engine to the reward worker by reference: the driver never copies them in between.

    A worker is late when it has had something to do and has shown no progress for the role's timeout: calls queue up in a worker,
    so how long one of them has waited says nothing. (A process that is stuck is found much earlier, by `r1ray.actors.watchdog`.)

    With `deterministic=true` nothing depends on which worker is faster: problems go to the engines in turn, all calls made before
    a `wait` are admitted together, and `wait` returns when all of its calls are ready. What runs together decides how sums are
    rounded, so when an engine is lost, all engines do the whole wave once more.

    Args:
        push_current: sends all engines the current weights (`WeightSync.push_current`); None where they serve the model folder.
        last_progress: when a worker's heartbeat last showed progress (`Watchdog.last_progress`).
    """

    def __init__(
        self,
        rollouts: ActorGroup,
        rewards: ActorGroup,
        *,
        cfg: Config,
        restarts: RestartBudget,
        push_current: Callable[[], object] | None = None,
        last_progress: Callable[[str, int], float] = lambda role, index: 0.0,  # noqa: ARG005
    ) -> None:
        self._rollouts, self._rewards = rollouts, rewards
        self._restarts, self._push_current, self._last_progress = restarts, push_current, last_progress
        self._timeout_s = {rollouts.role: cfg.rollout.timeout_s, rewards.role: cfg.reward.timeout_s}
        self._start_timeout_s = cfg.rollout.start_timeout_s
        self._open: list[Call] = []
        """Made and not fetched."""
        self._deterministic = cfg.deterministic
        self._sleep = cfg.rollout.sleep
        self._asleep = False
        """Whether engines may be asleep: since `sleep`, until the next call for completions."""
        self._to_resend: list[Call] = []
        """To be made again as soon as the worker that has taken the place of theirs serves the right weights."""
        self._held: list[Call] | None = None
        """Calls kept back until `wait`; None when calls go to the engines at once."""
        self._load = {group.role: [0] * len(group) for group in (rollouts, rewards)}
        self._answered = {group.role: [0.0] * len(group) for group in (rollouts, rewards)}
        """When each worker last finished something, or the watch over it began anew."""
        self._count = 0

    def generate(self, problem: Problem, *, seeds: Sequence[int], sampling: SamplingSpec) -> Call:
        if self._asleep:
            self._on_all_engines("wake")  # a push has woken them already; there is none while the policy stays as it is
            self._asleep = False
        self._count += 1
        arguments = {
            "request_id": f"{self._count:09d}",
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
        self, problem: Problem, completions: Call, context: RewardContext, *, not_where: Call | None = None
    ) -> Call:
        arguments = {"problem": problem, "context": context}
        what = f"score {problem.id}"
        index = None if not_where is None else not_where.index
        call = self._new_call(
            self._rewards, method="score", what=what, arguments=arguments, after=completions, avoided=index
        )
        if completions.ref is not None:
            call.send()
        return call

    def wait(self, refs: Sequence[Call], *, until: Callable[[], bool] = lambda: False) -> list[Call]:
        """Those that are ready, at least one; none when `until` says so first."""
        if self._held is not None and not until():
            self._admit()
        names = lambda: sorted({call.name for call in refs if call.done_at is None})  # noqa: E731
        with waiting("completions and scores", names) as wait:
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
        """Nothing is generated from here to the next `generate`: with rollout.sleep the engines sleep, all of them before it
        returns, so that trainers find the memory free."""
        if self._sleep:
            self._asleep = True
            self._on_all_engines("sleep")

    def restart_unhealthy(self, unresponsive: Collection[str] = ()) -> None:
        """Start those engines again that do not answer. For when a transfer of weights has failed.

        Args:
            unresponsive: names of workers that count as lost whatever their hearts say.
        """
        engines = {self._rollouts.name(index) for index in range(len(self._rollouts))}
        hung: Failures = {
            name: WorkerUnresponsive(f"{name} hangs, though its process answers")
            for name in sorted(engines & set(unresponsive))
        }
        if lost := hung | self._rollouts.unhealthy(timeout_s=HEALTH_TIMEOUT_S):
            self._replace(self._rollouts, lost)

    def abort(self) -> None:
        """Leave everything that is under way: engines stop generating, nobody waits for a result any more.

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
        taking_turns = self._deterministic and group is self._rollouts
        # A worker whose sandbox is broken fails at once, and so would always be the idlest.
        others = [index for index in range(len(group)) if index != avoided] or [0]
        index = len(self._held or ()) % len(group) if taking_turns else min(others, key=load.__getitem__)
        load[index] += 1
        call = Call(group=group, index=index, sent_at=0.0, **fields)
        self._open.append(call)
        return call

    def _poll(self, refs: Sequence[Call], wait: Wait) -> list[Call] | None:
        """What is ready after a moment; None when the wait goes on."""
        pending: dict[Any, Call] = {call.ref: call for call in refs if call.done_at is None}
        ready, _ = ray.wait(list(pending), num_returns=len(pending), timeout=POLL_S) if pending else ([], [])
        for ref in ready:
            if pending[ref].ref == ref:  # else a restart has just made this call again
                self._settle(pending[ref])
        done = [call for call in refs if call.done_at is not None]
        if done and (len(done) == len(refs) or not self._deterministic):
            return done
        if ready:
            wait.since = time.monotonic()
            return None
        first = min((call for call in refs if call.done_at is None), key=self._due)
        if self._due(first) <= time.monotonic():
            self._restart(first.group, first.index, WorkerUnresponsive(self._timeout_message(first)))
            wait.since = time.monotonic()
        return None

    def _settle(self, call: Call) -> None:
        """Fetch what is ready. A death is not a result: the worker is started again, and the call made once more."""
        try:
            call.result = result_of(call.ref, name=call.name, what=call.what)
        except WorkerDied as error:
            return self._recover(call, error.actor_id, error)
        except ResultLost as error:
            return self._retry(call, error)
        except WorkerFailed as error:
            if (engine := failed_engine(error)) is not None:
                return self._restart(self._rollouts, engine, error)
            call.error = error
        call.done_at = self._answered[call.group.role][call.index] = time.monotonic()

    def _recover(self, call: Call, actor_id: str | None, error: Exception) -> None:
        """Restart the worker with this id: a score also fails when the engine whose completions it waits for has died."""
        if actor_id is None:
            return self._restart(call.group, call.index, error)
        for group in (self._rollouts, self._rewards):
            index = group.index_of(actor_id)
            if index is not None:
                return self._restart(group, index, error)
        self._retry(call, error)  # that worker has been replaced already

    def _retry(self, call: Call, error: Exception) -> None:
        """A result went down with its node; its maker may live on."""
        call.retries += 1
        if call.retries > MAX_RETRIES:
            call.error, call.done_at = WorkerFailed(f"{error} (for the {call.retries}th time)"), time.monotonic()
            return
        if self._deterministic:
            return self._redo_wave()
        self._resend([call.after] if call.after is not None and call.after.result is None else [call])

    def _restart(self, group: ActorGroup, index: int, error: Exception) -> None:
        """Replace a worker, and whoever else of its role has died by now, and have their unfinished work done again."""
        others = group.unhealthy(timeout_s=DEATH_REPORTED_S)
        died = {other: why for other, why in others.items() if isinstance(why, WorkerDied)}
        self._replace(group, died | {group.name(index): error})
        if group is self._rollouts and self._push_current is not None:
            self._push_current()
        for times in self._answered.values():
            times[:] = [time.monotonic()] * len(times)  # nobody was watched during the restart
        lost, self._to_resend = self._to_resend, []
        if self._deterministic and group is self._rollouts:
            return self._redo_wave()
        self._resend(lost)

    def _resend(self, calls: Sequence[Call]) -> None:
        """These, and the scores that wait for them."""
        for call in calls:
            call.send()
        for call in self._open:
            if call.done_at is None and call.after in calls:
                call.send()

    def _replace(self, group: ActorGroup, lost: Mapping[str, Exception]) -> None:
        """Start these workers again, together."""
        self._restarts.restart(lost, partial(group.restart, timeout_s=self._start_timeout_s))
        # Not sent yet: a new engine has the model folder's weights until the next push.
        calls = [call for call in self._open if call.done_at is None and call.name in lost]
        self._to_resend += [call for call in calls if call not in self._to_resend]

    def _due(self, call: Call) -> float:
        """When its worker is late; never while it waits for another worker's completions, who is late first."""
        if call.after is not None and call.after.done_at is None:
            return math.inf
        role, index = call.group.role, call.index
        could_begin = max(call.sent_at, (call.after.done_at or 0.0) if call.after else 0.0)
        return max(could_begin, self._answered[role][index], self._last_progress(role, index)) + self._timeout_s[role]

    def _timeout_message(self, call: Call) -> str:
        seconds = self._timeout_s[call.group.role]
        return f"{call.name} made no progress for {seconds:.0f} s ({call.group.role}.timeout_s) while it had '{call.what}' to do"

    def _admit(self) -> None:
        """Give the engines all calls that were held, and the reward workers those that wait for their completions."""
        held, self._held = self._held or [], None
        self._run_wave(held)
        for call in self._open:
            if call.ref is None:
                call.send()

    def _redo_wave(self) -> None:
        """All completions of the present wave once more; scores that are there stay, for the completions will be the same."""
        wave = [call for call in self._open if call.group is self._rollouts]
        self._run_wave(wave)
        for call in self._open:
            if call.group is self._rewards and call.done_at is None:
                call.send()

    def _run_wave(self, calls: Sequence[Call]) -> None:
        """Have the engines do this wave; those that are lost meanwhile are replaced, and all begin once more."""
        while failed := self._wave(calls):
            self._replace(self._rollouts, failed)
            if self._push_current is not None:
                self._push_current()
            self._to_resend.clear()  # the whole wave is made again

    def _on_all_engines(self, method: str) -> None:
        """Have every engine do this; those that are lost are replaced, whose weights wake all, and all begin once more."""
        while failed := self._settle_engines(
            method, [getattr(handle, method).remote() for handle in self._rollouts.handles]
        ):
            self._replace(self._rollouts, failed)
            if self._push_current is not None:
                self._push_current()

    def _wave(self, calls: Sequence[Call]) -> Failures:
        """Every engine drops what it has, gets its share of `calls` and begins with all of it at once; the engines that failed."""
        handles = self._rollouts.handles
        if failed := self._settle_engines("hold", [handle.hold.remote() for handle in handles]):
            return failed
        for call in calls:
            call.send()
        shares = [sum(call.index == index for call in calls) for index in range(len(handles))]
        return self._settle_engines(
            "release", [h.release.remote(num_calls=n) for h, n in zip(handles, shares, strict=True)]
        )

    def _settle_engines(self, what: str, refs: Sequence[Any]) -> Failures:
        calls = {self._rollouts.name(index): ref for index, ref in enumerate(refs)}
        _, failed = settle(calls, what=what, timeout_s=self._timeout_s[self._rollouts.role])
        for error in failed.values():
            if isinstance(error, WorkerFailed) and failed_engine(error) is None:
                raise error
        return failed


def failed_engine(error: WorkerFailed) -> int | None:
    """The worker whose engine has ended, where that is why a call failed."""
    cause = getattr(error.__cause__, "cause", None)
    return cause.index if isinstance(cause, EngineFailed) else None

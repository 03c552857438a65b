"""The rollout and reward workers as the collector and the evaluator see them: submit, wait, result. Every wait has an end.

A worker that dies or hangs is started again in its place, an engine with the weights that are served, and its unfinished calls are
made once more: seeds come from ids, so the replies are those that the first attempt would have given.
"""

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import ray

from r1ray.actors.group import ActorGroup, WorkerDied, WorkerFailed, WorkerLate, gather, result_of
from r1ray.config import Config
from r1ray.engine.base import EngineFailed, SamplingSpec
from r1ray.reward.base import RewardContext
from r1ray.types import Problem

MAX_RESTARTS = 20
"""Restarts of all workers of a stage together, after which the next death or hang ends it: something kills them all the time."""
ALIVE_TIMEOUT_S = 10.0


@dataclass(slots=True, eq=False)
class Call:
    """One call on one worker, whichever process that is in the end."""

    group: ActorGroup
    index: int
    what: str
    method: str
    arguments: dict[str, Any]
    made: float
    after: "Call | None" = None
    """Of a score: the call whose replies it waits for."""
    ref: Any = None
    done: float | None = None
    """When it was seen to be ready."""
    result: Any = None
    error: WorkerFailed | None = None

    @property
    def name(self) -> str:
        return f"{self.group.role}-{self.index}"

    def send(self) -> None:
        """To the worker, or to the one that has taken its place."""
        self.made = time.monotonic()
        replies = {"completions_G": self.after.ref} if self.after else {}
        self.ref = getattr(self.group.handles[self.index], self.method).remote(**self.arguments, **replies)


class RayWorkers:
    """`r1ray.collect.Workers` over actors. A call goes to the worker with the fewest unfinished ones.

    Completions travel from the engine to the reward worker by reference: the driver never copies them in between.

    A worker is late when it has had something to do and has finished nothing for the role's timeout: calls queue up in a worker, so
    how long one of them has waited says nothing.

    With `deterministic=true` nothing depends on which worker is faster: problems go to the engines in turn, all calls made before
    a `wait` are admitted together, and `wait` returns when all of its calls are ready.

    Args:
        served: gives all engines the weights that are served (`WeightSync.again`); None where they serve the model folder's.
        event: told which worker was restarted and why (`RunDir.event`).
    """

    def __init__(
        self,
        rollouts: ActorGroup,
        rewards: ActorGroup,
        *,
        cfg: Config,
        event: Callable[..., None],
        served: Callable[[], object] | None = None,
    ) -> None:
        self._rollouts, self._rewards = rollouts, rewards
        self._event, self._served = event, served
        self._timeout_s = {rollouts.role: cfg.rollout.timeout_s, rewards.role: cfg.reward.timeout_s}
        self._start_timeout_s = cfg.rollout.start_timeout_s
        self._open: list[Call] = []
        """Made and not fetched."""
        self._deterministic = cfg.deterministic
        self._held: list[int] | None = None
        """Calls held at each engine until `wait`; None when nothing is held."""
        self._load = {group.role: [0] * len(group) for group in (rollouts, rewards)}
        self._answered = {group.role: [0.0] * len(group) for group in (rollouts, rewards)}
        """When each worker last finished something, or the watch over it began anew."""
        self._count = 0
        self._restarts = 0

    def generate(self, problem: Problem, *, seeds: Sequence[int], sampling: SamplingSpec) -> Call:
        turn = self._hold() if self._deterministic else None
        self._count += 1
        arguments = {
            "request_id": f"{self._count:09d}",
            "prompt_ids_T": problem.prompt_ids_T,
            "seeds": list(seeds),
            "sampling": sampling,
        }
        return self._made(self._rollouts, turn, method="generate", what=f"generate {problem.id}", arguments=arguments)

    def score(self, problem: Problem, completions: Call, context: RewardContext) -> Call:
        arguments = {"problem": problem, "context": context}
        what = f"score {problem.id}"
        return self._made(self._rewards, None, method="score", what=what, arguments=arguments, after=completions)

    def wait(self, refs: Sequence[Call]) -> list[Call]:
        if self._held is not None:
            self._release(self._held)
        while True:
            waiting = {call.ref: call for call in refs if call.done is None}
            ready, _ = ray.wait(list(waiting), num_returns=len(waiting), timeout=0) if waiting else ([], [])
            for ref in ready:
                if waiting[ref].ref == ref:  # else a restart has just made this call again
                    self._settle(waiting[ref])
            done = [call for call in refs if call.done is not None]
            if done and (len(done) == len(refs) or not self._deterministic):
                return done
            left = [call for call in refs if call.done is None]
            first = min(left, key=self._due)
            seconds = self._due(first) - time.monotonic()
            if seconds <= 0:
                self._restart(first.group, first.index, reason=self._complaint(first), error=WorkerLate)
            elif not ready:
                ray.wait(list(waiting), num_returns=1, timeout=None if math.isinf(seconds) else seconds)

    def result(self, ref: Call) -> Any:
        self._open.remove(ref)
        self._load[ref.group.role][ref.index] -= 1
        if ref.error is not None:
            raise ref.error
        return ref.result

    def restart_dead(self) -> bool:
        """Start those again that do not answer; whether there were any. For when a transfer of weights has failed."""
        found = False
        for index, handle in enumerate(self._rollouts.handles):
            name = f"{self._rollouts.role}-{index}"
            try:
                gather([handle.alive.remote()], [name], what="say that it is alive", timeout_s=ALIVE_TIMEOUT_S)
            except (WorkerDied, WorkerLate) as error:
                self._restart(self._rollouts, index, reason=str(error), error=type(error), served=False)
                found = True
        return found

    def _made(self, group: ActorGroup, index: int | None, **fields: Any) -> Call:
        load = self._load[group.role]
        index = load.index(min(load)) if index is None else index
        load[index] += 1
        call = Call(group=group, index=index, made=0.0, **fields)
        call.send()
        self._open.append(call)
        return call

    def _settle(self, call: Call) -> None:
        """Fetch what is ready. A death is not a result: the worker is started again, and the call made once more."""
        try:
            call.result = result_of(call.ref, name=call.name, what=call.what)
        except WorkerDied as error:
            return self._replace(error.actor_id, call, error)
        except WorkerFailed as error:
            cause: Any = error.__cause__
            if isinstance(getattr(cause, "cause", None), EngineFailed):
                return self._replace(cause.actor_id, call, error)
            call.error = error
        call.done = self._answered[call.group.role][call.index] = time.monotonic()

    def _replace(self, actor_id: str | None, call: Call, error: WorkerDied | WorkerFailed) -> None:
        """Restart the worker with this id: a score also fails when the engine whose replies it waits for has died."""
        for group in (self._rollouts, self._rewards):
            index = group.index_of(actor_id)
            if index is not None:
                return self._restart(group, index, reason=str(error), error=type(error))
        self._restart(call.group, call.index, reason=str(error), error=type(error))

    def _restart(
        self, group: ActorGroup, index: int, *, reason: str, error: type[Exception], served: bool = True
    ) -> None:
        self._restarts += 1
        if self._restarts > MAX_RESTARTS:
            raise error(f"{reason} (and {MAX_RESTARTS} workers have been restarted before)")
        self._event("worker_restarted", worker=f"{group.role}-{index}", reason=reason)
        group.restart(index, timeout_s=self._start_timeout_s)
        if group is self._rollouts and served and self._served is not None:
            self._served()
        for times in self._answered.values():
            times[:] = [time.monotonic()] * len(times)  # nobody was watched during the restart
        again = [call for call in self._open if call.done is None and call.group is group and call.index == index]
        again += [call for call in self._open if call.done is None and call.after in again]
        for call in again:
            call.send()

    def _due(self, call: Call) -> float:
        """When its worker is late; never while it waits for another worker's replies, who is late first."""
        if call.after is not None and call.after.done is None:
            return math.inf
        could_begin = max(call.made, (call.after.done or 0.0) if call.after else 0.0)
        return max(could_begin, self._answered[call.group.role][call.index]) + self._timeout_s[call.group.role]

    def _complaint(self, call: Call) -> str:
        seconds = self._timeout_s[call.group.role]
        return f"{call.name} finished nothing for {seconds:.0f} s ({call.group.role}.timeout_s) while it had '{call.what}' to do"

    def _hold(self) -> int:
        """The engine whose turn it is; before the first call since the last `wait`, all engines are told to hold."""
        if self._held is None:
            self._held = [0] * len(self._rollouts)
            self._on_engines([handle.hold.remote() for handle in self._rollouts.handles], what="hold")
        index = sum(self._held) % len(self._held)
        self._held[index] += 1
        return index

    def _release(self, held: list[int]) -> None:
        self._held = None
        calls = zip(self._rollouts.handles, held, strict=True)
        self._on_engines([handle.release.remote(num_calls=num) for handle, num in calls], what="release")

    def _on_engines(self, refs: list[Any], *, what: str) -> None:
        self._rollouts.gather(refs, what=what, timeout_s=self._timeout_s[self._rollouts.role])

"""The loop with fake components: the order of calls, and what counts as a step and as an update; without Ray and engines."""

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import numpy as np
import pytest

import r1ray.algo
from r1ray.check import load
from r1ray.cli import compose
from r1ray.collect.outages import RewardOutage
from r1ray.config import Config
from r1ray.data.stream import NothingToLearn
from r1ray.loop import LoopComponents, due, train
from r1ray.run.checkpoint import Progress
from r1ray.run.stop import Stopped
from r1ray.types import Batch, Collected, Completion, Group, Message, Problem, Sample, Score, VersionSpan


def config(*overrides: str) -> Config:
    small = ["algo.prompts_per_step=2", "algo.group_size=2", "trainer.num_workers=1", "steps=3", "eval.every_steps=2"]
    return load(compose([*small, "checkpoint.every_steps=2", *overrides])).config


def group(number: int) -> Group:
    problem = Problem(
        id=f"p{number}",
        source="test",
        messages=(Message(role="user", content="?"),),
        prompt_ids_T=np.array([1, 2], np.int32),
        verifier="none",
        payload={},
    )
    completion = Completion(
        token_ids_T=np.array([3, 0], np.int32),
        rollout_logprobs_T=np.zeros(2, np.float32),
        temperature=1.0,
        text="a",
        finish_reason="stop",
        versions=(VersionSpan(version=0, start=0, end=2),),
    )
    scores = tuple(
        Score(reward=r, correct=r > 0, components={"a": r}, statuses={"a": "ok"}, usable=True, seconds=0.0)
        for r in (0.0, 1.0)
    )
    return Group(problem=problem, completions=(completion, completion), scores=scores)


@dataclass
class World:
    """A fake of every part that records its calls."""

    did: list[str] = field(default_factory=list)
    skip: Callable[[int], bool] = lambda update: False
    updates: int = 0
    begun: list[int] = field(default_factory=list)
    logged: dict[int, dict[str, float]] = field(default_factory=dict)
    saved: list[Progress] = field(default_factory=list)
    scored: list[int] = field(default_factory=list)
    """Steps that were saved together with an evaluation."""
    observed: list[int] = field(default_factory=list)
    stop_in: str = ""
    """Where the run is asked to stop: `collect 2`."""
    stops_with: type[Exception] = Stopped

    @property
    def problems(self) -> "World":
        return self

    def state_dict(self) -> dict[str, Any]:
        return {"observed": len(self.observed)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        del self.observed[state["observed"] :]

    def begin(self, step: int) -> None:
        self.begun.append(step)
        self._stop_if_asked(f"begin {step}")

    def _stop_if_asked(self, here: str) -> None:
        if self.stop_in == here:
            raise self.stops_with("asked to stop (SIGTERM)")

    def collect(self, num_groups: int, *, step: int) -> Collected:
        self._stop_if_asked(f"collect {step}")
        self.did.append(f"collect {step}")
        groups = [group(i) for i in range(num_groups)]
        counts = {"refilled": 0, "backfilled": 0, "regenerated": 0, "rescored": 0}
        return Collected(kept=groups, generated=groups, failed=[], rollout_s=1.0, reward_s=0.0, **counts)

    def observe(self, groups: Sequence[Group]) -> dict[str, float]:
        self.observed.append(len(groups))
        return {"curriculum/left_out": float(sum(self.observed))}

    def annotate(self, samples: Sequence[Sample], needs: frozenset[Any]) -> list[Sample]:
        names = {"old_logprobs": "old_logprobs_T", "ref_logprobs": "ref_logprobs_T"}
        return [replace(s, **{names[need]: np.zeros_like(s.mask_T) for need in needs}) for s in samples]

    def update(self, batch: Batch) -> dict[str, float]:
        self.updates += 1
        self.did.append("update")
        return {"loss/policy": 0.0, "updates_skipped": float(self.skip(self.updates))}

    def push(self, version: int) -> dict[str, float]:
        self.did.append(f"push {version}")
        return {"sync/bytes": 1.0}

    def evaluate(self, step: int) -> dict[str, float]:
        if self.stop_in == f"evaluate {step}":
            return {}
        self.did.append(f"evaluate {step}")
        return {"eval/test/accuracy": 0.5}

    def replace_reference(self, updates: int) -> None:
        self.did.append(f"reference {updates}")

    def save(self, progress: Progress, metrics: Any) -> None:
        self.did.append(f"save {progress.step}")
        self.scored += [progress.step] * ("eval/test/accuracy" in metrics)
        self.saved.append(progress)

    def step(self, step: int, metrics: dict[str, float]) -> None:
        assert step not in self.logged, "a step was logged twice"
        self.logged[step] = dict(metrics)

    def rollouts(self, step: int, groups: Sequence[Group]) -> None: ...

    def event(self, kind: str, **fields: Any) -> None: ...


def run(cfg: Config, world: World, progress: Progress | None = None, *, algo: Any = None) -> Progress:
    components = LoopComponents(
        algo=algo or r1ray.algo.make(cfg.algo, max_response_length=8),
        collector=world,  # type: ignore[arg-type]
        annotate=world.annotate,
        trainers={"policy": world},
        sync=world,
        on_step_begin=world.begin,
        replace_reference=world.replace_reference,
        evaluate=world.evaluate,
        save=world.save,
        log=world,
    )
    return train(cfg, components, progress or Progress(step=0, updates=0, version=0))


def test_weights_are_pushed_before_the_first_completion_and_after_every_step() -> None:
    world = World()
    end = run(config(), world)
    assert world.did == [
        *("push 0", "evaluate 0"),
        *("collect 1", "update", "push 1"),
        *("collect 2", "update", "push 2", "evaluate 2", "save 2"),
        *("collect 3", "update", "push 3", "evaluate 3", "save 3"),
    ]
    assert (end.step, end.updates, end.version) == (3, 3, 3)
    assert list(world.logged) == [0, 1, 2, 3]


def test_curriculum_observes_every_step_once_and_its_metrics_are_logged() -> None:
    world = World()
    run(config(), world)
    assert world.observed == [2, 2, 2]
    assert [world.logged[step]["curriculum/left_out"] for step in (1, 2, 3)] == [2, 4, 6]
    assert "curriculum/left_out" not in world.logged[0]


def test_steps_count_loop_passes_and_updates_count_optimizer_steps() -> None:
    world = World()
    end = run(config("algo.num_minibatches=4"), world)
    assert (end.step, end.updates, end.version) == (3, 12, 3)
    assert [world.logged[step]["update"] for step in (1, 2, 3)] == [4, 8, 12]


def test_reference_is_replaced_every_n_updates_not_steps() -> None:
    world = World()
    run(config("algo.num_minibatches=2", "algo.reference_refresh_updates=4", "algo.kl_coef=0.1"), world)
    assert [did for did in world.did if did.startswith("reference")] == ["reference 4"]
    assert world.saved[-1].reference_updates == 4


def test_no_reference_is_replaced_without_kl() -> None:
    world = World()
    run(config("algo.kl_coef=0", "algo.reference_refresh_updates=1"), world)
    assert not [did for did in world.did if did.startswith("reference")]


def test_skipped_update_pushes_no_weights() -> None:
    world = World(skip=lambda update: update == 2)
    end = run(config(), world)
    assert [did for did in world.did if did.startswith("push")] == ["push 0", "push 1", "push 2"]
    assert (end.step, end.updates, end.version) == (3, 2, 2)
    assert world.logged[2]["updates_skipped"] == 1


def test_resumed_run_repeats_nothing() -> None:
    whole, part = World(), World()
    run(config(), whole)
    run(config(), part, whole.saved[0])
    assert part.did[0] == "push 2" and part.did[1:] == whole.did[whole.did.index("collect 3") :]
    assert list(part.logged) == [3] and part.begun == [3]


@pytest.mark.parametrize("where", ["begin 2", "collect 2"])
def test_stopped_run_saves_only_the_last_complete_step(where: str) -> None:
    world = World(stop_in=where)
    with pytest.raises(Stopped):
        run(config("eval.before_training=false"), world)
    assert world.did == ["push 0", "collect 1", "update", "push 1", "save 1"]
    assert [(saved.step, saved.updates, saved.version) for saved in world.saved] == [(1, 1, 1)]
    assert list(world.logged) == [1]


@pytest.mark.parametrize("error", [RewardOutage, NothingToLearn])
def test_failing_run_saves_the_last_complete_step(error: type[Exception]) -> None:
    world = World(stop_in="collect 2", stops_with=error)
    with pytest.raises(error):
        run(config("eval.before_training=false"), world)
    assert world.did == ["push 0", "collect 1", "update", "push 1", "save 1"]


def test_run_stopped_before_its_first_step_saves_its_start() -> None:
    world, start = World(stop_in="begin 3"), Progress(step=2, updates=9, version=5)
    with pytest.raises(Stopped):
        run(config(), world, start)
    assert world.saved == [start] and not world.logged


def test_stopped_run_resumes_like_an_uninterrupted_one() -> None:
    whole, stopped, rest = World(), World(stop_in="collect 3"), World()
    run(config(), whole)
    with pytest.raises(Stopped):
        run(config(), stopped)
    run(config(), rest, stopped.saved[-1])
    assert rest.did == ["push 2", *whole.did[whole.did.index("collect 3") :]]


@pytest.mark.parametrize("step", [2, 3], ids=["within the stage", "last step"])
@pytest.mark.parametrize("saves", [0, 2], ids=["saved after the last step", "saved every second step"])
def test_an_evaluation_that_was_cut_short_is_finished_on_resume(step: int, saves: int) -> None:
    """Together the two runs log, and save, what one run does: `best` needs the score of the evaluation."""
    cfg, whole, stopped, rest = config(f"checkpoint.every_steps={saves}"), World(), World(), World()
    run(cfg, whole)
    stopped.stop_in = f"evaluate {step}"
    with pytest.raises(Stopped, match=f"during the evaluation of step {step}"):
        run(cfg, stopped)
    assert list(stopped.logged) == list(range(step)), "the step is logged once, with its evaluation"
    assert stopped.did[-1] == f"save {step}" and stopped.saved[-1].unevaluated
    saved = json.loads(json.dumps(asdict(stopped.saved[-1])))
    again = World(stop_in=f"evaluate {step}")
    with pytest.raises(Stopped):
        run(cfg, again, Progress(**saved))
    assert not again.logged and again.saved[-1] == Progress(**saved), "stopped twice"
    rest.observed += stopped.observed  # the state of the curriculum is in the checkpoint
    final = run(cfg, rest, Progress(**saved))
    assert stopped.scored + rest.scored == whole.scored
    assert rest.did == [f"push {step}", *whole.did[whole.did.index(f"evaluate {step}") :]]
    times = {name for row in whole.logged.values() for name in row if name.startswith(("time/", "tokens_per_second/"))}
    together = stopped.logged | rest.logged
    assert list(together) == list(whole.logged)
    for number, row in whole.logged.items():
        assert {k: v for k, v in row.items() if k not in times} == {
            k: v for k, v in together[number].items() if k not in times
        }
    assert final.step == 3 and not final.unevaluated and not any(progress.unevaluated for progress in rest.saved)


@pytest.mark.parametrize(("step", "every", "expected"), [(4, 2, True), (3, 2, False), (5, 0, True), (3, 0, False)])
def test_evaluation_is_due_every_n_steps_and_after_the_last(step: int, every: int, expected: bool) -> None:
    assert due(step, every, last=5) is expected

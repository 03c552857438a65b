"""An algorithm of the user's that raises or returns no numbers: shown at once, the last complete step is saved, the run ends."""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import pytest
import test_loop
from test_loop import World, config

import r1ray.algo
from r1ray.advantages import advantages_of
from r1ray.collect.selection import Selection
from r1ray.failures import UpdateFailed
from r1ray.plugin_errors import PluginFailed
from r1ray.run.checkpoint import Progress
from r1ray.run.stop import Stopped

MINIBATCHES = 2
SEVERAL = config(f"algo.num_minibatches={MINIBATCHES}")


@dataclass
class Broken:
    """GRPO, but for one method from one step on."""

    method: str
    step: int
    does: Callable[..., Any]
    inner: Any = field(default_factory=lambda: r1ray.algo.make(SEVERAL.algo, max_response_length=8))
    calls: int = 0

    def __getattr__(self, name: str) -> Any:
        if name != self.method:
            return getattr(self.inner, name)

        def method(*args: Any) -> Any:
            self.calls += 1
            return getattr(self.inner, name)(*args) if self.calls < self.step else self.does(self.inner, *args)

        return method


def typo(*_: Any) -> Any:
    return avantages  # type: ignore[name-defined]  # noqa: F821


def run(broken: Broken, world: World) -> Progress:
    cfg = config(
        "steps=4",
        "eval.every_steps=0",
        "eval.before_training=false",
        "checkpoint.every_steps=0",
    )
    return test_loop.run(cfg, world, algo=broken)


def with_value(value: float) -> Callable[..., Any]:
    def advantages(inner: Any, samples: Any, state: Any) -> Any:
        made = inner.advantages(samples, state)
        return [
            *made[:-1],
            replace(made[-1], advantages_T=np.where(made[-1].mask_T > 0, np.float32(value), np.float32(0))),
        ]

    return advantages


BROKEN: dict[str, Callable[..., Any]] = {
    "NameError": typo,
    "nan": with_value(np.nan),
    "inf": with_value(np.inf),
    "-inf": with_value(-np.inf),
    "none": lambda inner, samples, state: [replace(sample, advantages_T=None) for sample in samples],
    "no samples": lambda inner, samples, state: None,
    "numbers": lambda inner, samples, state: [0.0] * len(samples),
    "float64": lambda inner, samples, state: [
        replace(sample, advantages_T=sample.mask_T * 1.0e300) for sample in samples
    ],
    "too short": lambda inner, samples, state: [replace(s, advantages_T=np.zeros(1, np.float32)) for s in samples],
}


@pytest.mark.filterwarnings("ignore:overflow")
@pytest.mark.parametrize("what", BROKEN)
def test_advantages_that_are_none_end_the_run_with_the_last_step_saved(
    what: str, capsys: pytest.CaptureFixture[str]
) -> None:
    world = World()
    with pytest.raises(PluginFailed, match=r"advantages of algo.name=grpo.*failed: .*resume=auto"):
        run(Broken("advantages", 3, BROKEN[what]), world)
    assert world.did[-2:] == ["collect 3", "save 2"] and list(world.logged) == [1, 2]
    assert world.observed == [2, 2], "the problems of the step are drawn again"
    assert "Traceback" in capsys.readouterr().out


def test_a_mistake_in_the_first_step_saves_nothing() -> None:
    world = World()
    with pytest.raises(PluginFailed):
        run(Broken("advantages", 1, typo), world)
    assert not world.saved


@pytest.mark.parametrize("method", ["minibatches", "weights", "update_state"])
def test_a_mistake_after_the_advantages_saves_a_whole_step(method: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Also one that shows in the last of several minibatches: none is trained on before all have their weights."""
    world = World()
    call = 2 * MINIBATCHES if method == "weights" else 2
    with pytest.raises(PluginFailed, match=rf"{method} of algo.name=grpo.*NameError: name 'avantages'.*in typo"):
        run(Broken(method, call, typo), world)
    assert "return avantages" in capsys.readouterr().out and list(world.logged) == [1]
    [saved] = world.saved
    trained = method == "update_state"
    assert saved.step == 1 + trained and world.updates == saved.step * MINIBATCHES
    assert bool(saved.unevaluated) == trained, "a resume updates the state and logs the step"


@pytest.mark.parametrize(("update", "saved", "drawn"), [(1, [], 0), (3, [1], 1), (4, [], 2)])
def test_a_loss_that_fails_saves_the_last_step_while_its_weights_are_there(
    update: int, saved: list[int], drawn: int
) -> None:
    world = World()
    failing = replace_update(world, update, UpdateFailed("policy-0 failed in 'update': NameError: name 'avantages'"))
    with pytest.raises(UpdateFailed, match="avantages"):
        run(Broken("loss", 99, typo), failing)
    assert [progress.step for progress in world.saved] == saved
    assert len(world.observed) == drawn


def replace_update(world: World, number: int, error: Exception) -> World:
    update = world.update

    def fails(batch: Any) -> dict[str, float]:
        if world.updates + 1 == number:
            raise error
        return update(batch)

    world.update = fails  # type: ignore[method-assign]
    return world


def test_a_resume_repeats_the_update_of_the_state() -> None:
    """With the numbers of the step that was cut short, from the state before it."""
    seen: list[tuple[Any, float]] = []

    def counts(inner: Any, state: Any, metrics: Any) -> Any:
        seen.append((dict(state), metrics["update"]))
        return {"n": state.get("n", 0) + 1}

    world, cfg = World(), config("steps=3", "eval.every_steps=0", "eval.before_training=false")
    world.stop_in = "evaluate 3"
    with pytest.raises(Stopped):
        test_loop.run(cfg, world, algo=Broken("update_state", 1, counts))
    assert dict(world.saved[-1].algo) == {"n": 2} and world.saved[-1].unevaluated
    world.stop_in = ""
    end = test_loop.run(cfg, world, world.saved[-1], algo=Broken("update_state", 1, counts))
    assert seen[-1] == seen[-2] and dict(end.algo) == {"n": 3} and world.logged[3]["state/n"] == 3


def test_a_mistake_in_the_filter_names_the_problem() -> None:
    selection = Selection(num_groups=1, keep=typo, min_share=1.0)
    with pytest.raises(PluginFailed, match=r"keep.*problem p7.*NameError"):
        selection.add(0, test_loop.group(7))


def test_what_is_not_trained_on_may_have_any_advantage() -> None:
    samples = r1ray.loop.to_samples([test_loop.group(0)], truncated="zero")
    nothing = [replace(sample, mask_T=np.zeros_like(sample.mask_T)) for sample in samples]

    def nans(inner: Any, given: Any, state: Any) -> Any:
        return [replace(sample, advantages_T=np.full_like(sample.mask_T, np.nan)) for sample in given]

    assert len(advantages_of(Broken("advantages", 1, nans), nothing, {}, name="mine")) == 2  # type: ignore[arg-type]
    with pytest.raises(
        PluginFailed, match=r"completion 0 of problem p0@0 .* has the advantage nan at 2 tokens \(its reward is 0"
    ):
        advantages_of(Broken("advantages", 1, nans), samples, {}, name="mine")  # type: ignore[arg-type]


def test_a_bug_that_an_evaluation_finds_saves_the_step_that_it_follows() -> None:
    world = World()

    def evaluate(step: int) -> dict[str, float]:
        raise PluginFailed("step 2: reward component 'mine' failed")

    world.evaluate = evaluate  # type: ignore[method-assign]
    with pytest.raises(PluginFailed):
        test_loop.run(config("eval.before_training=false"), world)
    assert [progress.step for progress in world.saved] == [2] and list(world.logged) == [1]
    assert world.saved[0].unevaluated, "a resume finishes the evaluation and logs the step"

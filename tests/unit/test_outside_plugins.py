"""Plug-ins from outside the repository: a file of the user's own, named by import path; nothing of r1ray's is touched."""

import sys
from pathlib import Path

import numpy as np
import pytest
from algo_samples import sample
from reward_samples import completion, context, problem

from r1ray import reward
from r1ray.algo import make
from r1ray.check import CheckedRun, ConfigError, load
from r1ray.cli import compose
from r1ray.data.sources import load_source
from r1ray.plugin import args_of, resolve
from r1ray.stage_kinds import KINDS

ALGORITHM = """
from dataclasses import dataclass
from typing import ClassVar

from r1ray.algo.policy import PolicyGradient, spread
from r1ray.config.base import Fraction
from r1ray.plugin import Args


class ThresholdArgs(Args):
    above: Fraction
    scale: float = 1.0


@dataclass(frozen=True, kw_only=True)
class Threshold(PolicyGradient):
    Args: ClassVar[type[Args]] = ThresholdArgs

    def _advantages(self, samples, state):
        signs = [1.0 if reward > self.args.above else -1.0 for reward in self.rewards(samples, state)]
        return spread(samples, [self.args.scale * sign for sign in signs])
"""
REWARD = """
from pydantic import model_validator

from r1ray.config.base import PositiveInt
from r1ray.mistakes import Mistake
from r1ray.plugin import Args, arguments, invalid
from r1ray.reward.base import response_text


class BriefArgs(Args):
    shortest: PositiveInt = 1
    longest: PositiveInt

    @model_validator(mode="after")
    def _in_order(self):
        if self.shortest > self.longest:
            raise invalid("shortest", f"exceeds longest={self.longest}", "a smaller value")
        return self

    def check(self, view, key, owner):
        if self.longest > view.rollout.max_response_length:
            rule = f"no response is longer than rollout.max_response_length={view.rollout.max_response_length}"
            yield Mistake(key=f"{key}.longest", value=self.longest, rule=rule, remedy="a smaller value")


@arguments(BriefArgs)
def brief(problem, completions_G, context, args):
    texts = [response_text(problem, completion) for completion in completions_G]
    return [float(args.shortest <= len(text) <= args.longest) for text in texts]
"""
SOURCE = """
from r1ray.config.base import PositiveInt
from r1ray.data.base import Item, Source, SourceArgs
from r1ray.data.schemas import user


class SquaresArgs(SourceArgs):
    num_problems: PositiveInt
    first: int = 1


def generate(args):
    for n in range(args.first, args.first + args.num_problems):
        yield {"n": n}


def read(row, args):
    return Item(messages=user(f"What is {row['n']} * {row['n']}?"), verifier="math", payload={"answers": [str(row["n"] ** 2)]})


SQUARES = Source(read=read, columns={"n": "n"}, generate=generate, Args=SquaresArgs)
"""
STAGE = """
from r1ray.config.base import PositiveInt
from r1ray.plugin import Args
from r1ray.stage_kinds import StageKind


class CountArgs(Args):
    up_to: PositiveInt = 3


COUNT = StageKind(run="my_stage:run", trains=False, generates=False, Args=CountArgs)


def run(context):
    context.run.event("counted", up_to=context.args.up_to)
"""


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    for name, text in (("algorithm", ALGORITHM), ("reward", REWARD), ("source", SOURCE), ("stage", STAGE)):
        (tmp_path / f"my_{name}.py").write_text(text)
        monkeypatch.delitem(sys.modules, f"my_{name}", raising=False)
    return tmp_path


def checked(*overrides: str) -> CheckedRun:
    return load(compose(overrides))


def mistakes(*overrides: str) -> dict[str, tuple[str, str]]:
    """{key: (rule, remedy)} of a configuration that must have some."""
    with pytest.raises(ConfigError) as caught:
        checked(*overrides)
    return {mistake.key: (mistake.rule, mistake.remedy) for mistake in caught.value.mistakes}


def test_an_algorithm_from_outside(place: Path) -> None:
    named = "algo.name=my_algorithm:Threshold"
    run = checked(named, "algo.args.above=0.5", "algo.kl_coef=0")
    assert run.stages[0].config.algo.args == {"above": 0.5, "scale": 1.0}, "defaults are filled in"
    algorithm = make(run.stages[0].config.algo, max_response_length=8)
    samples = [sample(3, reward=reward, index=i) for i, reward in enumerate((1.0, 0.0))]
    out = algorithm.advantages(samples, algorithm.initial_state())
    assert [s.advantages_T.tolist() for s in out if s.advantages_T is not None] == [[0, 1, 1], [0, -1, -1]]
    assert len(algorithm.minibatches(out, {}, np.random.default_rng(0))) == run.config.algo.num_minibatches

    found = mistakes(named, "algo.args.abov=0.5")
    assert "did you mean algo.args.above?" in found["algo.args.abov"][1]
    assert "needs this argument" in found["algo.args.above"][0]
    assert "at most 1" in mistakes(named, "algo.args.above=2")["algo.args.above"][0]
    assert "number" in mistakes(named, "algo.args.above=high")["algo.args.above"][0]


def test_a_reward_from_outside(place: Path) -> None:
    named = "reward.components.brief={name: 'my_reward:brief', weight: 0.5, args: {longest: 20}}"
    cfg = checked(named).stages[0].config
    assert cfg.reward.components["brief"].args == {"shortest": 1, "longest": 20}
    only = cfg.reward.model_copy(update={"components": {"brief": cfg.reward.components["brief"]}})
    scores = reward.make(only).score(problem(), [completion("short"), completion("x" * 30)], context())
    assert [score.reward for score in scores] == [0.5, 0.0]

    args = "reward.components.brief.args"
    assert f"did you mean {args}.longest?" in mistakes(named, f"{args}.longst=3")[f"{args}.longst"][1]
    assert "exceeds longest=20" in mistakes(named, f"{args}.shortest=30")[f"{args}.shortest"][0]
    assert "at least 1" in mistakes(named, f"{args}.shortest=0")[f"{args}.shortest"][0]
    assert "max_response_length" in mistakes(named, f"{args}.longest=1000000")[f"{args}.longest"][0]


def test_a_source_from_outside(place: Path) -> None:
    named = "data.train={countdown: null, squares: {source: 'my_source:SQUARES', args: {num_problems: 64}}}"
    cfg = checked(named).stages[0].config.data.train["squares"]
    assert (cfg.args["num_problems"], cfg.args["first"]) == (64, 1)
    items = load_source("squares", cfg).items
    assert len(items) == 64 and items[2].payload == {"answers": ["9"]}

    args = "data.train.squares.args"
    assert f"did you mean {args}.num_problems?" in mistakes(named, f"{args}.num_problem=3")[f"{args}.num_problem"][1]
    assert "whole number" in mistakes(named, f"{args}.first=one")[f"{args}.first"][0]


def test_a_stage_kind_from_outside(place: Path) -> None:
    named = "stages.count={kind: 'my_stage:COUNT', args: {up_to: 5}}"
    run = checked(named)
    stage = next(stage for stage in run.stages if stage.name == "count")
    kind = resolve(stage.stage.kind, KINDS, what="kind of stage")
    assert args_of(kind).model_validate(stage.stage.args).model_dump() == {"up_to": 5}
    assert run.raw["stages"]["count"]["args"] == {"up_to": 5}

    assert (
        "did you mean stages.count.args.up_to?"
        in mistakes(named, "stages.count.args.upto=4")["stages.count.args.upto"][1]
    )
    assert "at least 1" in mistakes(named, "stages.count.args.up_to=0")["stages.count.args.up_to"][0]
    assert "did you mean sft?" in mistakes("stages.rl.kind=sftt")["stages.rl.kind"][1]


@pytest.mark.parametrize(
    ("override", "key"),
    [
        ("algo.name=my_algorithm:Threshhold", "algo.name"),
        ("algo.name=no_such_module:Threshold", "algo.name"),
        ("reward.components.brief={name: 'my_reward:brif'}", "reward.components.brief.name"),
        ("data.train.squares={source: 'my_source:SQUARE'}", "data.train.squares.source"),
        ("stages.count={kind: 'my_stage:CONT'}", "stages.count.kind"),
        ("data.curriculum.name=my_source:NOTHING", "data.curriculum.name"),
    ],
)
def test_a_name_that_does_not_exist_is_found(place: Path, override: str, key: str) -> None:
    assert key in mistakes(override)

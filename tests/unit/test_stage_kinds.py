"""A stage kind of the user's: what the check, its summary and the pipeline read from the `StageKind`."""

import sys
from pathlib import Path

import pytest

from r1ray.check import ConfigError, load
from r1ray.cli import compose
from r1ray.plan import describe
from r1ray.run.directory import RunDir
from r1ray.stages.pipeline import context_of

KIND = """
from r1ray.config.base import PositiveInt
from r1ray.plugin import Args
from r1ray.stage_kinds import StageKind


class CountArgs(Args):
    up_to: PositiveInt = 3


def kind(run="my_stage:run", **does):
    return StageKind(run=run, **{"trains": False, "generates": False} | does, Args=CountArgs)


COUNT = kind()
SAMPLE = kind(generates=True)
IMITATE = kind(trains=True)
REINFORCE = kind(trains=True, generates=True)
NOWHERE = kind("no_such_module:run")


def run(context):
    pass
"""


@pytest.fixture(autouse=True)
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "my_stage.py").write_text(KIND)
    monkeypatch.delitem(sys.modules, "my_stage", raising=False)
    return tmp_path


def stage(kind: str, args: str = "{}") -> list[str]:
    return [f"stages={{mine: {{kind: '{kind}', args: {args}}}}}", "stages.rl=null"]


def test_the_run_function_gets_the_arguments_as_the_kind_declares_them(place: Path) -> None:
    run = load(compose(stage("my_stage:COUNT", "{up_to: 5}")))
    args = context_of(run.stages[0], RunDir(place)).args
    assert (type(args).__name__, args.model_dump()) == ("CountArgs", {"up_to": 5})
    run = load(compose(stage("my_stage:COUNT")))
    assert context_of(run.stages[0], RunDir(place)).args.model_dump() == {"up_to": 3}


@pytest.mark.parametrize(
    ("kind", "shown"),
    [
        ("COUNT", {"data", "total"}),
        ("SAMPLE", {"tokens", "data", "rollout", "reward", "total"}),
        ("IMITATE", {"batch", "data", "policy", "total"}),
        ("REINFORCE", {"batch", "tokens", "data", "rollout", "reward", "reference", "policy", "total"}),
    ],
)
def test_the_summary_lists_what_the_kind_starts(kind: str, shown: set[str]) -> None:
    traces = ["data.train.countdown=null", "data.train.traces={source: traces, args: {num_problems: 9}}"]
    lines = describe(load(compose([*stage(f"my_stage:{kind}"), *(traces if kind == "IMITATE" else [])]))).splitlines()
    first = lines.index(f"  stage mine (my_stage:{kind}), from builtin") + 1
    found = [line[4:15].strip() for line in lines[first:] if line.startswith("    ")]
    assert set(found[: len(shown)]) == shown


@pytest.mark.parametrize(
    ("kind", "args", "key", "rule", "remedy"),
    [
        ("my_stage:COUNT", "{upto: 4}", "args.upto", "takes no such argument", "did you mean stages.mine.args.up_to?"),
        ("my_stage:COUNT", "{up_to: 0}", "args.up_to", "must be at least 1", "stages.mine.args.up_to=1"),
        ("my_stage:CONT", "{}", "kind", "cannot be imported", "correct the name"),
        ("my_stage:run", "{}", "kind", "is not a stage kind", "name a r1ray.stage_kinds.StageKind"),
        ("my_stage:NOWHERE", "{}", "kind", "there is no module no_such_module", "PYTHONPATH"),
    ],
)
def test_a_mistake_in_a_stage_is_found(kind: str, args: str, key: str, rule: str, remedy: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load(compose(stage(kind, args)))
    (mistake,) = caught.value.mistakes
    assert mistake.key == f"stages.mine.{key}"
    assert rule in mistake.rule and remedy in mistake.remedy

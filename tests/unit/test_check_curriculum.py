"""The configuration check on sampling, curricula and staged data: what a person gets to read, before anything starts."""

import json
from collections.abc import Sequence
from pathlib import Path

import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import DictConfig, OmegaConf

from r1ray.check import CheckedRun, ConfigError, load
from r1ray.cli import compose


@pytest.fixture(autouse=True)
def workplace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture(scope="module")
def base() -> DictConfig:
    return compose([])


def check(base: DictConfig, overrides: Sequence[str]) -> CheckedRun:
    """Plain values laid over the defaults, without Hydra's second of composing."""
    cfg = base.copy()
    for override in OverridesParser.create().parse_overrides(list(overrides)):
        OmegaConf.update(cfg, override.key_or_group, override.value(), force_add=True)
    return load(cfg)


NUMBERS = "data.train.countdown.args={split: train, num_problems: 200, num_numbers: [2, 4]}"
DIFFICULTY = ("data.curriculum.name=difficulty", NUMBERS)

# overrides, key of the mistake, words of its rule, words of its remedy
WRONG = {
    "a share above one": (["algo.min_kept=1.5"], "algo.min_kept", "must be at most 1", "algo.min_kept=1"),
    "no groups at all": (["algo.max_refills=0"], "algo.max_refills", "must be at least 1", "algo.max_refills=1"),
    "unknown curriculum": (
        ["data.curriculum.name=histry"], "data.curriculum.name", "neither a curriculum", "did you mean history?",
    ),
    "curriculum in no module": (
        ["data.curriculum.name=no.where:Mine"], "data.curriculum.name", "there is no module no.where", "PYTHONPATH",
    ),
    "unknown argument": (
        ["data.curriculum={name: easy_pool, args: {probabilty: 0.2}}"], "data.curriculum.args.probabilty",
        "the curriculum easy_pool takes no such argument", "did you mean probability?",
    ),
    "an argument where there are none": (
        ["data.curriculum.args.probability=0.1"], "data.curriculum.args.probability", "the curriculum none takes", "there are none",
    ),
    "a probability of two": (
        ["data.curriculum={name: easy_pool, args: {probability: 2}}"], "data.curriculum", "from 0 to 1, not 2", "args",
    ),
    "a band upside down": (
        [*DIFFICULTY, "data.curriculum.args={low: 0.8, high: 0.2}"], "data.curriculum", "low=0.8 must be below high=0.2", "args",
    ),
    "problems of one level": (
        ["data.curriculum.name=difficulty"], "data.curriculum", "has problems of two levels (there are: {'countdown': [3.0]})",
        "data.curriculum.name=none",
    ),
    "a stage's own curriculum": (
        ["stages.rl.config.data.curriculum.name=histry"], "stages.rl.config.data.curriculum.name", "neither a", "history",
    ),
    "a checkpoint of another curriculum": (
        ["run_dir=begun", "resume=auto", "data.curriculum.name=easy_pool"], "data.curriculum.name",
        "remembers what the curriculum history has seen", "data.curriculum.name=history, or a new run",
    ),
    "a checkpoint from before there were curricula": (
        ["run_dir=older", "resume=auto", "stages.rl.config.data.curriculum.name=history"],
        "stages.rl.config.data.curriculum.name", "the curriculum none has seen", "curriculum.name=none",
    ),
}  # fmt: skip


@pytest.fixture(autouse=True)
def runs(workplace: Path, base: DictConfig) -> None:
    """Two runs with a checkpoint each."""
    stream = {"draws": 8, "sources": {}}
    for name, state in (("begun", {"curriculum": "history", "draws": 8, "stream": stream}), ("older", stream)):
        folder = workplace / name / "stages/rl/checkpoints/step_000010"
        folder.mkdir(parents=True)
        (folder / "state.json").write_text(json.dumps({"step": 10, "stream": state}))
        (folder.parent / "latest").symlink_to("step_000010")
        OmegaConf.save(base, workplace / name / "config.yaml", resolve=True)


@pytest.mark.parametrize("case", WRONG)
def test_a_mistake_is_answered(case: str, base: DictConfig) -> None:
    overrides, key, rule, remedy = WRONG[case]
    with pytest.raises(ConfigError) as caught:
        check(base, overrides)
    (mistake,) = caught.value.mistakes
    assert mistake.key == key
    assert rule in mistake.rule
    assert remedy in mistake.remedy


@pytest.mark.parametrize(
    "overrides",
    [
        ["data.curriculum.name=easy_pool"],
        ["data.curriculum={name: easy_pool, args: {probability: 0}}"],
        ["data.curriculum.name=history", "algo.min_kept=0.6", "algo.max_refills=1"],
        [*DIFFICULTY, "data.curriculum.args={low: 0.2, high: 0.8, window: 16}"],
        ["run_dir=begun", "resume=auto", "data.curriculum.name=history"],
        ["run_dir=older", "resume=auto"],
    ],
)
def test_what_fits_is_accepted(overrides: list[str], base: DictConfig) -> None:
    assert check(base, overrides).stages


def test_what_is_on_the_hub_is_noted(base: DictConfig) -> None:
    run = check(base, ["data.train.gsm8k={source: gsm8k, path: openai/gsm8k}", "data.curriculum.name=difficulty"])
    assert "not checked: data.curriculum.name=difficulty with the problems of gsm8k" in run.notes

"""The check of sampling, curricula and staged data: the messages, before anything starts."""

import json
from pathlib import Path

import pytest
from laid_over_defaults import check_values
from omegaconf import DictConfig, OmegaConf

from r1ray.check import ConfigError, load
from r1ray.cli import compose
from r1ray.run.seal import seal

pytestmark = pytest.mark.usefixtures("workplace")


NUMBERS = "data.train.countdown.args={split: train, num_problems: 200, num_numbers: [2, 4]}"
DIFFICULTY = ("data.curriculum.name=difficulty", NUMBERS)

MINED = "data.train.hard={source: mined, path: stages/rl/rollouts, args: {correct: [0, 3]}}"
ANNEAL = "stages.anneal={kind: rl, after: rl, config: {data: {train: {countdown: null, hard: {source: mined, path: stages/rl/rollouts, args: {correct: [0, 3]}}}}}}"  # noqa: E501
HARD = "stages.anneal.config.data.train.hard"

# overrides, key of the mistake, words of its rule, words of its remedy
WRONG = {
    "a share above one": (["algo.filter.min_share=1.5"], "algo.filter.min_share", "must be at most 1", "algo.filter.min_share=1"),
    "no groups at all": (
        ["algo.filter.max_refills=0"], "algo.filter.max_refills", "must be at least 1", "algo.filter.max_refills=1",
    ),
    "unknown curriculum": (
        ["data.curriculum.name=histry"], "data.curriculum.name", "not the name of a curriculum", "did you mean history?",
    ),
    "curriculum in no module": (
        ["data.curriculum.name=no.where:Mine"], "data.curriculum.name", "there is no module no.where", "PYTHONPATH",
    ),
    "unknown argument": (
        ["data.curriculum={name: easy_pool, args: {probabilty: 0.2}}"], "data.curriculum.args.probabilty",
        "easy_pool takes no such argument", "did you mean data.curriculum.args.probability?",
    ),
    "an argument where there are none": (
        ["data.curriculum.args.probability=0.1"], "data.curriculum.args.probability", "none takes no such argument",
        "there are none",
    ),
    "a probability of two": (
        ["data.curriculum={name: easy_pool, args: {probability: 2}}"], "data.curriculum.args.probability",
        "must be at most 1", "probability=1",
    ),
    "a band upside down": (
        [*DIFFICULTY, "data.curriculum.args={low: 0.8, high: 0.2}"], "data.curriculum.args.low", "must be below high=0.2",
        "low=0.3",
    ),
    "problems of one level": (
        ["data.curriculum.name=difficulty"], "data.curriculum", "has problems of two levels (there are: {'countdown': [3.0]})",
        "data.curriculum.name=none",
    ),
    "a temperature of no step": (
        ["rollout.temperature_schedule={0: 1.1}"], "rollout.temperature_schedule.0", "must be at least 1", "1",
    ),
    "a later temperature that is too cold": (
        ["rollout.temperature_schedule={10: 0.001}"], "rollout.temperature_schedule.10", "must be at least 0.01", "=0.01",
    ),
    "a later temperature that is too hot": (
        ["rollout.temperature_schedule={10: 2.5}"], "rollout.temperature_schedule.10", "must be at most 2", "=2",
    ),
    "a temperature that never comes": (
        ["rollout.temperature_schedule={900: 0.9}"], "rollout.temperature_schedule.900", "ends after 40 steps", "steps=900",
    ),
    "mined by the stage itself": ([MINED], "data.train.hard.path", "no stage of kind rl that is called rl comes before rl", "none"),
    "mined from a stage that is not there": (
        [ANNEAL, f"{HARD}.path=stages/r1/rollouts"], f"{HARD}.path", "called r1 comes before anneal", "there are: rl",
    ),
    "mined from nowhere": ([ANNEAL, f"{HARD}.path=null"], f"{HARD}.path", "must name a folder", "=stages/rl/rollouts"),
    "mined from a folder without rollouts": (
        [ANNEAL, f"{HARD}.path=elsewhere"], f"{HARD}.path", "no stage wrote rollouts to runs", "=stages/rl/rollouts",
    ),
    "mined from a stage that writes none": (
        [ANNEAL, "stages.rl.config.log.rollouts_every_steps=0"], "stages.rl.config.log.rollouts_every_steps",
        "stage rl writes no rollouts, and stage anneal mines", "rollouts_every_steps=1",
    ),
    "mined without a range": ([ANNEAL, f"{HARD}.args.correct=null"], f"{HARD}.args.correct", "[fewest, most]", "correct=[0,3]"),
    "mined in a range that no group has": (
        [ANNEAL, f"{HARD}.args.correct=[9,16]"], f"{HARD}.args.correct", "groups of 8 completions", "correct=[0,2]",
    ),
    "mined with an unknown argument": (
        [ANNEAL, f"{HARD}.args.sorces=[countdown]"], f"{HARD}.args.sorces", "no such argument",
        f"did you mean {HARD}.args.sources?",
    ),
    "mined from a source that the stage has not": (
        [ANNEAL, f"{HARD}.args.sources=[countdwn]"], f"{HARD}.args.sources", "has no such source", "did you mean countdown?",
    ),
    "mined with a number for arguments": ([ANNEAL, f"{HARD}.args=5"], f"{HARD}.args", "must be a mapping", "mapping"),
    "mined from sources that are no list": (
        [ANNEAL, f"{HARD}.args.sources=countdown"], f"{HARD}.args.sources", "must be a list", "sources=[countdown]",
    ),
    "mined to evaluate on": (
        [MINED.replace("data.train", "eval.sets")], "eval.sets.hard.source", "for training only", "data.train of an rl stage",
    ),
    "mined to imitate": (
        [ANNEAL, "stages.anneal.kind=sft"], f"{HARD}.source", "for training only", "an rl stage",
    ),
    "a stage's own curriculum": (
        ["stages.rl.config.data.curriculum.name=histry"], "stages.rl.config.data.curriculum.name",
        "is not the name of a curriculum", "history",
    ),
    "a checkpoint of another curriculum": (
        ["run_dir=begun", "resume=auto", "data.curriculum.name=easy_pool"], "data.curriculum.name",
        "holds the state of the curriculum history", "data.curriculum.name=history, or a new run",
    ),
    "a checkpoint from before there were curricula": (
        ["run_dir=older", "resume=auto", "stages.rl.config.data.curriculum.name=history"],
        "stages.rl.config.data.curriculum.name", "holds the state of the curriculum none", "curriculum.name=none",
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
        seal(folder)
        OmegaConf.save(base, workplace / name / "config.yaml", resolve=True)


@pytest.mark.parametrize("case", WRONG)
def test_mistake_is_reported_with_the_remedy(case: str, base: DictConfig) -> None:
    overrides, key, rule, remedy = WRONG[case]
    with pytest.raises(ConfigError) as caught:
        check_values(base, overrides)
    (mistake,) = caught.value.mistakes
    assert mistake.key == key
    assert rule in mistake.rule
    assert remedy in mistake.remedy


@pytest.mark.parametrize(
    "overrides",
    [
        ["data.curriculum.name=easy_pool"],
        ["data.curriculum={name: easy_pool, args: {probability: 0}}"],
        ["data.curriculum.name=history", "algo.filter.min_share=0.6", "algo.filter.max_refills=1"],
        [*DIFFICULTY, "data.curriculum.args={low: 0.2, high: 0.8, window: 16}"],
        ["run_dir=begun", "resume=auto", "data.curriculum.name=history"],
        ["run_dir=older", "resume=auto"],
        ["rollout.temperature_schedule={10: 1.1, 20: 1.2}"],
        [ANNEAL],
        [ANNEAL, f"{HARD}.args={{correct: [0, 8], sources: [countdown], instruction: Think.}}"],
        [ANNEAL, "stages.anneal.config.data.curriculum.name=easy_pool"],
    ],
)
def test_valid_settings_are_accepted(overrides: list[str], base: DictConfig) -> None:
    assert check_values(base, overrides).stages


def test_hub_dataset_is_noted_as_not_checked(base: DictConfig) -> None:
    run = check_values(
        base, ["data.train.gsm8k={source: gsm8k, path: openai/gsm8k}", "data.curriculum.name=difficulty"]
    )
    assert "not checked: data.curriculum.name=difficulty with the problems of gsm8k" in run.notes


def test_stages_lengths_start_from_each_other() -> None:
    short, middle, long = load(compose(["stages=lengths", "stages.long.config.rollout.temperature=0.8"])).stages
    assert [stage.stage.after for stage in (short, middle, long)] == [None, "short", "middle"]
    assert [stage.config.rollout.max_response_length for stage in (short, middle, long)] == [96, 192, 384]
    assert [stage.config.rollout.temperature for stage in (short, middle, long)] == [1.0, 1.0, 0.8]
    assert {stage.config.steps for stage in (short, middle, long)} == {20}


def test_stages_can_have_different_data(base: DictConfig) -> None:
    rl, anneal = check_values(base, [ANNEAL]).stages
    assert list(rl.config.data.train) == ["countdown"] and list(anneal.config.data.train) == ["hard"]
    assert anneal.config.data.train["hard"].path == "stages/rl/rollouts"

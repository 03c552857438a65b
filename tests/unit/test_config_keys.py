"""conf/ and the schema agree: defaults only in YAML, every key known, every group, recipe and scale valid."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from algo_samples import algo_option
from omegaconf import OmegaConf
from pydantic import BaseModel

from r1ray.algo import ALGORITHMS
from r1ray.check import load
from r1ray.check.schema import key_paths
from r1ray.cli import check_command_line, compose
from r1ray.config import Config
from r1ray.config.files import conf_dir
from r1ray.config.tree import has

MAX_KEYS = 200
OPTIONS = sorted(path.relative_to(conf_dir()).with_suffix("").as_posix() for path in conf_dir().glob("*/*.yaml"))
# Overrides for options that are not valid alone: the lengths of a paper need a model of that size, imitation needs completions,
# many GPUs need a model with that many heads.
QWEN = ["model=qwen2_5_7b"]
COMPANIONS = {
    "algo/vapo": ["steps=100"],
    "algo/vc_ppo": ["steps=100"],
    "curriculum/difficulty": ["data=knights_and_knaves"],
    "recipe/r1_zero": QWEN,
    "data/mimo": ["reward=mimo"],
    "eval/knights_and_knaves": ["data.max_prompt_length=320"],
    "reward/dapo": ["rollout.max_response_length=20480", *QWEN],
    "reward/mimo": ["data=mimo"],
    "reward/seed_thinking": ["data=seed"],
    "reward/mixture": ["data=mixture"],
    "reward/judge": [
        "data.train.prose={source: rows, path: org/prose, args: {verifier: exact}, accuracy_component: judge}"
    ],
    "scale/cluster": QWEN,
    "data/poems": ["reward=poems"],
    "eval/poems": ["checkpoint.best_metric=eval/poems/accuracy"],
    "stages/sft": ["data.train.countdown=null", "data.train.traces={source: traces, args: {num_problems: 9}}"],
}


def test_number_of_keys_is_limited() -> None:
    assert len(key_paths()) < MAX_KEYS


def test_yaml_sets_every_key_of_the_schema() -> None:
    """The other direction, a key in YAML that the schema does not have, is refused like any typo."""
    composed = OmegaConf.to_container(compose([]))
    for path in key_paths():
        outer = path.split(".<name>")[0]
        if not outer.startswith(("model.properties.", "model.lora.")):  # null: a local model, fully trained
            assert has(composed, outer), f"no YAML sets {outer}"


def test_schema_has_defaults_only_for_entries_of_maps() -> None:
    entries = {"SourceConfig", "RewardComponentConfig", "StageConfig"}
    for model in models(Config):
        with_default = [name for name, field in model.model_fields.items() if not field.is_required()]
        assert not with_default or model.__name__ in entries, f"{model.__name__}: {with_default}"


def models(model: type[BaseModel]) -> Iterator[type[BaseModel]]:
    yield model
    for field in model.model_fields.values():
        for inner in (field.annotation, *getattr(field.annotation, "__args__", ())):
            if isinstance(inner, type) and issubclass(inner, BaseModel):
                yield from models(inner)


@pytest.mark.parametrize("option", OPTIONS)
def test_every_option_composes_and_is_valid(option: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    group, _, name = option.partition("/")
    (run,) = check_command_line([f"{group}={name}", *COMPANIONS.get(option, [])])
    assert run.stages


def test_conf_has_every_known_algorithm() -> None:
    named = {algo_option(path.stem)["name"] for path in (conf_dir() / "algo").glob("*.yaml")}
    assert named == set(ALGORITHMS)


def test_empty_command_line_is_a_valid_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    run = load(compose([]))
    assert [stage.name for stage in run.stages] == ["rl"]
    assert run.notes == []

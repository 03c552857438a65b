"""The check of critic and process reward model: valid starting models, and what must not change when a run resumes."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from laid_over_defaults import with_algorithm
from omegaconf import DictConfig, OmegaConf

from r1ray.check import NOT_CHECKED, CheckedRun, ConfigError, load
from r1ray.run.seal import seal

TOKENS = {"model": {"vocab": {"a": 0, "b": 7}}, "added_tokens": [{"id": 9, "content": "<think>"}]}
"""A tokenizer with ten ids."""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., str]:
    """Creates a model folder with only the files that the check reads."""
    monkeypatch.chdir(tmp_path)

    def make(name: str, *, vocabulary: int, tokenizer: Any = TOKENS) -> str:
        path = tmp_path / name
        path.mkdir()
        config = {"max_position_embeddings": 4096, "num_attention_heads": 4, "vocab_size": vocabulary}
        (path / "config.json").write_text(json.dumps(config))
        (path / "model.safetensors").touch()
        (path / "tokenizer_config.json").write_text('{"chat_template": "<think>"}')
        if tokenizer:
            (path / "tokenizer.json").write_text(json.dumps(tokenizer))
        return str(path)

    return make


def check(base: DictConfig, algo: str, **values: Any) -> CheckedRun:
    """The default configuration with `values`: {key with __ for a dot: value}."""
    cfg = with_algorithm(base, algo)
    for key, value in values.items():
        OmegaConf.update(cfg, key.replace("__", "."), value, force_add=True)
    return load(cfg)


@pytest.mark.parametrize("vocabulary", [16, 12, 10])
def test_critic_whose_vocabulary_has_every_token_is_accepted(
    base: DictConfig, folder: Callable[..., str], vocabulary: int
) -> None:
    """The weights of a model may have more rows than its tokenizer has tokens (Qwen2.5-0.5B: 151,936, 7B: 152,064)."""
    policy, critic = folder("policy", vocabulary=12), folder("critic", vocabulary=vocabulary, tokenizer=None)
    checked = check(base, "ppo", model__path=policy, critic__path=critic)
    assert not [note for note in checked.notes if "vocabulary" in note]


@pytest.mark.parametrize(("algo", "role"), [("ppo", "critic"), ("prime", "prm")])
def test_vocabulary_without_some_tokens_is_refused(
    base: DictConfig, folder: Callable[..., str], algo: str, role: str
) -> None:
    policy, other = folder("policy", vocabulary=12), folder("other", vocabulary=9)
    with pytest.raises(ConfigError) as caught:
        check(base, algo, model__path=policy, **{f"{role}__path": other})
    (mistake,) = caught.value.mistakes
    assert mistake.key == f"{role}.path" and f"{role}.path=null" in mistake.remedy
    assert "vocabulary of 9 lacks some of the 10 tokens of the policy's tokenizer" in mistake.rule


def test_smaller_vocabulary_is_noted_without_a_tokenizer(base: DictConfig, folder: Callable[..., str]) -> None:
    policy, critic = folder("policy", vocabulary=12, tokenizer={"model": {}}), folder("critic", vocabulary=11)
    (note,) = (n for n in check(base, "ppo", model__path=policy, critic__path=critic).notes if "vocabulary" in n)
    assert note.startswith(NOT_CHECKED) and "(11) has every token" in note and "room for 12" in note


@pytest.fixture
def trained(tmp_path: Path, base: DictConfig, folder: Callable[..., str]) -> Path:
    """The run directory of a PPO run that has a checkpoint."""
    run = tmp_path / "trained"
    begun = check(base, "ppo", run_dir=str(run), critic__path=folder("critic", vocabulary=1000))
    state = run / "stages/rl/checkpoints/step_000010"
    (state / "critic").mkdir(parents=True)
    (state / "state.json").write_text('{"step": 10}')
    seal(state)
    (run / "config.yaml").write_text(yaml.safe_dump(begun.raw))
    return run


CHANGES = {
    "another path": ({"critic__path": None}, "critic.path"),
    "another head": ({"critic__head_init": "zero"}, "critic.head_init"),
    "another head in the stage": (
        {"stages__rl__config__critic__head_init": "zero"}, "stages.rl.config.critic.head_init",
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", CHANGES, ids=CHANGES)
def test_start_of_a_critic_cannot_change_on_resume(base: DictConfig, trained: Path, case: str) -> None:
    values, key = CHANGES[case]
    same = {"run_dir": str(trained), "resume": "auto", "critic__path": str(trained.parent / "critic")}
    assert check(base, "ppo", **same).stages
    with pytest.raises(ConfigError) as caught:
        check(base, "ppo", **{**same, **values})
    (mistake,) = caught.value.mistakes
    assert mistake.key == key
    assert "started with" in mistake.rule and mistake.remedy.startswith(f"{key}=")


def test_start_of_a_critic_can_change_before_the_first_checkpoint(base: DictConfig, trained: Path) -> None:
    shutil.rmtree(trained / "stages/rl/checkpoints/step_000010")
    assert check(base, "ppo", run_dir=str(trained), resume="auto", critic__head_init="zero").stages

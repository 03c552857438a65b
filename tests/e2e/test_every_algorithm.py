"""Every algorithm on the built-in model with the real actors: two steps in which its distinguishing feature is observed."""

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from statistics import fmean
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from shared_engines import engines, train, train_stages

from r1ray import builtin
from r1ray.actors.group import ActorGroup
from r1ray.config.files import conf_dir
from r1ray.data.rollouts import read_rollouts, rollout_steps

pytestmark = pytest.mark.integration
SMALL = ("algo.group_size=4", "algo.prompts_per_step=8", "algo.num_minibatches=2", "steps=2", "reward.num_workers=1")
QUICK = (
    "eval.every_steps=0",
    "eval.before_training=false",
    "eval.sets.countdown=null",
    "checkpoint.best_metric=null",
    "log.wandb=disabled",
)
PLACES = ("rollout.num_workers=1", "trainer.num_workers=1", "trainer.lr=1e-4", "rollout.max_response_length=128")
CRITIC = {"critic/updates", "critic/loss/value", "critic/grad_norm", "critic/return"}
FILTERED = {"groups/refilled"}

RECIPES: dict[str, tuple[list[str], set[str]]] = {
    "cispo": ([], FILTERED),
    "dapo": ([], FILTERED),
    "deepcoder": (["reward.truncated=mask", "rollout.max_response_length=64"], {"truncated/fraction"}),
    "deepscaler": ([], {"kl_ref", "loss/kl"}),
    "dr_grpo": (["algo.num_minibatches=1"], {"loss/policy"}),
    "gpg": ([], {"groups/refilled"}),
    "grpo": ([], {"kl_ref", "loss/kl"}),
    "gspo": (["algo.clip_low=1e-6", "algo.clip_high=1e-6"], {"clip_fraction"}),
    "light_r1": ([], {"kl_ref", "loss/kl"}),
    "lite_ppo": ([], set()),
    "logic_rl": ([], {"kl_ref", "loss/kl"}),
    "mimo": ([], FILTERED),
    "opo": ([], set()),
    "orz": (["algo.num_minibatches=1"], CRITIC),
    "ppo": (["algo.clip_low=1e-5", "algo.clip_high=1e-5"], {*CRITIC, "clip_fraction"}),
    "prime": (["prm.lr=1e-3"], {"prm/updates", "prm/loss/outcome", "prm/grad_norm", "groups/refilled"}),
    "reinforce_pp": ([], {"kl_ref"}),
    "reinforce_pp_baseline": ([], {"kl_ref"}),
    "rloo": ([], {"kl_ref"}),
    "skywork_or1": (["algo.entropy_target=9"], {"loss/entropy", "train/masked/fraction"}),
    "srpo": ([], set()),
    "vapo": (["algo.args.policy_frozen_steps=1"], {*CRITIC, "loss/imitation"}),
    "vc_ppo": (["algo.args.policy_frozen_steps=1"], CRITIC),
}
"""{option of algo: (overrides besides SMALL, metrics that are not 0 in at least one step)}."""


def overlong_completions_are_masked(steps: list[dict[str, Any]], run: Path) -> None:
    """Exactly the truncated completions are masked."""
    for step in steps:
        assert step["train/masked/fraction"] == step["truncated/fraction"] and step["unusable/fraction"] == 0


def loss_is_not_normalised_by_length(steps: list[dict[str, Any]], run: Path) -> None:
    """With one update per step the ratio is 1, so the loss is - sum of T_i (r_i - mean of its group) / (N limit)."""
    for step, path in zip(steps, rollout_steps(run / "stages/rl/rollouts").values(), strict=True):
        groups: dict[str, list[dict[str, Any]]] = {}
        for completion in read_rollouts(path):
            groups.setdefault(completion["problem"], []).append(completion)
        assert {len(completions) for completions in groups.values()} == {4}
        means = {
            problem: fmean(completion["reward"] for completion in completions)
            for problem, completions in groups.items()
        }
        terms = [
            completion["length"] * (completion["reward"] - means[problem])
            for problem, completions in groups.items()
            for completion in completions
        ]
        assert step["loss/policy"] == pytest.approx(-sum(terms) / (len(terms) * 128), rel=1e-3)


def one_update_of_the_policy_and_twelve_of_the_critic(steps: list[dict[str, Any]], run: Path) -> None:
    assert [(step["update"], step["critic/updates"]) for step in steps] == [(1, 12), (2, 12)]


def policy_is_frozen_at_first(steps: list[dict[str, Any]], run: Path) -> None:
    assert steps[0]["update"] == 0 and steps[0]["critic/updates"] > 0


EXACTLY: dict[str, Callable[[list[dict[str, Any]], Path], None]] = {
    "deepcoder": overlong_completions_are_masked,
    "dr_grpo": loss_is_not_normalised_by_length,
    "orz": one_update_of_the_policy_and_twelve_of_the_critic,
    "vapo": policy_is_frozen_at_first,
    "vc_ppo": policy_is_frozen_at_first,
}
"""{option of algo: another check of its steps and its run directory}."""
MORE: dict[str, tuple[list[str], set[str]]] = {
    "easy pool": (
        ["curriculum=easy_pool", "data.curriculum.args.probability=1.0"],
        {"curriculum/pool_size", "curriculum/pool_draws"},
    ),
    "history": (["curriculum=history"], {"curriculum/left_out"}),
    "correction": (["algo=grpo", "algo.importance_sampling=token_truncate"], {"importance_sampling/mean"}),
    "adaptive KL": (["algo=reinforce_pp", "algo.kl_target=0.01"], {"kl_ref"}),
    "lora": (["algo=grpo", "model.lora={rank: 4, alpha: 8, targets: all-linear}"], {"kl_ref", "loss/kl"}),
}
"""Features that are not an option of algo."""


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Mapping[str, ActorGroup]]:
    with engines([*SMALL, *PLACES, *QUICK], tmp_path_factory.mktemp("shared")) as groups:
        yield groups


def steps_of(shared: Mapping[str, ActorGroup], folder: Path, overrides: list[str]) -> list[dict[str, Any]]:
    """The metrics of each step."""
    return train(shared, [*SMALL, *PLACES, *QUICK, *overrides], folder / "run")


def check(steps: list[dict[str, Any]], wanted: set[str]) -> None:
    assert [step["step"] for step in steps] == [1, 2]
    assert steps[-1]["update"] > 0 and not any(step["updates_skipped"] for step in steps)
    assert any(step.get("grad_norm") for step in steps)
    missing = {name for name in wanted if not any(step.get(name) for step in steps)}
    assert not missing, f"{missing} are 0 or missing; present: {sorted(steps[-1])}"


def test_table_has_every_option_of_algo() -> None:
    assert sorted(RECIPES) == sorted(path.stem for path in (conf_dir() / "algo").glob("*.yaml"))


@pytest.mark.parametrize("option", RECIPES)
def test_algorithm_shows_its_distinguishing_feature(
    option: str, shared: Mapping[str, ActorGroup], tmp_path: Path
) -> None:
    overrides, wanted = RECIPES[option]
    steps = steps_of(shared, tmp_path, [f"algo={option}", *overrides])
    check(steps, wanted)
    if option in EXACTLY:
        EXACTLY[option](steps, tmp_path / "run")


@pytest.mark.parametrize("name", MORE)
def test_feature_of_any_algorithm_is_observed(name: str, shared: Mapping[str, ActorGroup], tmp_path: Path) -> None:
    overrides, wanted = MORE[name]
    check(steps_of(shared, tmp_path, overrides), wanted)


def weights_in(folder: Path) -> dict[str, torch.Tensor]:
    return {name: weight.float() for name, weight in load_file(folder / "model.safetensors").items()}


def same(a: Mapping[str, torch.Tensor], b: Mapping[str, torch.Tensor]) -> bool:
    """Compares the weights that both have."""
    return all(torch.equal(a[name], b[name]) for name in a.keys() & b.keys())


def test_second_stage_starts_with_policy_and_critic_of_the_first(
    shared: Mapping[str, ActorGroup], tmp_path: Path
) -> None:
    """The second stage does not learn, so what it saves is what it started with; its completions are longer."""
    still = "steps: 2, trainer: {lr: 0}, critic: {lr: 0}, rollout: {max_response_length: 128}"
    long = f"+stages.long={{kind: rl, after: rl, config: {{{still}}}}}"
    one_update = ["algo=ppo", "algo.num_minibatches=1", "steps=1", "rollout.max_response_length=48", long]
    stages = train_stages(shared, [*SMALL, *PLACES, *QUICK, *one_update], tmp_path / "run")
    assert [(name, len(steps)) for name, steps in stages.items()] == [("rl", 1), ("long", 2)]
    for steps in stages.values():
        assert [step["update"] for step in steps] == list(range(1, 1 + len(steps)))
        assert all(step["critic/updates"] == 1 and not step["updates_skipped"] for step in steps)
    assert stages["rl"][0]["response_length/max"] == 48 < stages["long"][0]["response_length/max"]
    first, second = (tmp_path / f"run/stages/{name}/checkpoints/latest" for name in stages)
    assert not same(weights_in(first / "hf"), weights_in(builtin.path()))
    for model in ("hf", "critic/hf"):
        assert weights_in(second / model).keys() == weights_in(first / model).keys()
        assert same(weights_in(second / model), weights_in(first / model)), model
    assert not same(weights_in(second / "critic/hf"), weights_in(second / "hf")), "a new critic has the policy's body"

"""Recipes at laptop size with the real actors: three steps in which their features are observed.

Tests a set of recipes that covers every kind of feature (`recipe_kinds`), the others as slow tests, and every prompt template.
"""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from recipe_kinds import COVERING, TEMPLATES, kinds_of, metrics_of
from shared_engines import engines, train, train_stages

from r1ray.actors.group import ActorGroup
from r1ray.check import CheckedRun, load
from r1ray.cli import compose
from r1ray.recipes import files, read

pytestmark = pytest.mark.integration
EXTRA_COLUMNS = sorted({name for name, file in files().items() if read(file).paper.source} - COVERING.keys())
STEPS = 3
PROBLEMS, GROUP = 8, 4
SAMPLED = ("chat", "none", "tinyzero")
"""Templates of each form: chat messages, a plain text, a text with a prefill. The others are slow tests."""
PLACES = ("rollout.num_workers=1", "trainer.num_workers=1", "reward.num_workers=1", "log.wandb=disabled")
NO_EVALUATION = ("eval.every_steps=0", "eval.before_training=false", "checkpoint.best_metric=null")
PROMPT = "data.max_prompt_length=512"
"""Long enough for the longest template."""


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Mapping[str, ActorGroup]]:
    """Engines; each recipe starts its own reward workers."""
    with engines([*PLACES, PROMPT], tmp_path_factory.mktemp("shared"), roles=["rollout"]) as groups:
        yield groups


def overrides_of(recipe: str, run: CheckedRun) -> list[str]:
    """The recipe with few problems and steps: STEPS in total, at least one per stage."""
    each = max(1, -(-STEPS // len(run.stages)))
    sizes = {"steps": each, "algo.prompts_per_step": PROBLEMS, "algo.group_size": GROUP}
    stages = [f"stages.{stage.name}.config.{key}={value}" for stage in run.stages for key, value in sizes.items()]
    sets = [f"eval.sets.{name}=null" for name in run.config.eval.sets]
    return [f"recipe={recipe}", *stages, *sets, *NO_EVALUATION, *PLACES]


def check(run: CheckedRun, stages: Mapping[str, list[dict[str, Any]]], wanted: set[str]) -> None:
    for _, _, cfg in run.stages:
        assert cfg.steps * len(run.stages) >= STEPS
    for name, _, cfg in run.stages:
        rows = stages[name]
        assert [row["step"] for row in rows] == list(range(1, cfg.steps + 1))
        frozen = cfg.algo.args.get("policy_frozen_steps", 0)
        assert rows[-1]["update"] == (cfg.steps - frozen) * cfg.algo.num_minibatches
        assert not any(row["updates_skipped"] for row in rows)
    rows = [row for stage in stages.values() for row in stage]
    missing = {name for name in {*wanted, "grad_norm", "reward/mean"} if not any(row.get(name) for row in rows)}
    assert not missing, f"{missing} are 0 or missing; present: {sorted({key for row in rows for key in row})}"
    # A component of weight 0 may have no value, as when a judge returns nonsense.
    parts = {
        f"reward/{name}/mean"
        for _, _, cfg in run.stages
        for name, part in cfg.reward.components.items()
        if part.has_weight
    }
    assert parts <= {key for row in rows for key in row}


def run_recipe(recipe: str, shared: Mapping[str, ActorGroup], folder: Path, wanted: set[str]) -> None:
    overrides = overrides_of(recipe, load(compose([f"recipe={recipe}"])))
    run = load(compose(overrides))
    check(run, train_stages(shared, overrides, folder / "run"), wanted | metrics_of(kinds_of(run)))


@pytest.mark.parametrize("recipe", COVERING)
def test_recipe_shows_its_features(recipe: str, shared: Mapping[str, ActorGroup], tmp_path: Path) -> None:
    run_recipe(recipe, shared, tmp_path, COVERING[recipe])


@pytest.mark.slow
@pytest.mark.parametrize("recipe", EXTRA_COLUMNS)
def test_other_recipes_show_their_features(recipe: str, shared: Mapping[str, ActorGroup], tmp_path: Path) -> None:
    run_recipe(recipe, shared, tmp_path, set())


@pytest.mark.parametrize(
    "template", [name if name in SAMPLED else pytest.param(name, marks=pytest.mark.slow) for name in TEMPLATES]
)
def test_every_template_renders_problems(template: str, shared: Mapping[str, ActorGroup], tmp_path: Path) -> None:
    sizes = (
        "steps=1",
        f"algo.prompts_per_step={PROBLEMS}",
        f"algo.group_size={GROUP}",
        "rollout.max_response_length=64",
    )
    rewards = ("reward.components.format=null", "reward.components.tag_count.weight=1")
    overrides = [f"model.template={template}", *sizes, *rewards, "eval.sets.countdown=null", *NO_EVALUATION, *PLACES]
    (row,) = train(shared, [*overrides, PROMPT, "algo.kl_coef=0"], tmp_path / "run")
    assert row["update"] == 1 and row["response_length/mean"] > 0 and row["groups/generated"] == PROBLEMS
    assert row["mismatch/logprob_gap/max"] < 1e-3

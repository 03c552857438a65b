"""Every recipe does what its paper says: each number is compared with the composed configuration, and it composes at every
scale."""

from functools import cache
from pathlib import Path

import pytest
from recipe_kinds import COVERING, METRICS, TEMPLATES, kinds_of

from r1ray.check import CheckedRun
from r1ray.cli import check_command_line, compose
from r1ray.config.files import conf_dir
from r1ray.data.sources import needs_network
from r1ray.data.templates import TEMPLATES as KNOWN_TEMPLATES
from r1ray.recipes import Paper, PaperError, files, read
from r1ray.recipes.paper import EVERY_STAGE, Number
from r1ray.recipes.quantities import QUANTITIES, matches_run, values_of

WITHOUT_PAPER = {"builtin_base"}
"""Files of conf/recipe that do not reproduce a publication."""
RECIPES = {
    name: recipe for name, recipe in ((name, read(file)) for name, file in files().items()) if recipe.paper.source
}
NUMBERS = [
    pytest.param(name, number, id=f"{name}: {number.name}" + f" @{number.stage}".removesuffix(" @"))
    for name, recipe in RECIPES.items()
    for number in recipe.paper.each_number()
]
MINE = """# @package _global_
paper:
  title: "Mine: GRPO on my data."
  source: my notes
  base: builtin
  result: none yet,
    it has not run
  numbers:
    completions per step: [8192, pdf]
    betas: [[0.9, 0.95], ours]
    response tokens: {long: [1e3, repo], short: [10, repo]}
    dual clip: [null, v2]
defaults:
  - override /algo: grpo

name: mine
"""


@cache
def run_of(name: str, scale: str) -> CheckedRun:
    (run,) = check_command_line([f"recipe={name}", f"scale={scale}", "run_dir=runs/not_started"])
    return run


def test_only_known_recipes_have_no_paper() -> None:
    assert files().keys() - RECIPES.keys() == WITHOUT_PAPER


@pytest.mark.parametrize("name", RECIPES)
def test_a_paper_is_complete(name: str) -> None:
    paper = RECIPES[name].paper
    assert [field for field in Paper.model_fields if field != "differs" and not getattr(paper, field)] == []
    assert {number.name for number in paper.each_number()} <= QUANTITIES.keys()


@pytest.mark.parametrize("name", RECIPES)
def test_a_recipe_is_named_after_its_file(name: str) -> None:
    assert run_of(name, "cluster").config.name == name


@pytest.mark.parametrize(("name", "number"), NUMBERS)
def test_number_of_a_paper_equals_the_configuration(name: str, number: Number) -> None:
    assert matches_run(run_of(name, "cluster"), number), values_of(run_of(name, "cluster"), number.name, number.stage)


@pytest.mark.parametrize("name", RECIPES)
def test_nothing_is_replaced_at_full_scale(name: str) -> None:
    run = run_of(name, "cluster")
    assert run.config.device == "cuda"
    assert all(stage.config.model.path != "builtin" for stage in run.stages)
    assert not [note for note in run.notes if "composed after" in note]


@pytest.mark.parametrize(
    ("name", "scale"), [*((name, "tiny") for name in RECIPES), ("r1_zero", "smoke"), ("open_r1_code", "smoke")]
)
def test_laptop_scale_runs_the_same_algorithm_offline(name: str, scale: str) -> None:
    small, full = run_of(name, scale), run_of(name, "cluster")
    assert [(stage.name, stage.stage.kind) for stage in small.stages] == [
        (stage.name, stage.stage.kind) for stage in full.stages
    ]
    assert not [note for note in small.notes if note.startswith("not checked")]
    sizes = {"group_size", "prompts_per_step", "args"}
    for here, there in zip(small.stages, full.stages, strict=True):
        cfg = here.config
        assert (cfg.device, cfg.model.path) == ("cpu", "builtin")
        assert not [source for source in (*cfg.data.train.values(), *cfg.eval.sets.values()) if needs_network(source)]
        assert cfg.algo.model_dump(exclude=sizes) == there.config.algo.model_dump(exclude=sizes)
        assert cfg.algo.args.keys() == there.config.algo.args.keys()
        assert {key: part.name for key, part in cfg.reward.components.items()} == {
            key: part.name for key, part in there.config.reward.components.items()
        }
        assert cfg.data.curriculum.name == there.config.data.curriculum.name


def test_replacements_and_hardware_belong_to_existing_options() -> None:
    there = {path.relative_to(conf_dir()).with_suffix("").as_posix() for path in conf_dir().glob("*/*.yaml")}
    for file in conf_dir().glob("builtin_substitute/*/*/*.yaml"):
        group, model, option = file.relative_to(conf_dir() / "builtin_substitute").with_suffix("").parts
        assert {f"model/{model}", f"{group}/{option}"} <= there, file
    for folder, group in (("hardware", "model"), ("stage_sizes", "stages"), ("eval_sizes", "eval")):
        for file in conf_dir().glob(f"{folder}/*/*.yaml"):
            scale, option = file.relative_to(conf_dir() / folder).with_suffix("").parts
            assert {f"scale/{scale}", f"{group}/{option}"} <= there, file


@pytest.mark.parametrize("name", RECIPES)
def test_smoke_runs_few_steps_of_few_completions_in_every_stage(name: str) -> None:
    for stage in run_of(name, "smoke").stages:
        cfg = stage.config
        assert cfg.steps <= 3
        assert cfg.algo.prompts_per_step * cfg.algo.group_size <= 32


def test_recipes_of_the_end_to_end_tests_cover_every_feature() -> None:
    kinds = {name: kinds_of(run_of(name, "tiny")) for name in RECIPES}
    covered = {kind for name in COVERING for kind in kinds[name]}
    missing = {name: found - covered for name, found in kinds.items() if found - covered}
    assert not missing, f"add these recipes to tests/integration/recipe_kinds.py: {missing}"
    assert METRICS.keys() <= covered, "no recipe has such a thing"
    for name in COVERING:
        others = {kind for other in COVERING if other != name for kind in kinds[other]}
        assert kinds[name] - others, f"{name} can go: the others have all of it"


def test_end_to_end_tests_cover_every_template() -> None:
    named = {stage.config.model.template for name in RECIPES for stage in run_of(name, "cluster").stages}
    ours = {template for template in named if ":" not in template}
    assert ours <= set(TEMPLATES) == set(KNOWN_TEMPLATES)


def test_a_paper_is_read(tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_text(MINE)
    recipe = read(tmp_path / "mine.yaml")
    assert (recipe.name, recipe.paper.title) == ("mine", "Mine: GRPO on my data.")
    assert recipe.paper.result == "none yet, it has not run" and recipe.paper.reward == ""
    assert recipe.options == {"algo": "grpo"}
    assert list(recipe.paper.each_number()) == [
        ("completions per step", EVERY_STAGE, 8192, "pdf"),
        ("betas", EVERY_STAGE, [0.9, 0.95], "ours"),
        ("response tokens", "long", 1000.0, "repo"),
        ("response tokens", "short", 10, "repo"),
        ("dual clip", EVERY_STAGE, None, "v2"),
    ]


@pytest.mark.parametrize(
    ("text", "instead", "message"),
    [
        ("  base:", "  bas:", r"mine.yaml: paper.bas: .*; did you mean base\?"),
        ("  base:", "  source:", r"mine.yaml: .*duplicate key source.*; write it as YAML"),
        ("base: builtin", "base: [builtin]", r"paper.base: .*valid string; write paper.base: TEXT"),
        ("[8192, pdf]", "8192", r"paper.numbers.completions per step: .*; write NAME: \[VALUE, ORIGIN\]"),
        ("[8192, pdf]", "[8192]", r"paper.numbers.completions per step.*required; write NAME: \[VALUE, ORIGIN\]"),
        ("[8192, pdf]", "[many, pdf]", r"paper.numbers.completions per step.*valid number.*; write NAME:"),
        (
            "[10, repo]",
            "[10, book]",
            r"paper.numbers.response tokens.short.*book is not an origin; .*the origins are v1 \(",
        ),
        ("paper:", "paper: none\nunused:", r"mine.yaml: paper: .*; there are: base, data"),
    ],
)
def test_a_mistake_in_a_paper_is_reported_with_its_key(text: str, instead: str, message: str, tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_text(MINE.replace(text, instead, 1))
    with pytest.raises(PaperError, match=message):
        read(tmp_path / "mine.yaml")


def test_a_paper_configures_nothing_and_is_not_inherited(tmp_path: Path) -> None:
    derived = (
        "# @package _global_\ndefaults: [dapo_32b, _self_]\npaper: {title: Derived, source: my notes}\nname: derived\n"
    )
    (tmp_path / "recipe").mkdir()
    (tmp_path / "recipe/derived.yaml").write_text(derived)
    paper = read(tmp_path / "recipe/derived.yaml").paper
    assert (paper.title, paper.base, paper.numbers) == ("Derived", "", {})
    assert "paper" not in compose([f"--config-dir={tmp_path}", "recipe=derived"])


def test_user_recipe_precedes_a_built_in_one(tmp_path: Path) -> None:
    (tmp_path / "recipe").mkdir()
    (tmp_path / "recipe/dapo_32b.yaml").write_text(MINE)
    assert files(tmp_path)["dapo_32b"] == tmp_path / "recipe/dapo_32b.yaml"
    assert files(tmp_path).keys() == files().keys()


def test_numbers_of_several_stages() -> None:
    run = run_of("r1_zero", "cluster")
    assert values_of(run, "updates") == {EVERY_STAGE: 10_400}
    assert values_of(run, "steps", "long") == {"long": 138}
    assert values_of(run, "response tokens") == {"rl": 32768, "long": 65536}
    assert not matches_run(run, Number("response tokens", EVERY_STAGE, 32768, "v2"))
    with pytest.raises(ValueError, match="the stages with reinforcement learning are rl, long"):
        values_of(run, "response tokens", "middle")
    with pytest.raises(ValueError, match="'outputs' is not a quantity; "):
        values_of(run, "outputs")


@pytest.mark.parametrize(("value", "so"), [(3e-6, True), (2e-6, False), (None, False)])
def test_a_number_that_differs_from_the_run_is_found(value: float | None, so: bool) -> None:
    run = run_of("r1_zero", "cluster")
    assert matches_run(run, Number("learning rate", EVERY_STAGE, value, "v2")) is so
    assert matches_run(run, Number("dual clip", EVERY_STAGE, None, "ours"))


def test_every_unit_has_a_value_in_any_run() -> None:
    run = run_of("dapo_32b", "cluster")
    values = {name: next(iter(values_of(run, name).values())) for name in QUANTITIES}
    assert values["clip high"] == 0.28
    assert values["reference refresh updates"] is None and values["reference refresh steps"] is None, "there is no KL"
    assert values_of(run_of("r1_zero", "cluster"), "reference refresh updates") == {"rl": 400, "long": 400}


@pytest.mark.parametrize("name", RECIPES)
def test_a_paper_gives_the_updates_of_a_step(name: str) -> None:
    assert {"updates per step", "completions per update", "prompts per update"} & RECIPES[name].paper.numbers.keys()


@pytest.mark.parametrize("name", RECIPES)
def test_a_stage_starts_from_the_last_weights(name: str) -> None:
    stages = run_of(name, "cluster").stages
    followed = [stage for stage in stages if any(other.stage.after == stage.name for other in stages)]
    assert not [stage.name for stage in followed if stage.config.checkpoint.best_metric]


@pytest.mark.parametrize("name", ["dapo_32b", "vapo_32b", "vc_ppo_32b"])
def test_evaluation_asks_for_an_answer_line_like_the_training_rows(name: str) -> None:
    (stage,) = run_of(name, "cluster").stages
    problems = stage.config.eval.sets["aime24"]
    assert problems.extract == "dapo" and "Answer:" in problems.args["instruction"]


@pytest.mark.parametrize("name", ["skywork_or1_32b", "skywork_or1_7b", "skywork_or1_math_7b", "prime_7b"])
def test_evaluation_asks_for_a_box_like_the_training_rows(name: str) -> None:
    for stage in run_of(name, "cluster").stages:
        assert r"\boxed{}" in stage.config.eval.sets["aime24"].args["instruction"]

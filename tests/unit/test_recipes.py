"""Every recipe is the paper that its header says: its numbers are read back, and it composes at every size."""

from functools import cache
from pathlib import Path

import pytest
from recipe_kinds import COVERING, METRICS, TEMPLATES, kinds_of

from r1ray.check import CheckedRun
from r1ray.cli import check_command_line
from r1ray.config.files import conf_dir
from r1ray.data.sources import needs_network
from r1ray.data.templates import TEMPLATES as KNOWN_TEMPLATES
from r1ray.recipes import Recipe, files, papers, parse
from r1ray.recipes.header import FIELDS, SOURCES, HeaderError, Number
from r1ray.recipes.units import UNITS, is_so, known, value_of

NO_PAPERS = {"builtin_base"}
"""Files of conf/recipe that retell nothing: their headers name no source."""
RECIPES = {recipe.name: recipe for recipe in papers(files().values())}
NUMBERS = [
    pytest.param(name, number, id=f"{name}: {number.name}" + (f" @{number.stage}" if number.stage else ""))
    for name, recipe in RECIPES.items()
    for number in recipe.numbers
]
HEADER = """# @package _global_
# Mine: GRPO
# on my data.
# source: my notes
# base: builtin
# data: mine
# reward: accuracy
# result: none yet,
#   for it has not run
# hardware: a laptop
# unconfirmed: nothing
# numbers:
#   completions a pass = 8,192 [pdf]
#   betas = 0.9, 0.95 [ours]
#   response tokens @long = 1e3 [repo]
#   dual clip = null [v2]
defaults:
  - override /algo: grpo

name: mine
"""


@cache
def run_of(name: str, scale: str) -> CheckedRun:
    (run,) = check_command_line([f"recipe={name}", f"scale={scale}", "run_dir=runs/not_started"])
    return run


def test_what_is_no_paper_says_so() -> None:
    assert files().keys() - RECIPES.keys() == NO_PAPERS


@pytest.mark.parametrize("recipe", RECIPES.values(), ids=RECIPES.keys())
def test_a_header_says_all(recipe: Recipe) -> None:
    assert recipe.title and not recipe.missing
    assert [name for name in recipe.fields if name in FIELDS] == [name for name in FIELDS if name != "numbers"]
    assert not [number.name for number in recipe.numbers if not known(number.name)]
    assert {number.source for number in recipe.numbers} <= SOURCES.keys()
    told = [(number.name, number.stage) for number in recipe.numbers]
    assert len(told) == len(set(told))


@pytest.mark.parametrize("name", RECIPES)
def test_a_recipe_is_named_after_its_file(name: str) -> None:
    assert run_of(name, "cluster").config.name == name


@pytest.mark.parametrize(("name", "number"), NUMBERS)
def test_a_papers_number_is_what_the_recipe_does(name: str, number: Number) -> None:
    assert is_so(run_of(name, "cluster"), number), value_of(run_of(name, "cluster"), number.name, number.stage)


@pytest.mark.parametrize("name", RECIPES)
def test_at_full_scale_nothing_of_it_is_a_stand_in(name: str) -> None:
    run = run_of(name, "cluster")
    assert run.config.device == "cuda"
    assert all(stage.config.model.path != "builtin" for stage in run.stages)
    assert not [note for note in run.notes if "comes after" in note]


@pytest.mark.parametrize(
    ("name", "scale"), [*((name, "tiny") for name in RECIPES), ("r1_zero", "smoke"), ("open_r1_code", "smoke")]
)
def test_a_laptop_runs_the_same_algorithm_offline(name: str, scale: str) -> None:
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


def test_stand_ins_and_hardware_are_of_options_that_there_are() -> None:
    there = {path.relative_to(conf_dir()).with_suffix("").as_posix() for path in conf_dir().glob("*/*.yaml")}
    for file in conf_dir().glob("replacement/*/*/*.yaml"):
        group, model, option = file.relative_to(conf_dir() / "replacement").with_suffix("").parts
        assert {f"model/{model}", f"{group}/{option}"} <= there, file
    for folder, group in (("hardware", "model"), ("stage_sizes", "stages")):
        for file in conf_dir().glob(f"{folder}/*/*.yaml"):
            scale, option = file.relative_to(conf_dir() / folder).with_suffix("").parts
            assert {f"scale/{scale}", f"{group}/{option}"} <= there, file


@pytest.mark.parametrize("name", RECIPES)
def test_smoke_is_a_few_steps_of_a_few_completions_in_every_stage(name: str) -> None:
    for stage in run_of(name, "smoke").stages:
        cfg = stage.config
        assert cfg.steps <= 3
        assert cfg.algo.prompts_per_step * cfg.algo.group_size <= 32


def test_the_recipes_that_are_run_have_every_kind_of_thing_that_recipes_are_made_of() -> None:
    kinds = {name: kinds_of(run_of(name, "tiny")) for name in RECIPES}
    covered = {kind for name in COVERING for kind in kinds[name]}
    missing = {name: found - covered for name, found in kinds.items() if found - covered}
    assert not missing, f"add these recipes to tests/integration/recipe_kinds.py: {missing}"
    assert METRICS.keys() <= covered, "no recipe has such a thing"
    for name in COVERING:
        others = {kind for other in COVERING if other != name for kind in kinds[other]}
        assert kinds[name] - others, f"{name} can go: the others have all of it"


def test_the_templates_that_are_run_are_those_of_the_recipes_and_the_other_ones() -> None:
    named = {stage.config.model.template for name in RECIPES for stage in run_of(name, "cluster").stages}
    ours = {template for template in named if ":" not in template}
    assert ours <= set(TEMPLATES) == set(KNOWN_TEMPLATES)


def test_a_header_is_read(tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_text(HEADER)
    recipe = parse(tmp_path / "mine.yaml")
    assert (recipe.name, recipe.title, recipe.missing) == ("mine", "Mine: GRPO on my data.", [])
    assert recipe.fields["result"] == "none yet, for it has not run"
    assert recipe.options == {"algo": "grpo"}
    assert [(n.name, n.stage, n.value, n.source) for n in recipe.numbers] == [
        ("completions a pass", None, 8192, "pdf"),
        ("betas", None, (0.9, 0.95), "ours"),
        ("response tokens", "long", 1000.0, "repo"),
        ("dual clip", None, None, "v2"),
    ]


@pytest.mark.parametrize(
    ("line", "instead", "message"),
    [
        ("# base: builtin", "# bas: builtin", r"mine.yaml:5: bas: .*did you mean base"),
        ("# base: builtin", "# data: builtin", r"mine.yaml:6: data: .*twice"),
        ("= 8,192 [pdf]", "= 8,192", r"mine.yaml:13: .*name = value \[where it is told\]"),
        ("= 8,192 [pdf]", "= many [pdf]", r"mine.yaml:13: 'many' is no number"),
        ("#   for it", "# For it", r"mine.yaml:9: .*neither a field nor indented"),
    ],
)
def test_a_mistake_in_a_header_is_named_with_its_line(line: str, instead: str, message: str, tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_text(HEADER.replace(line, instead, 1))
    with pytest.raises(HeaderError, match=message):
        parse(tmp_path / "mine.yaml")


def test_a_recipe_of_ones_own_comes_before_ours(tmp_path: Path) -> None:
    (tmp_path / "recipe").mkdir()
    (tmp_path / "recipe/dapo_32b.yaml").write_text(HEADER)
    assert files(tmp_path)["dapo_32b"] == tmp_path / "recipe/dapo_32b.yaml"
    assert files(tmp_path).keys() == files().keys()


def test_numbers_of_several_stages() -> None:
    run = run_of("r1_zero", "cluster")
    assert value_of(run, "updates") == 10_400
    assert value_of(run, "passes", "long") == 138
    assert value_of(run, "weight of format") == 1.0
    with pytest.raises(ValueError, match="response tokens differs by stage"):
        value_of(run, "response tokens")
    with pytest.raises(ValueError, match="the rl stages are rl, long"):
        value_of(run, "response tokens", "middle")
    with pytest.raises(ValueError, match="none of the units"):
        value_of(run, "outputs")


@pytest.mark.parametrize(("told", "so"), [(3e-6, True), (2e-6, False), (None, False)])
def test_a_header_that_says_otherwise_is_found(told: float | None, so: bool) -> None:
    run = run_of("r1_zero", "cluster")
    assert is_so(run, Number(name="learning rate", stage=None, value=told, source="v2")) is so
    assert is_so(run, Number(name="dual clip", stage=None, value=None, source="ours"))


def test_every_unit_can_be_told_of_any_run() -> None:
    run = run_of("dapo_32b", "cluster")
    values = {name: value_of(run, name) for name in UNITS}
    assert values["clip high"] == 0.28
    assert values["reference every"] is None and values["reference every passes"] is None, "there is no KL"
    assert value_of(run_of("r1_zero", "cluster"), "reference every") == 400


@pytest.mark.parametrize("name", RECIPES)
def test_a_header_tells_the_updates_of_a_pass(name: str) -> None:
    assert {"updates a pass", "completions an update", "problems an update"} & {n.name for n in RECIPES[name].numbers}


@pytest.mark.parametrize("name", RECIPES)
def test_a_stage_goes_on_from_the_last_weights(name: str) -> None:
    stages = run_of(name, "cluster").stages
    followed = [stage for stage in stages if any(other.stage.after == stage.name for other in stages)]
    assert not [stage.name for stage in followed if stage.config.checkpoint.best_metric]


@pytest.mark.parametrize("name", ["dapo_32b", "vapo_32b", "vc_ppo_32b"])
def test_an_answer_line_is_asked_for_in_evaluation_where_the_training_rows_do(name: str) -> None:
    (stage,) = run_of(name, "cluster").stages
    problems = stage.config.eval.sets["aime24"]
    assert problems.extract == "dapo" and "Answer:" in problems.args["instruction"]


@pytest.mark.parametrize("name", ["skywork_or1_32b", "skywork_or1_7b", "skywork_or1_math_7b", "prime_7b"])
def test_a_box_is_asked_for_in_evaluation_where_the_training_rows_do(name: str) -> None:
    for stage in run_of(name, "cluster").stages:
        assert r"\boxed{}" in stage.config.eval.sets["aime24"].args["instruction"]

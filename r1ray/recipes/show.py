"""Recipes as a person reads them: the table, one in full, two beside each other."""

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import yaml
from rich.table import Table
from rich.text import Text

from r1ray.check import CheckedRun
from r1ray.config.files import conf_dir
from r1ray.mistakes import show
from r1ray.recipes.header import FIELDS, OPTIONAL_FIELDS, SOURCES, HeaderError, Number, Recipe
from r1ray.recipes.units import UNITS, DiffersByStage, is_so, value_of
from r1ray.run.directory import changes

ORDER = ("algo", "trainer", "critic", "prm", "rollout", "reward", "data", "model", "eval", "stages")
"""The groups that make a recipe what it is, first."""
PLACES = ("num_workers", "cpus_per_worker", "gpus_per_worker", "tensor_parallel_size", "zero_stage")
"""Last: where it runs says little about what it does."""
NAMES = ("name", "run_dir")
COLUMNS = {"base": "base", "data": "data", "reward": "reward", "result": "published result", "hardware": "hardware"}
"""{field of a header: its title in the table}."""
KEPT = ("base", "result", "data", "reward", "hardware")
"""As many of these as there is room for, the first ones first."""
ROOM = 22
"""Characters of a column in which a text that is cut still says something."""


def table(recipes: Iterable[Recipe], width: int) -> Table:
    """A line each, `width` characters at most: the first clause of a text, cut where it is longer than its column."""
    default = _default_options()["algo"]
    found = list(recipes)
    algorithms = [recipe.options.get("algo", default) for recipe in found]
    first = (["recipe", *(recipe.name for recipe in found)], ["algorithm", *algorithms])
    taken = sum(max(map(len, texts)) + 2 for texts in first)
    kept = KEPT[: max(0, (width - taken) // ROOM)]
    fields = [field for field in COLUMNS if field in kept]
    lines = _table("recipe", "algorithm", *(COLUMNS[field] for field in fields))
    lines.columns[0].no_wrap = lines.columns[1].no_wrap = True
    for recipe, algorithm in zip(found, algorithms, strict=True):
        cells = [Text(_in_short(recipe, field), no_wrap=True, overflow="ellipsis") for field in fields]
        lines.add_row(recipe.name, algorithm, *cells)
    return lines


def _in_short(recipe: Recipe, field: str) -> str:
    """Its first clause, without marks of where it is told; a model or dataset without its owner."""
    said = re.sub(r" \[\w+\]", "", recipe.fields.get(field, "-").partition(";")[0])
    return re.sub(r"\b[\w.-]+/(?=\w)", "", said) if field in ("base", "data") else said


def in_full(recipe: Recipe, run: CheckedRun, default: Mapping[str, Any], scale: str) -> list[str | Table]:
    """The header, its numbers, and every key in which the recipe differs from `default` at the same scale.

    Raises HeaderError where a number cannot be held against the run; where it is another than the run's, both are shown.
    """
    said = _table()
    for name in (*FIELDS, *OPTIONAL_FIELDS):
        if name in recipe.fields:
            said.add_row(name, recipe.fields[name])
    chosen = " ".join(f"{group}={option}" for group, option in recipe.options.items())
    said.add_row("chosen", chosen or "-")
    done = [_otherwise(recipe, number, run) for number in recipe.numbers]
    numbers = _table("number", "value", "told in", *([f"but with scale={scale}"] if any(done) else []))
    for number, other in zip(recipe.numbers, done, strict=True):
        name = number.name + (f" @{number.stage}" if number.stage else "")
        numbers.add_row(name, _text(number.value), SOURCES[number.source], *([other] if any(done) else []))
    keys = _table("key", recipe.name, "default")
    for key, (old, new) in _in_order(changes(default, run.raw)).items():
        keys.add_row(key, show(new), show(old))
    parts: list[str | Table] = [f"{recipe.name}: {recipe.title}", said]
    return [*parts, *([numbers] if recipe.numbers else []), keys]


def difference(first: CheckedRun, second: CheckedRun, names: Sequence[str]) -> list[str | Table]:
    """What differs between two, in the papers' units and then key by key."""
    numbers = _table("number", *names)
    for name in UNITS:
        texts = [_by_stage(run, name) for run in (first, second)]
        if texts[0] != texts[1]:
            numbers.add_row(name, *texts)
    keys = _table("key", *names)
    for key, values in _in_order(changes(first.raw, second.raw)).items():
        keys.add_row(key, *map(show, values))
    return [numbers, keys] if keys.row_count else ["They do the same."]


def _in_order(found: Mapping[str, list[Any]]) -> dict[str, list[Any]]:
    def place(key: str) -> tuple[bool, int]:
        group, _, rest = key.partition(".")
        return rest.rpartition(".")[2] in PLACES, ORDER.index(group) if group in ORDER else len(ORDER)

    return {key: found[key] for key in sorted(found, key=place) if key not in NAMES}


def _otherwise(recipe: Recipe, number: Number, run: CheckedRun) -> str:
    """What the run does, where that is something else than the header says."""
    try:
        return "" if is_so(run, number) else _text(value_of(run, number.name, number.stage))
    except DiffersByStage:
        return _by_stage(run, number.name)
    except ValueError as error:
        raise HeaderError(f"{recipe.file}: {error}") from error


def _by_stage(run: CheckedRun, name: str) -> str:
    try:
        return _text(value_of(run, name))
    except DiffersByStage:
        stages = [checked.name for checked in run.stages if checked.stage.kind == "rl"]
        return ", ".join(f"{_text(value_of(run, name, stage))} @{stage}" for stage in stages)


def _text(value: Any) -> str:
    """Example: 8192 is "8,192", 1e-06 stays, (0.9, 0.95) is "0.9, 0.95"."""
    if isinstance(value, tuple):
        return ", ".join(map(_text, value))
    whole = isinstance(value, int) or (isinstance(value, float) and value.is_integer())
    return f"{int(value):,}" if whole else show(value)


def _table(*columns: str) -> Table:
    lines = Table(box=None, show_header=bool(columns), pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
    for column in columns or ("", ""):
        lines.add_column(column, overflow="fold")
    return lines


def _default_options() -> dict[str, str]:
    entries: list[Any] = yaml.safe_load((conf_dir() / "config.yaml").read_text())["defaults"]
    return {group: option for entry in entries if isinstance(entry, dict) for group, option in entry.items()}

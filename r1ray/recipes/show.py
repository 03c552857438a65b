"""Recipes as a person reads them: the table, one in full, two beside each other."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import yaml
from rich.table import Table

from r1ray.check import CheckedRun
from r1ray.check.mistakes import show
from r1ray.check.overrides import conf_dir
from r1ray.recipes.header import FIELDS, OPTIONAL_FIELDS, SOURCES, Recipe
from r1ray.recipes.units import UNITS, value_of
from r1ray.run.directory import changes

ORDER = ("algo", "trainer", "critic", "prm", "rollout", "reward", "data", "model", "eval", "stages")
"""The groups that make a recipe what it is, first."""
PLACES = ("num_workers", "cpus_per_worker", "gpus_per_worker", "tensor_parallel_size", "zero_stage")
"""Last: where it runs says little about what it does."""
NAMES = ("name", "run_dir")


def table(recipes: Iterable[Recipe]) -> Table:
    """A line each; of what the base, the data and the result are, the first clause."""
    default = _default_options()["algo"]
    lines = _table("recipe", "algorithm", "base", "data", "reward", "published result", "hardware")
    lines.columns[0].no_wrap = lines.columns[1].no_wrap = True
    for recipe in recipes:
        said = {name: recipe.fields.get(name, "-") for name in FIELDS}
        said |= {name: said[name].partition(";")[0] for name in ("base", "data", "result")}
        shown = [said[name] for name in ("base", "data", "reward", "result", "hardware")]
        lines.add_row(recipe.name, recipe.options.get("algo", default), *shown)
    return lines


def in_full(recipe: Recipe, run: CheckedRun, default: Mapping[str, Any]) -> list[str | Table]:
    """The header, its numbers, and every key in which the recipe differs from `default` at the same scale."""
    said = _table()
    for name in (*FIELDS, *OPTIONAL_FIELDS):
        if name in recipe.fields:
            said.add_row(name, recipe.fields[name])
    chosen = " ".join(f"{group}={option}" for group, option in recipe.options.items())
    said.add_row("chosen", chosen or "-")
    numbers = _table("number", "value", "told in")
    for number in recipe.numbers:
        name = number.name + (f" @{number.stage}" if number.stage else "")
        numbers.add_row(name, _text(number.value), SOURCES.get(number.source, number.source))
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


def _by_stage(run: CheckedRun, name: str) -> str:
    try:
        return _text(value_of(run, name))
    except ValueError:
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

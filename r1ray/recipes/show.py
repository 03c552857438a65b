"""Recipes as text: the table of papers, one recipe in full, the differences of two."""

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from rich.table import Column, Table
from rich.text import Text

from r1ray.check import CheckedRun
from r1ray.mistakes import show
from r1ray.recipes.paper import EVERY_STAGE, ORIGINS, Paper, Recipe, Value
from r1ray.recipes.quantities import QUANTITIES, matches_run, values_of
from r1ray.run.directory import changes

COLUMNS = {"base": "base", "result": "published result", "data": "data", "reward": "reward", "hardware": "hardware"}
"""{field of a paper: its title in the table}; a narrow table has the first of them."""
MIN_WIDTH = 22
"""Minimum width of such a column, in characters."""


def table(recipes: Iterable[Recipe], width: int) -> Table:
    """One line for each paper, at most `width` characters: each text is cut to its first clause and to its column."""
    rows = [(recipe.name, recipe.options.get("algo", "default"), recipe.paper) for recipe in recipes]
    head = [("recipe", "algorithm"), *((name, algo) for name, algo, paper in rows if paper.source)]
    left = width - sum(max(map(len, texts)) + 2 for texts in zip(*head, strict=True))
    fields = list(COLUMNS)[: max(0, left // MIN_WIDTH)]
    lines = _table(*head[0], *(COLUMNS[field] for field in fields))
    lines.columns[0].no_wrap = lines.columns[1].no_wrap = True
    for name, algo, paper in rows:
        if paper.source:
            lines.add_row(name, algo, *(_in_short(paper, field) for field in fields))
    return lines


def _in_short(paper: Paper, field: str) -> Text:
    """The first clause without origins; a model or dataset without its owner."""
    text = re.sub(r" \[\w+\]", "", getattr(paper, field).partition(";")[0])
    short = re.sub(r"\b[\w.-]+/(?=\w)", "", text) if field in ("base", "data") else text
    return Text(short, no_wrap=True, overflow="ellipsis")


def in_full(recipe: Recipe, run: CheckedRun, default: Mapping[str, Any], scale: str) -> Iterator[str | Table]:
    """Sources, numbers, and every key in which the recipe differs from `default` at the same scale.

    Where the run's number differs from the paper's, both are shown. Raises ValueError for a number that is not
    in `QUANTITIES`, or of a stage that the run does not have.
    """
    texts = _table("paper", recipe.paper.title)
    for field, text in recipe.paper.model_dump(exclude={"title", "numbers"}, exclude_defaults=True).items():
        texts.add_row(field, text)
    texts.add_row("options", " ".join(f"{group}={option}" for group, option in recipe.options.items()))
    numbers = _table("number", "value", "from", f"at scale={scale}")
    for number in recipe.paper.each_number():
        other = "" if matches_run(run, number) else _by_stage(values_of(run, number.name, number.stage))
        name = f"{number.name} @{number.stage}".removesuffix(f" @{EVERY_STAGE}")
        numbers.add_row(name, _text(number.value), ORIGINS[number.origin], other)
    new_first = {key: values[::-1] for key, values in changes(default, run.raw).items()}
    yield from (texts, numbers, _keys(new_first, recipe.name, "default"))


def difference(first: CheckedRun, second: CheckedRun, names: Sequence[str]) -> list[str | Table]:
    """What differs between two runs, by the papers' quantities and by key."""
    numbers, keys = _table("number", *names), _keys(changes(first.raw, second.raw), *names)
    for name in QUANTITIES:
        texts = [_by_stage(values_of(run, name)) for run in (first, second)]
        if texts[0] != texts[1]:
            numbers.add_row(name, *texts)
    return [numbers, keys] if keys.row_count else ["The two recipes are the same."]


def _keys(found: Mapping[str, list[Any]], *columns: str) -> Table:
    lines = _table("key", *columns)
    for key, values in found.items():
        if key not in ("name", "run_dir"):
            lines.add_row(key, *map(show, values))
    return lines


def _by_stage(values: Mapping[str, Value]) -> str:
    """Example: {"short": 8192, "long": 16384} is "8,192 @short, 16,384 @long"; one value of all stages is shown once."""
    texts = {stage: _text(value) for stage, value in values.items()}
    same = len(set(texts.values())) < 2
    return (
        next(iter(texts.values()), "null") if same else ", ".join(f"{text} @{stage}" for stage, text in texts.items())
    )


def _text(value: Value) -> str:
    """Example: 8192 is "8,192", 1e-06 stays, [0.9, 0.95] is "0.9, 0.95"."""
    return "null" if value is None else ", ".join(f"{number:,.12g}" for number in np.atleast_1d(value))


def _table(*titles: str) -> Table:
    columns = (Column(title, overflow="fold") for title in titles)
    return Table(*columns, box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")

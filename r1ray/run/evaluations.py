"""The evaluations of a stage as a table: what the closing summary prints and report.html shows.

Left out are problems of the dataset that are not in the accuracy: rows that cannot be used, prompts that are too long, and problems
of which a completion could not be scored.
"""

import html
import re
from collections.abc import Mapping, Sequence
from typing import Any

from r1ray.run.console import number
from r1ray.run.directory import RunDir
from r1ray.run.loggers import Rows, matching

DROPPED = ("unreadable", "overlong", "held_out")
"""Counts of `r1ray.data.prompts.ProblemSet`."""
LAST = ("response_length", "truncated")
Table = list[list[str]]
"""Rows of equal length; the first one is the header."""


def eval_sets(rows: Rows) -> list[str]:
    return [match[1] for match in matching(rows, "eval/(.+)/accuracy")]


def evaluations(run: RunDir, stage: str, rows: Rows, *, steps: bool = True) -> Table:
    """A row for each set and, with `steps`, for the first, the best and the last evaluation of it; [] if there was none.

    Example: ["set", "n", "left out", "accuracy", "stderr", "pass@1", "maj@4", "tokens", "truncated"], ["aime24", "30", ...].
    """
    sets = dict.fromkeys(match[1] for match in matching(rows, "eval/(.+)/response_length"))
    dropped = dropped_problems(run, stage)
    shown = [(name, row) for name in sets for row in (_notable(rows, name) if steps else _points(rows, name)[-1:])]
    keys = _sorted({key for name, row in shown for key in _values(row, name)} - {"accuracy", "stderr", "unusable"})
    keys = [key for key in keys if key not in ("problems", "left_out")]
    header = ["set", *(["step"] if steps else []), "n", "left out", "accuracy", "stderr"]
    table = [[*header, *({"response_length": "tokens"}.get(key, key) for key in keys)]]
    for name, row in shown:
        values = _values(row, name)
        left_out = dropped.get(name, 0) + int(values.get("left_out", 0))
        cells = [name, *([str(row["step"])] if steps else []), _text(values.get("problems")), str(left_out)]
        table.append([*cells, *(_text(values.get(key)) for key in ("accuracy", "stderr", *keys))])
    return table if len(table) > 1 else []


def dropped_problems(run: RunDir, stage: str) -> dict[str, int]:
    """{set: rows that were dropped when it was loaded}."""
    events = [event for event in run.read_events("data_loaded") if event.get("stage") == stage]
    return {
        event["set"]: sum(event.get(why, 0) for why in DROPPED)
        for event in events
        if event.get("use") == "eval" and "set" in event
    }


def as_text(table: Table) -> list[str]:
    """Columns aligned, the first to the left and numbers to the right."""
    widths = [max(len(row[column]) for row in table) for column in range(len(table[0]))] if table else []
    return [
        "  ".join(cell.rjust(width) if column else cell.ljust(width) for column, (cell, width) in enumerate(cells))
        for cells in ([*zip(row, widths, strict=True)] for row in table)
    ]


def as_html(table: Table) -> str:
    rows = ["".join(f"<td>{html.escape(cell)}</td>" for cell in row) for row in table]
    return f'<table class="numbers">{"".join(f"<tr>{row}</tr>" for row in rows)}</table>' if table else ""


def _points(rows: Rows, name: str) -> list[Mapping[str, Any]]:
    return [row for row in rows if row.get(f"eval/{name}/response_length") is not None]


def _notable(rows: Rows, name: str) -> list[Mapping[str, Any]]:
    points = _points(rows, name)
    best = max(points, key=lambda row: row.get(f"eval/{name}/accuracy") or 0.0)
    return [row for row in points if row in (points[0], best, points[-1])]


def _values(row: Mapping[str, Any], name: str) -> dict[str, float]:
    start = f"eval/{name}/"
    return {key.removeprefix(start): value for key, value in row.items() if key.startswith(start) and value is not None}


def _sorted(keys: set[str]) -> Sequence[str]:
    """pass@k by k, then maj@k, then others."""

    def order(key: str) -> tuple[int, int, str]:
        found = re.fullmatch(r"(pass|maj)@(\d+)", key)
        kind = ("pass", "maj").index(found[1]) if found else 3 if key in LAST else 2
        return kind, int(found[2]) if found else 0, key

    return sorted(keys, key=order)


def _text(value: float | None) -> str:
    return "-" if value is None else f"{value:.0f}" if value == int(value) and value > 1 else number(value)

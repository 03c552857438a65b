"""`python -m r1ray.compare runs/a runs/b ...`: runs next to each other, as a table and as one page of curves.

The page is comparison.html next to the first run, or FILE with `--page FILE`. A run with several stages has a line for each. Exit
code 2: one of the folders holds no run.
"""

import argparse
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from r1ray.run.charts import Curve, line_chart
from r1ray.run.console import duration, number
from r1ray.run.directory import RunDir, changes, mapping_in
from r1ray.run.evaluations import Table, as_html, as_text, eval_sets
from r1ray.run.files import write_atomically
from r1ray.run.loggers import Rows, matching, read_metrics
from r1ray.run.page import page
from r1ray.run.report import CHARTS, LOG_CHARTS

OF_THE_START = ("name", "run_dir", "resume", "check", "fault")
"""Keys that say nothing about how a run trains."""
PAGE = "comparison.html"
MAX_KEYS = 6
"""Differing keys in the printed table; the page has all."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """One stage of one run."""

    name: str
    config: Mapping[str, Any]
    """{dotted key: value} of the keys that differ between the runs."""
    rows: Rows


def main(arguments: Sequence[str]) -> int:
    form = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser("r1ray.compare", description=__doc__, formatter_class=form)
    parser.add_argument("runs", nargs="+", type=Path, metavar="RUN", help="a run directory, such as runs/r1_zero")
    parser.add_argument(
        "--page", type=Path, metavar="FILE", help=f"where to write the page (default: {PAGE} next to RUN)"
    )
    args = parser.parse_args(arguments)
    for run in args.runs:
        if not (run / "stages").is_dir():
            why = "holds no run" if run.is_dir() else "does not exist"
            print(f"r1ray: {run} {why}: give run directories, such as runs/r1_zero", file=sys.stderr)
            return 2
    print(comparison(args.runs, file=args.page))
    return 0


def comparison(runs: Sequence[Path], *, file: Path | None = None) -> str:
    """Write the page and return the table with its path."""
    results = list(_results(runs))
    if not results:
        return "no metrics were logged"
    file = file or runs[0].resolve().parent / PAGE
    title = f"{len(runs)} runs"
    subtitle = f"{', '.join(run.name for run in runs)} · written {time.strftime('%Y-%m-%d %H:%M:%S')}"
    body = f'{as_html(table(results))}<div class="cards">{"".join(_charts(results))}</div>'
    write_atomically(file, page(title, subtitle=subtitle, body=body))
    hidden = len(results[0].config) - MAX_KEYS
    note = [f"{hidden} more keys differ: see the page"] if hidden > 0 else []
    return "\n".join([*as_text(table(results, max_keys=MAX_KEYS)), *note, f"curves: {file}"])


def table(results: Sequence[Result], *, max_keys: int | None = None) -> Table:
    """A row for each result: its differing keys, last step, accuracy of each set (first, last, best), mean reward, time."""
    keys = list(results[0].config)[:max_keys]
    sets = list(dict.fromkeys(name for result in results for name in eval_sets(result.rows)))
    accuracies = [f"{name} {which}" for name in sets for which in ("first", "last", "best")]
    lines = [["run", *_short(keys), "last step", *accuracies, "reward", "time"]]
    for result in results:
        values = [_values(result.rows, f"eval/{name}/accuracy") for name in sets]
        cells = [cell for own in values for cell in ([own[0], own[-1], max(own)] if own else [None] * 3)]
        rewards = _values(result.rows, "reward/mean")[-5:]
        cells.append(sum(rewards) / len(rewards) if rewards else None)
        shown = [_text(result.config[key]) for key in keys]
        steps, seconds = str(result.rows[-1]["step"]), duration(_seconds(result.rows))
        lines.append([result.name, *shown, steps, *("-" if cell is None else number(cell) for cell in cells), seconds])
    return lines


def _results(runs: Sequence[Path]) -> Iterator[Result]:
    configs = [mapping_in(RunDir(run).config) or {} for run in runs]
    differing = dict.fromkeys(key for other in configs[1:] for key in changes(configs[0], other))
    keys = [key for key in differing if key not in OF_THE_START]
    for run, config in zip(runs, configs, strict=True):
        own = {key: _at(config, key) for key in keys}
        stages = sorted((run / "stages").glob("*"), key=lambda path: path.stat().st_mtime)
        logged = {path.name: rows for path in stages if (rows := read_metrics(path / "metrics.jsonl"))}
        for stage, rows in logged.items():
            yield Result(name=run.name if len(logged) == 1 else f"{run.name}/{stage}", config=own, rows=rows)


def _charts(results: Sequence[Result]) -> Iterator[str]:
    """A chart for each metric of report.html that some run has, with a curve for each run."""
    yield from (
        _chart(f"Accuracy on {name}", f"eval/{name}/accuracy", results, errors=f"eval/{name}/stderr")
        for name in dict.fromkeys(name for result in results for name in eval_sets(result.rows))
    )
    for titles, log in ((CHARTS, False), (LOG_CHARTS, True)):
        for title, patterns in titles.items():
            found = [match[0] for p in patterns for result in results for match in matching(result.rows, p)]
            metrics = list(dict.fromkeys(found))
            for metric in metrics:
                yield _chart(title if len(metrics) == 1 else f"{title}: {metric}", metric, results, log=log)


def _chart(title: str, metric: str, results: Sequence[Result], *, errors: str = "", log: bool = False) -> str:
    curves: list[Curve] = []
    for result in results:
        points = [row for row in result.rows if row.get(metric) is not None]
        half_widths = [row.get(errors) or 0.0 for row in points] if errors else None
        x, y = [row["step"] for row in points], [row[metric] for row in points]
        curves.append(Curve(name=result.name, x=x, y=y, errors=half_widths))
    return line_chart(title, curves, log=log)


def _values(rows: Rows, name: str) -> list[float]:
    return [row[name] for row in rows if row.get(name) is not None]


def _seconds(rows: Rows) -> float:
    return sum((row.get("time/step") or 0) + (row.get("time/eval") or 0) for row in rows)


def _at(config: Mapping[str, Any], key: str) -> Any:
    """The value at a dotted key; None where there is none. A key of a mapping may hold dots itself."""
    value: Any = config
    while key and isinstance(value, Mapping):
        first = next((part for part in value if key == part or key.startswith(f"{part}.")), None)
        if first is None:
            return None
        value, key = value[first], key[len(first) + 1 :]
    return value


def _short(keys: Sequence[str]) -> list[str]:
    """The last parts of dotted keys, where they are unique."""
    lasts = [key.rpartition(".")[2] for key in keys]
    return [last if lasts.count(last) == 1 else key for key, last in zip(keys, lasts, strict=True)]


def _text(value: Any) -> str:
    text = "null" if value is None else str(value).lower() if isinstance(value, bool) else str(value)
    return text if len(text) <= 30 else f"{text[:27]}..."


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

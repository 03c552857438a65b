"""report.html: one self-contained page from the files of a run directory; `python -m r1ray.run.report runs/NAME` rewrites it."""

import html
import json
import re
import sys
import time
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

from r1ray.data.rollouts import read_rollouts, rollout_steps
from r1ray.run.audit import audit_section
from r1ray.run.card import completion_card
from r1ray.run.charts import Curve, histogram, line_chart, stacked_chart
from r1ray.run.console import duration, number
from r1ray.run.directory import RunDir, StageDir
from r1ray.run.evaluations import as_html, eval_sets, evaluations
from r1ray.run.files import read_jsonl, write_atomically
from r1ray.run.loggers import Rows, matching, read_metrics
from r1ray.run.page import page

CHARTS: Mapping[str, tuple[str, ...]] = {
    "Solve rate": ("solve_rate",),
    "Response length (tokens)": ("response_length/mean",),
    "Reward": ("reward/mean", r"reward/.+/mean"),
    "Words of reflection per completion": ("reflection/mean",),
    "Groups": ("groups/kept", "groups/solve_all", "groups/solve_none"),
    "Truncated and unusable completions": ("truncated/fraction", "unusable/fraction"),
    "Loss": (r"loss/.+",),
    "KL from the reference": ("kl_ref",),
    "KL between engine and trainer": ("mismatch/kl",),
    "Entropy": ("entropy",),
    "Clip fraction": ("clip_fraction",),
    "Learning rate": ("lr",),
    "Tokens per second": (r"tokens_per_second/.+",),
    "Memory of the largest worker (GiB)": (r"memory/.+",),
    "GPU memory reserved by torch (GiB)": (r"gpu_memory/.+",),
}
"""{title: patterns of metric names}; a chart without data is omitted."""
SOURCE_CHARTS: Mapping[str, str] = {
    "Reward by source": r"source/(.+)/reward/mean",
    "Solve rate by source": r"source/(.+)/solve_rate",
}
LOG_CHARTS: Mapping[str, tuple[str, ...]] = {
    "Log-prob gap between trainer and engine": ("mismatch/logprob_gap/max",),
    "Gradient norm": ("grad_norm",),
}
SAMPLES = 4
"""Problems shown from the first and from the last rollouts file, one completion each."""
ROUTINE_EVENTS = (
    *("run_started", "run_resumed", "data_loaded", "checkpoint_saved"),
    *("stage_started", "stage_finished", "reference_replaced"),
)
"""Events of a run without problems; all others are counted in the title of the section."""


def write_report(run: RunDir) -> Path:
    """Write the page; a reader sees the old one or the new one."""
    config = run.config.read_text() if run.config.exists() else ""
    versions_file = run.path / "versions.json"
    versions: dict[str, str] = json.loads(versions_file.read_text()) if versions_file.exists() else {}
    stages = sorted((run.path / "stages").glob("*"), key=lambda path: _position(path.name, config))
    sections = [_stage(run, StageDir(path), titled=len(stages) > 1) for path in stages]
    command = versions.pop("command", "")
    shown = f'<p class="sub"><code>{html.escape(command)}</code></p>' if command else ""
    body = "".join([shown, *sections, _events(run), _details("Configuration", f"<pre>{html.escape(config)}</pre>")])
    body += _details("Versions", _table(versions.items()))
    subtitle = f"{run.path.resolve()} · written {time.strftime('%Y-%m-%d %H:%M:%S')}"
    write_atomically(run.report, page(run.path.name, subtitle=subtitle, body=body))
    return run.report


def before_and_after(rows: Rows, name: str, *, window: int = 5) -> tuple[float, float] | None:
    """A noisy metric at the start and at the end: its means over the first and the last few steps."""
    values = [row[name] for row in rows if row.get(name) is not None]
    window = max(1, min(window, len(values) // 2))  # no step counts twice
    return (fmean(values[:window]), fmean(values[-window:])) if values else None


def _stage(run: RunDir, stage: StageDir, *, titled: bool) -> str:
    rows = read_metrics(stage.metrics)
    if not rows:
        return ""
    title = f"<h2>Stage {html.escape(stage.path.name)}</h2>" if titled else ""
    cards = [_eval_chart(rows), *(_source_chart(rows, name, pattern) for name, pattern in SOURCE_CHARTS.items())]
    cards += [line_chart(name, _curves(rows, patterns)) for name, patterns in CHARTS.items()]
    cards += [line_chart(name, _curves(rows, patterns), log=True) for name, patterns in LOG_CHARTS.items()]
    cards += [_time_chart(rows)]
    files = rollout_steps(stage.rollouts)
    samples = ""
    if files:
        first, last = min(files), max(files)
        shown = {f"step {step}": read_rollouts(files[step]) for step in dict.fromkeys((first, last))}
        lengths = {name: [line["length"] for line in lines] for name, lines in shown.items()}
        cards.append(histogram("Response length, first and last", lengths))
        samples = _samples(shown) + audit_section(rows, files)
    table = as_html(evaluations(run, stage.path.name, rows))
    evaluated = f"<h3>Evaluations</h3>{table}" if table else ""
    return (
        f'{title}<div class="tiles">{_tiles(rows)}</div>{evaluated}<div class="cards">{"".join(cards)}</div>{samples}'
    )


def _tiles(rows: Rows) -> str:
    tiles: list[tuple[str, str]] = []
    for name in eval_sets(rows):
        points = [row for row in rows if row.get(f"eval/{name}/accuracy") is not None]
        first, last = (row[f"eval/{name}/accuracy"] for row in (points[0], points[-1]))
        error = points[-1].get(f"eval/{name}/stderr")
        text = f"{number(first)} → {number(last)}" if len(points) > 1 else number(last)
        tiles.append((text, f"accuracy on {name}" + (f", ± {number(error)}" if error is not None else "")))
    for name, words in (("solve_rate", "solve rate in training"), ("response_length/mean", "tokens per response")):
        if pair := before_and_after(rows, name):
            tiles.append((f"{number(pair[0])} → {number(pair[1])}", words))
    seconds = sum(row.get("time/step") or 0 for row in rows) + sum(row.get("time/eval") or 0 for row in rows)
    tiles.append((str(rows[-1]["step"]), f"steps in {duration(seconds)}"))
    if busy := _utilisation(rows):
        tiles.append((busy, "of a step's time in each phase"))
    gaps = [row["mismatch/logprob_gap/max"] for row in rows if row.get("mismatch/logprob_gap/max") is not None]
    if gaps:
        tiles.append((f"{max(gaps):.1e}", "largest log-prob gap"))
    return "".join(
        f'<div class="tile"><b>{html.escape(text)}</b><span>{html.escape(words)}</span></div>' for text, words in tiles
    )


def _utilisation(rows: Rows) -> str:
    """How the time of the steps is divided: a role waits while another's phase lasts. Example: `rollout 52% · train 40%`."""
    whole = sum(row.get("time/step") or 0 for row in rows)
    phases = {m[1]: sum(row.get(m[0]) or 0 for row in rows) for m in matching(rows, "time/((?!step|eval).+)")}
    shares = {name: seconds / whole for name, seconds in phases.items()} if whole else {}
    return " · ".join(
        f"{name} {share:.0%}" for name, share in sorted(shares.items(), key=lambda i: -i[1]) if share > 0.01
    )


def _curves(rows: Rows, patterns: Sequence[str]) -> list[Curve]:
    names = dict.fromkeys(match[0] for pattern in patterns for match in matching(rows, pattern))
    return [_curve(rows, name) for name in names]


def _curve(rows: Rows, name: str, *, label: str | None = None, errors: str | None = None) -> Curve:
    points = [row for row in rows if row.get(name) is not None]
    half_widths = [row.get(errors) or 0.0 for row in points] if errors else None
    return Curve(
        name=label or name, x=[row["step"] for row in points], y=[row[name] for row in points], errors=half_widths
    )


def _eval_chart(rows: Rows) -> str:
    sets = eval_sets(rows)
    curves = [_curve(rows, f"eval/{s}/accuracy", label=s, errors=f"eval/{s}/stderr") for s in sets]
    return line_chart("Held-out accuracy (± standard error)", curves)


def _source_chart(rows: Rows, title: str, pattern: str) -> str:
    """One curve per source of a mixture."""
    return line_chart(title, [_curve(rows, match[0], label=match[1]) for match in matching(rows, pattern)])


def _time_chart(rows: Rows) -> str:
    timed = [row for row in rows if "time/step" in row]
    phases = matching(timed, "time/((?!step|eval).+)")
    x = [row["step"] for row in timed]
    curves = [Curve(name=phase[1], x=x, y=[row.get(phase[0]) or 0.0 for row in timed]) for phase in phases]
    return stacked_chart("Seconds per step, by phase", curves)


def _samples(shown: Mapping[str, Sequence[Mapping[str, Any]]]) -> str:
    columns: list[str] = []
    for name, lines in shown.items():
        firsts = {line["problem"]: line for line in reversed(lines)}
        chosen = [firsts[problem] for problem in dict.fromkeys(line["problem"] for line in lines)][:SAMPLES]
        columns.append(f"<div><h3>{html.escape(name)}</h3>{''.join(map(completion_card, chosen))}</div>")
    return f'<h2>Completions</h2><div class="samples">{"".join(columns)}</div>'


def _events(run: RunDir) -> str:
    events = read_jsonl(run.events)
    unusual = sum(event["kind"] not in ROUTINE_EVENTS for event in events)
    rows = [
        (f"{time.strftime('%m-%d %H:%M:%S', time.localtime(e.pop('time')))} {e.pop('kind')}", json.dumps(e))
        for e in events[-50:]
    ]
    title = f"Events ({unusual} to look at)" if unusual else "Events"
    return _details(title, _table(rows), opened=bool(unusual)) if events else ""


def _details(title: str, inner: str, *, opened: bool = False) -> str:
    return f"<details{' open' if opened else ''}><summary>{html.escape(title)}</summary>{inner}</details>"


def _table(rows: Iterable[tuple[str, Any]]) -> str:
    cells = "".join(f"<tr><td>{html.escape(str(k))}</td><td>{html.escape(str(v))}</td></tr>" for k, v in rows)
    return f"<table>{cells}</table>"


def _position(stage: str, config: str) -> int:
    """Sorts stages in the order of the configuration."""
    found = re.search(rf"^  {re.escape(stage)}:", config[config.find("\nstages:") :], re.MULTILINE)
    return found.start() if found else len(config)


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit("usage: python -m r1ray.run.report RUN_DIR")
    print(write_report(RunDir(Path(sys.argv[1]))))

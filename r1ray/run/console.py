"""Console output of a stage: a small live table on a terminal, otherwise one line per step (job logs, pipes)."""

import time
from collections.abc import Mapping

from rich.console import Console, Group
from rich.live import Live
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

SHOWN = {
    "solve_rate": "solve rate",
    "reward/mean": "reward",
    "response_length/mean": "length",
    "truncated/fraction": "truncated",
    "kl_ref": "KL",
    "entropy": "entropy",
    "grad_norm": "grad norm",
    "mismatch/logprob_gap/max": "logprob_gap",
    "time/step": "seconds",
}
"""{metric: short name}, in the order shown; the terms of the loss follow."""

NEGLIGIBLE = 1e-6
"""A term of the loss below this is shown as 0. With one update a step the policy's is a sum that cancels, up to its rounding."""


class StepConsole:
    """Example of a line: `rl 12/150  solve rate 0.312  reward 0.344  length 61.2  ...  1.9 s  left 4:22`."""

    def __init__(self, *, stage: str, first_step: int, last_step: int, console: Console | None = None) -> None:
        self.stage, self.last_step = stage, last_step
        self.console = console or Console()
        self.first: dict[str, float] = {}
        self.latest: dict[str, float] = {}
        self.started, self.done_before = time.monotonic(), max(0, first_step - 1)
        self.live = self._live() if self.console.is_terminal else None

    def step(self, step: int, metrics: Mapping[str, float]) -> None:
        for name, value in metrics.items():
            self.first.setdefault(name, value)
        self.latest |= metrics
        if self.live is not None:
            self.progress.update(self.task, completed=step)
            self.live.update(Group(self._table(), self.progress))
        elif shown := _shown(metrics):
            self.console.print(self._line(step, shown), highlight=False, soft_wrap=True)
        for line in _evaluations(step, metrics):  # of the model after the step
            self.console.print(line, highlight=False, soft_wrap=True)

    def close(self) -> None:
        if self.live is not None:
            self.live.stop()

    def _live(self) -> Live:
        columns = (
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeRemainingColumn(elapsed_when_finished=True),
        )
        self.progress = Progress(*columns, console=self.console)
        self.task = self.progress.add_task(self.stage, total=self.last_step, completed=self.done_before)
        live = Live(self.progress, console=self.console, refresh_per_second=4)
        live.start()
        return live

    def _table(self) -> Table:
        table = Table("", "now", "at the start", box=None, pad_edge=False)
        first = _shown(self.first)
        for short, value in _shown(self.latest).items():
            table.add_row(short, number(value), f"[dim]{number(first[short])}")
        return table

    def _line(self, step: int, shown: Mapping[str, float]) -> str:
        parts = [
            f"{self.stage} {step}/{self.last_step}",
            *(f"{short} {number(value)}" for short, value in shown.items()),
        ]
        done = step - self.done_before
        left = (time.monotonic() - self.started) / done * (self.last_step - step) if done > 0 else 0
        return "  ".join([*parts, f"left {duration(left)}"])


def _shown(metrics: Mapping[str, float]) -> dict[str, float]:
    losses = {name: name.replace("/", " ") for name in metrics if name.startswith("loss/")}
    shown = {short: metrics[name] for name, short in (SHOWN | losses).items() if name in metrics}
    return shown | {short: 0.0 for short in losses.values() if abs(shown[short]) < NEGLIGIBLE}


def _evaluations(step: int, metrics: Mapping[str, float]) -> list[str]:
    """One line per set: `step 25  eval countdown: accuracy 0.412 ± 0.018  pass@4 0.710`."""
    sets: dict[str, dict[str, float]] = {}
    for name, value in metrics.items():
        if name.startswith("eval/"):
            set_name, _, key = name.removeprefix("eval/").rpartition("/")
            sets.setdefault(set_name, {})[key] = value
    lines: list[str] = []
    for set_name, values in sets.items():
        error = f" ± {number(values['stderr'])}" if "stderr" in values else ""
        shown = [f"accuracy {number(values['accuracy'])}{error}"] if "accuracy" in values else []
        hidden = {"accuracy", "stderr", "problems", *(key for key in ("left_out", "unusable") if not values.get(key))}
        shown += [f"{key} {number(value)}" for key, value in values.items() if key not in hidden]
        lines.append(f"step {step}  eval {set_name}: {'  '.join(shown)}")
    return lines


def number(value: float) -> str:
    """A number with three or four digits: 0.312, 6.12, 61.2, 1200, 1.5e-05."""
    size = abs(value)
    if size == 0 or not 1e-3 <= size < 1e5:
        return "0" if size == 0 else f"{value:.1e}"
    decimals = 3 if size < 1 else 2 if size < 10 else 1 if size < 1000 else 0
    return f"{value:.{decimals}f}"


def duration(seconds: float) -> str:
    """75 -> "1:15", 4000 -> "1:06:40"."""
    minutes, secs = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{secs:02d}" if hours else f"{minutes}:{secs:02d}"

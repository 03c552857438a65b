"""Where the metrics of a step go besides the console: metrics.jsonl always, Weights & Biases and TensorBoard by option.

A logger that fails never ends the run: its first error is printed, later ones are not.
"""

import json
import math
import os
import re
import secrets
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from r1ray.config import LogConfig
from r1ray.run.files import append, make_folder, read_jsonl, write_atomically

Metrics = Mapping[str, float]
Rows = Sequence[Mapping[str, Any]]
"""Rows of a metrics.jsonl: `{"step": 3, "reward/mean": 0.4, ...}`."""


class Logger(Protocol):
    def step(self, step: int, metrics: Metrics) -> None: ...

    def close(self) -> None: ...


@runtime_checkable
class SampleLogger(Protocol):
    """A logger that also shows completions."""

    def samples(self, name: str, step: int, lines: Sequence[Mapping[str, Any]]) -> None:
        """`lines` as in a rollouts file, their texts shortened; `name` is `rollouts` or `eval/<set>`."""
        ...


SAMPLES = 4
"""Problems of which a completion is shown."""
COLUMNS = ("prompt", "completion", "reward", "correct", "length", "finish_reason")


class JsonlLogger:
    """One object per step, each step once: rows that an earlier attempt wrote from `first_step` on are removed.

    Rows that a full disk refuses are kept and written with a later step.
    """

    def __init__(self, path: Path, *, first_step: int) -> None:
        self.path = path
        self.waiting: list[str] = []
        make_folder(path.parent)
        rows = [row for row in read_metrics(path) if row["step"] < first_step]
        write_atomically(path, "".join(json.dumps(row) + "\n" for row in rows))

    def step(self, step: int, metrics: Metrics) -> None:
        # JSON has no nan: a value that is not finite becomes null.
        values = {name: value if math.isfinite(value) else None for name, value in metrics.items()}
        self.waiting.append(json.dumps({"step": step, **values}) + "\n")
        append(self.path, "".join(self.waiting))
        self.waiting.clear()

    def close(self) -> None:
        pass


class WandbLogger:
    """One wandb run per stage, continued after a resume; offline without a key."""

    def __init__(self, cfg: LogConfig, *, folder: Path, name: str, config: Mapping[str, Any]) -> None:
        import wandb

        mode = cfg.wandb
        if mode == "auto":
            mode = "online" if os.environ.get("WANDB_API_KEY") else "offline"
        id_file = folder / "wandb.id"
        if not id_file.exists() or not id_file.read_text():
            write_atomically(id_file, secrets.token_hex(4))
        self.run = wandb.init(
            project=cfg.wandb_project,
            name=name,
            id=id_file.read_text(),
            resume="allow",
            mode=mode,
            dir=str(folder),
            config=dict(config),
            settings=wandb.Settings(silent=True, console="off"),
        )
        # The step counter of wandb only grows: steps that are repeated after a return to a checkpoint would be dropped.
        self.run.define_metric("*", step_metric="step")

    def step(self, step: int, metrics: Metrics) -> None:
        self.run.log({**metrics, "step": step})

    def samples(self, name: str, step: int, lines: Sequence[Mapping[str, Any]]) -> None:
        import wandb

        columns: list[int | str] = ["step", *COLUMNS]
        table = wandb.Table(columns=columns, data=[[step, *(line[name] for name in COLUMNS)] for line in lines])
        self.run.log({f"samples/{name}": table, "step": step})

    def close(self) -> None:
        self.run.finish()


class TensorboardLogger:
    def __init__(self, folder: Path, *, first_step: int) -> None:
        from torch.utils.tensorboard import SummaryWriter

        self.writer: Any = SummaryWriter(str(folder), purge_step=first_step)

    def step(self, step: int, metrics: Metrics) -> None:
        for name, value in metrics.items():
            self.writer.add_scalar(name, value, step)
        self.writer.flush()

    def samples(self, name: str, step: int, lines: Sequence[Mapping[str, Any]]) -> None:
        for number, line in enumerate(lines):
            facts = ", ".join(f"{key} {line[key]}" for key in COLUMNS[2:])
            # TensorBoard shows Markdown: indented text is shown as it is.
            text = "\n".join(f"    {part}" for part in f"{line['prompt']}\n{line['completion']}".split("\n"))
            self.writer.add_text(f"samples/{name}/{number}", f"{facts}\n\n{text}", step)

    def close(self) -> None:
        self.writer.close()


class Guard:
    """Calls a function whose errors must not end the run; the first error is printed.

    Example: `Guard("wandb")(logger.step, 3, metrics)` returns what the call returns, or None if it failed.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        self.failed = False

    def __call__(self, act: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        try:
            return act(*args, **kwargs)
        except Exception as error:
            if not self.failed:
                print(
                    f"r1ray: {self.name} failed ({type(error).__name__}: {error}); the run continues", file=sys.stderr
                )
            self.failed = True
            return None


def read_metrics(path: Path) -> list[dict[str, Any]]:
    """The rows of a metrics.jsonl, one per step, by step."""
    rows = {row["step"]: row for row in read_jsonl(path) if "step" in row}
    return [rows[step] for step in sorted(rows)]


def matching(rows: Rows, pattern: str) -> list[re.Match[str]]:
    """The matches of a pattern with the whole names of metrics, each name once, in the order of the rows."""
    names = dict.fromkeys(name for row in rows for name in row)
    return [match for name in names if (match := re.fullmatch(pattern, name))]

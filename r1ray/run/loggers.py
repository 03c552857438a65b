"""Where a step's numbers go besides the console: metrics.jsonl always, Weights & Biases, TensorBoard by option.

A run never ends because its numbers could not be written: the first failure of a logger is said once, then it is quiet.
"""

import json
import math
import os
import secrets
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Protocol

from r1ray.config import LogConfig
from r1ray.run.directory import write_atomically

Metrics = Mapping[str, float]


class Logger(Protocol):
    def step(self, step: int, metrics: Metrics) -> None: ...

    def close(self) -> None: ...


class JsonlLogger:
    """One object a step, each step once: what an earlier attempt wrote from `first_step` on is cut off.

    Lines that a full disk refuses are kept and written with a later step.
    """

    def __init__(self, path: Path, *, first_step: int) -> None:
        self.path = path
        self.waiting: list[str] = []
        path.parent.mkdir(parents=True, exist_ok=True)
        rows = [row for row in read_metrics(path) if row["step"] < first_step]
        write_atomically(path, "".join(json.dumps(row) + "\n" for row in rows))

    def step(self, step: int, metrics: Metrics) -> None:
        # JSON knows no nan: a value that is not finite is null.
        values = {name: _finite(value) for name, value in metrics.items()}
        self.waiting.append(json.dumps({"step": step, **values}) + "\n")
        size = self.path.stat().st_size
        try:
            with self.path.open("a") as file:
                file.write("".join(self.waiting))
        except OSError:
            os.truncate(self.path, size)
            raise
        self.waiting.clear()

    def close(self) -> None:
        pass


class WandbLogger:
    """One wandb run per stage, the same one after a resume; offline without a key."""

    def __init__(self, cfg: LogConfig, *, folder: Path, name: str, config: Mapping[str, Any]) -> None:
        import wandb

        mode = cfg.wandb
        if mode == "auto":
            mode = "online" if os.environ.get("WANDB_API_KEY") else "offline"
        id_file = folder / "wandb.id"
        if not id_file.exists():
            id_file.write_text(secrets.token_hex(4))
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
        # wandb's own counter takes no step twice: what a run makes again after going back would be dropped.
        self.run.define_metric("*", step_metric="step")

    def step(self, step: int, metrics: Metrics) -> None:
        self.run.log({**metrics, "step": step})

    def close(self) -> None:
        self.run.finish()


class TensorboardLogger:
    def __init__(self, folder: Path, *, first_step: int) -> None:
        from torch.utils.tensorboard import SummaryWriter

        self.writer = SummaryWriter(str(folder), purge_step=first_step)

    def step(self, step: int, metrics: Metrics) -> None:
        for name, value in metrics.items():
            self.writer.add_scalar(name, value, step)
        self.writer.flush()

    def close(self) -> None:
        self.writer.close()


class Guard:
    """Calls what may fail without ending the run; the first failure is said once.

    Example: `Guard("wandb")(logger.step, 3, metrics)` returns what the call returns, or None when it failed.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        self.said = False

    def __call__(self, act: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        try:
            return act(*args, **kwargs)
        except Exception as error:
            if not self.said:
                print(f"r1ray: {self.name} failed, the run goes on ({type(error).__name__}: {error})", file=sys.stderr)
            self.said = True
            return None


def read_metrics(path: Path) -> list[dict[str, Any]]:
    """The rows of a metrics.jsonl, by step; a line that a crash cut short is left out."""
    rows: dict[int, dict[str, Any]] = {}
    if path.exists():
        for line in path.read_text().splitlines():
            try:
                row = json.loads(line)
            except ValueError:
                continue
            rows[row["step"]] = row
    return [rows[step] for step in sorted(rows)]


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None

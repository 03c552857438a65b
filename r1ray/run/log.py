"""All output of a stage while it runs, behind four methods, so that the loop stays small."""

import json
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from r1ray.config import Config
from r1ray.data.rollouts import lines_of, rollout_file, rollout_steps
from r1ray.run.alarms import HISTORY, AlarmState, check_step
from r1ray.run.card import visible
from r1ray.run.console import StepConsole, number
from r1ray.run.directory import RunDir
from r1ray.run.files import make_folder, write_atomically
from r1ray.run.levels import LevelState, check_levels
from r1ray.run.loggers import (
    SAMPLES,
    Guard,
    JsonlLogger,
    Logger,
    SampleLogger,
    TensorboardLogger,
    WandbLogger,
    read_metrics,
)
from r1ray.run.report import write_report
from r1ray.types import Group, Ints

MAX_SAMPLE = 2000
"""Characters of a prompt or completion that wandb and TensorBoard show."""


class RunLog:
    """Console, files, curves and report of one stage. Output that fails is reported once and never stops the run.

    Args:
        first_step: the first step that will be logged; output of an earlier attempt from this step on is removed.
        trained: the last step that needs no training any more; its rollouts are kept even if its metrics are logged again.
        last_step: the last step of the stage, for the progress bar.
        decode: prompt ids -> text of the prompt (`tokenizer.decode`).
        memory: the memory that workers use (`r1ray.actors.watchdog.Watchdog.memory`), logged with every step.
    """

    def __init__(
        self,
        run: RunDir,
        *,
        stage: str,
        cfg: Config,
        first_step: int,
        last_step: int,
        trained: int = 0,
        decode: Callable[[Ints], str],
        memory: Callable[[], Mapping[str, float]] = dict,
    ) -> None:
        self.run, self.cfg, self.decode, self.memory, self.last_step = run, cfg, decode, memory, last_step
        self.folder = run.stage(stage)
        for step, path in rollout_steps(self.folder.rollouts).items():
            if step >= first_step and step > trained:
                path.unlink()
        self.alarms, self.levels = AlarmState(), LevelState()
        rows = [row for row in read_metrics(self.folder.metrics) if row["step"] < first_step]
        self._report_lost({*range(1, first_step)} - {row["step"] for row in rows})
        for row in rows[-HISTORY:]:
            # These alarms have already been logged.
            self.alarms, _ = check_step(self.alarms, row)
            self.levels, _ = check_levels(self.levels, row)
        self.write_report, self.write_rollouts = Guard("report.html"), Guard("writing rollouts")
        makers: dict[str, Callable[[], Logger]] = {
            "metrics.jsonl": lambda: JsonlLogger(self.folder.metrics, first_step=first_step),
            "the console": lambda: StepConsole(stage=stage, first_step=first_step, last_step=last_step),
        }
        if cfg.log.wandb != "disabled":
            config = cfg.model_dump(mode="json")
            makers["wandb"] = lambda: WandbLogger(
                cfg.log, folder=self.folder.path, name=f"{cfg.name}/{stage}", config=config
            )
        if cfg.log.tensorboard:
            makers["TensorBoard"] = lambda: TensorboardLogger(self.folder.path / "tensorboard", first_step=first_step)
        guards = {name: Guard(name) for name in makers}
        self.loggers: list[tuple[Guard, Logger]] = [
            (guard, logger) for name, guard in guards.items() if (logger := guard(makers[name])) is not None
        ]

    def _report_lost(self, steps: Collection[int]) -> None:
        if steps:
            self.event("metrics_lost", steps=sorted(steps))
            print(
                f"r1ray: {self.folder.metrics} lacks {len(steps)} of the steps {min(steps)} to {max(steps)}, which cannot be "
                "rebuilt; training is not affected"
            )

    def step(self, step: int, metrics: Mapping[str, float]) -> None:
        metrics = {**metrics, **self.memory()}
        for guard, logger in self.loggers:
            guard(logger.step, step, metrics)
        self._alarm(step, metrics)
        every = self.cfg.log.report_every_steps
        if every and step % every == 0:
            self.write_report(write_report, self.run)

    def _alarm(self, step: int, metrics: Mapping[str, float]) -> None:
        self.alarms, alarms = check_step(self.alarms, metrics)
        for alarm in alarms:
            kind = "alarm_over" if alarm.over else "alarm"
            self.event(kind, name=alarm.name, step=step, normal=alarm.normal, now=alarm.now)
            normal, now = number(alarm.normal), number(alarm.now)
            what = f"is back to {now} (normal: {normal})" if alarm.over else f"jumped from {normal} to {now}"
            print(f"r1ray: step {step}: {alarm.name} {what}")
        self.levels, levels = check_levels(self.levels, metrics)
        for level in levels:
            self.event("alarm_over" if level.over else "alarm", name=level.name, step=step, text=level.text)
            print(f"r1ray: step {step}: {level.text}")

    def rollouts(self, step: int, groups: Sequence[Group]) -> None:
        """Write the completions of the first, the last and every N-th step; the report compares the first with the last."""
        every, folder = self.cfg.log.rollouts_every_steps, self.folder.rollouts
        if every and (step % every == 0 or step == self.last_step or not rollout_steps(folder)):
            self.write_rollouts(write_rollouts, folder, groups, step=step, decode=self.decode)
            self._samples("rollouts", step, groups)

    def evaluation(self, name: str, step: int, groups: Sequence[Group]) -> None:
        """Write the completions of an evaluation set; `python -m r1ray.grade` reads the file."""
        self.write_rollouts(write_rollouts, self.folder.evaluation(name), groups, step=step, decode=self.decode)
        self._samples(f"eval/{name}", step, groups)

    def _samples(self, name: str, step: int, groups: Sequence[Group]) -> None:
        """The first completion of a few problems, for the loggers that show them."""
        chosen = [
            replace(group, completions=group.completions[:1], scores=group.scores[:1]) for group in groups[:SAMPLES]
        ]
        for guard, logger in self.loggers:
            if isinstance(logger, SampleLogger):
                guard(logger.samples, name, step, guard(shown_lines, chosen, self.decode) or ())

    def event(self, kind: str, **fields: Any) -> None:
        self.run.event(kind, **fields)

    def close(self) -> None:
        for guard, logger in self.loggers:
            guard(logger.close)
        self.write_report(write_report, self.run)


def shown_lines(groups: Sequence[Group], decode: Callable[[Ints], str]) -> list[dict[str, Any]]:
    """Lines of a rollouts file whose texts are short and have no invisible characters."""
    lines = [json.loads(line) for line in lines_of(groups, decode=decode)]
    return [line | {key: visible(line[key], limit=MAX_SAMPLE) for key in ("prompt", "completion")} for line in lines]


def write_rollouts(folder: Path, groups: Sequence[Group], *, step: int, decode: Callable[[Ints], str]) -> Path:
    make_folder(folder)
    path = rollout_file(folder, step)
    write_atomically(path, "".join(lines_of(groups, decode=decode)))
    return path

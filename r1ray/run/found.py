"""What a run directory holds, read without changing it: for the check, which runs before the directory is opened."""

from pathlib import Path
from typing import Any

from r1ray.run.checkpoint import STATE, steps_in
from r1ray.run.directory import CONFIG, RunDir, mapping_in
from r1ray.run.loggers import read_metrics
from r1ray.run.seal import find_damage


def last_steps(run: RunDir) -> dict[str, int]:
    """{stage: its last step that was logged or saved}; {} when no step was finished: a failed start is nothing to keep."""
    found: dict[str, int] = {}
    for folder in sorted((run.path / "stages").glob("*")):
        stage = run.stage(folder.name)
        steps = [row["step"] for row in read_metrics(stage.metrics)[-1:]]
        steps += [step_of(path) for path in steps_in(stage.checkpoints)]
        if steps:
            found[folder.name] = max(steps)
    return found


def newest_in(folder: Path) -> tuple[Path | None, dict[str, str]]:
    """The newest checkpoint of a stage of which no file is missing or cut, and {name: damage} of the newer ones."""
    skipped: dict[str, str] = {}
    for path in reversed(steps_in(folder)):
        damage = find_damage(path, contents_of=(STATE,))
        if damage is None:
            return path, skipped
        skipped[path.name] = damage
    return None, skipped


def step_of(checkpoint: Path) -> int:
    number = checkpoint.name.removeprefix("step_")
    return int(number) if number.isdigit() else 0


def configuration_of(run: RunDir) -> dict[str, Any] | None:
    """The configuration with which the newest checkpoint was saved, else the last one of the run; None if neither can be read."""
    saved = [path / CONFIG for path in run.path.glob("stages/*/checkpoints/step_*") if (path / CONFIG).exists()]
    for file in [*sorted(saved, key=lambda file: file.stat().st_mtime, reverse=True), run.config]:
        if (found := mapping_in(file)) is not None:
            return found
    return None

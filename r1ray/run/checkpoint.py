"""Checkpoints that are complete or absent: written to a temporary folder, fsynced, sealed by a manifest of hashes, then renamed.

    step_000010/  hf/ (transformers, vllm serve)   trainer/ (DeepSpeed)   state.json   manifest.json        latest -> best ->
                  critic/ and prm/ next to trainer/, if the algorithm has them; each also with hf/ (transformers) after the last
                  step of the stage, and at every step if another stage starts from this one

A crash at any moment leaves the older checkpoints as they were. The loader takes the newest one whose files match its manifest.
"""

import errno
import hashlib
import json
import math
import os
import shutil
from collections.abc import Callable, Generator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from r1ray.roles import section_of

MANIFEST = "manifest.json"
STATE = "state.json"
WRITING = ".writing-"
REMOVING = ".removing-"
"""Prefixes of a checkpoint that is being written or removed. Neither is ever loaded under such a name."""
HASHING_THREADS = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress:
    """What a stage needs besides weights and optimizer to resume exactly where it was. Can be written as JSON.

    Example: `Progress(step=10, updates=160, version=160, stream={"draws": 640, "sources": {...}}, best=0.41)`.
    """

    step: int
    updates: int
    version: int
    """Version of the weights in the engines."""
    reference_updates: int = 0
    stream: Mapping[str, Any] = field(default_factory=dict[str, Any])
    algo: Mapping[str, Any] = field(default_factory=dict[str, Any])
    best: float | None = None
    """The best value of checkpoint.best_metric so far."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Checkpoint:
    path: Path
    progress: Progress

    @property
    def hf(self) -> Path:
        return self.path / "hf"

    def state_of(self, role: str) -> Path:
        """The folder from which the ranks of a trainer resume."""
        return self.path / section_of(role)

    def model_of(self, role: str) -> Path:
        """The folder with the model of a critic or a process reward model, if it was exported."""
        return self.path / role / "hf"


class Checkpoints:
    """The checkpoints of one stage, used by the driver only. The constructor finishes or removes what a crash left behind.

    Args:
        keep: how many of the newest checkpoints are kept; `latest` and `best` always are.
        event: logs what was skipped or recovered (`RunDir.event`).
    """

    def __init__(self, folder: Path, *, keep: int, event: Callable[..., None]) -> None:
        self.folder = folder
        self.keep = keep
        self.event = event
        self.newest_step: int | None = None
        """Step of the newest checkpoint that this process knows to be complete."""
        folder.mkdir(parents=True, exist_ok=True)
        self._recover()

    @contextmanager
    def writing(self, progress: Progress, *, score: float | None = None) -> Generator[Path]:
        """Yields the folder in which the body writes hf/ and trainer/; it becomes the newest checkpoint when the body has ended.

        Args:
            score: checkpoint.best_metric of exactly these weights; None if they were not evaluated.

        Raises:
            OSError: it could not be written (a full disk); the new folder is removed, older checkpoints are untouched.
        """
        final = self.folder / name_of(progress.step)
        temporary = self.folder / f"{WRITING}{final.name}"
        shutil.rmtree(temporary, ignore_errors=True)
        try:
            temporary.mkdir()
            yield temporary
            best = self.best_score
            if score is not None and math.isfinite(score) and (best is None or score > best):
                best = score
            (temporary / STATE).write_text(json.dumps(asdict(progress) | {"best": best}, indent=1))
            seal(temporary)
            self._move_in(temporary, final)
        except OSError as error:
            shutil.rmtree(temporary, ignore_errors=True)
            raise OSError(error.errno or errno.EIO, self._remedy(progress.step, error)) from error
        except BaseException:
            shutil.rmtree(temporary, ignore_errors=True)
            raise
        self.newest_step = progress.step
        self._prune(final)

    def newest_valid(self) -> Checkpoint | None:
        """The newest complete checkpoint; an event names every newer one that is damaged, and the damage."""
        for path in reversed(self._paths()):
            damage = find_damage(path)
            if damage is None:
                found = load(path)
                self.newest_step = found.progress.step
                return found
            self.event("checkpoint_skipped", path=str(path), reason=damage)
        return None

    def kept(self) -> list[Progress]:
        """The progress of every checkpoint that exists, oldest first; unverified, without those that cannot be read."""
        found: list[Progress] = []
        for path in self._paths():
            with suppress(OSError, ValueError, TypeError):
                found.append(load(path).progress)
        return found

    @property
    def best_score(self) -> float | None:
        """The score of the checkpoint that `best` points at."""
        with suppress(OSError, ValueError):
            return load(self.folder / "best").progress.best
        return None

    def _paths(self) -> list[Path]:
        return sorted(self.folder.glob("step_*"))

    def _move_in(self, temporary: Path, final: Path) -> None:
        if final.exists():  # a damaged one, skipped when the run resumed from an older step
            final.rename(self.folder / f"{REMOVING}{final.name}")
        temporary.rename(final)
        self._point("latest", final)
        best = load(final).progress.best
        if best is not None and best != self.best_score:  # a new best value, so it is the score of this checkpoint
            self._point("best", final)
        _sync_folder(self.folder)

    def _point(self, name: str, target: Path) -> None:
        temporary = self.folder / f".{name}"
        temporary.unlink(missing_ok=True)
        temporary.symlink_to(target.name)
        os.replace(temporary, self.folder / name)

    def _recover(self) -> None:
        """After a crash: a checkpoint that was sealed but not yet renamed is complete; other temporary folders are removed."""
        for temporary in self.folder.glob(f"{WRITING}*"):
            final = self.folder / temporary.name.removeprefix(WRITING)
            if find_damage(temporary) is None:
                if final.exists():
                    shutil.rmtree(final)
                self._move_in(temporary, final)
                self.event("checkpoint_recovered", path=str(final))
        for leftover in [*self.folder.glob(f"{WRITING}*"), *self.folder.glob(f"{REMOVING}*")]:
            shutil.rmtree(leftover)

    def _prune(self, newest: Path) -> None:
        """Keep the newest ones and the one that `best` points at. Any that is newer than the one just written was skipped as
        damaged when the run resumed from an older step, so it is removed too."""
        best = (self.folder / "best").resolve()
        abandoned = [path for path in self._paths() if path.name > newest.name]
        older = [path for path in self._paths()[: -self.keep - len(abandoned)] if path.resolve() != best]
        for path in abandoned + older:
            # Renamed first: a crash while deleting must not leave a part of a checkpoint under its name.
            path.rename(self.folder / f"{REMOVING}{path.name}")
        for leftover in self.folder.glob(f"{REMOVING}*"):
            shutil.rmtree(leftover)

    def _remedy(self, step: int, error: OSError) -> str:
        older = [path.name for path in self._paths()]
        free = shutil.disk_usage(self.folder).free / 2**30
        kept = f"{older[-1]} is untouched" if older else "there is no older checkpoint"
        return (
            f"the checkpoint of step {step} could not be written to {self.folder}: {error.strerror or error} "
            f"({free:.1f} GiB free; {kept}). Make room, or choose another run_dir, a smaller checkpoint.keep or a larger "
            "checkpoint.every_steps; resume=auto continues from the last complete checkpoint"
        )


def name_of(step: int) -> str:
    return f"step_{step:06d}"


def load(path: Path) -> Checkpoint:
    """The checkpoint at `path` (a `latest` or `best` link is followed); unverified."""
    path = path.resolve()
    return Checkpoint(path=path, progress=Progress(**json.loads((path / STATE).read_text())))


def seal(folder: Path) -> None:
    """Write the manifest of all files below `folder`, after all of them are on the disk."""
    files = _files(folder)
    with ThreadPoolExecutor(HASHING_THREADS) as pool:
        entries = dict(
            zip([str(path.relative_to(folder)) for path in files], pool.map(_sync_and_hash, files), strict=True)
        )
    for inner in sorted({path.parent for path in files}):
        _sync_folder(inner)
    manifest = folder / MANIFEST
    manifest.write_text(json.dumps({"files": entries}, indent=1))
    _sync_file(manifest)
    _sync_folder(folder)


def find_damage(path: Path) -> str | None:
    """Why this checkpoint must not be loaded; None if every file is as its manifest says."""
    try:
        entries = json.loads((path / MANIFEST).read_text())["files"]
    except (OSError, ValueError, KeyError) as error:
        return f"{MANIFEST} is missing or unreadable ({error})"
    for name, entry in entries.items():
        file = path / name
        if not file.is_file():
            return f"{name} is missing"
        if file.stat().st_size != entry["bytes"]:
            return f"{name} has {file.stat().st_size} bytes instead of {entry['bytes']}"
    with ThreadPoolExecutor(HASHING_THREADS) as pool:
        hashes = pool.map(_hash, [path / name for name in entries])
        damaged = [name for name, found in zip(entries, hashes, strict=True) if found != entries[name]["sha256"]]
    return f"{', '.join(damaged)}: the content differs from what was written" if damaged else None


def _files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.is_file() and path != folder / MANIFEST)


def _sync_and_hash(path: Path) -> dict[str, Any]:
    _sync_file(path)
    return {"sha256": _hash(path), "bytes": path.stat().st_size}


def _hash(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _sync_file(path: Path) -> None:
    with path.open("rb") as file:
        os.fsync(file.fileno())


def _sync_folder(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)

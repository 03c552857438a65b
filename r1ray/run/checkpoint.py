"""Checkpoints that are whole or not there: written aside, fsynced, sealed by a manifest of hashes, then renamed.

    step_000010/  hf/ (transformers, vllm serve)   trainer/ (DeepSpeed)   state.json   manifest.json        latest -> best ->
                  critic/ and prm/ beside trainer/, where an algorithm has them; each with hf/ (transformers) after the stage's
                  last step, and always in a stage that another comes after

A crash at any moment leaves the older checkpoints as they were. The loader takes the newest one whose files match its manifest.
"""

import errno
import hashlib
import json
import math
import os
import shutil
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from r1ray.roles import section_of

MANIFEST = "manifest.json"
STATE = "state.json"
ASIDE = ".writing-"
"""Prefix of a checkpoint being written; of one being removed: `.removing-`. Neither is ever loaded as it stands."""
REMOVING = ".removing-"
HASHING_THREADS = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress:
    """What a stage needs besides weights and optimizer to go on exactly where it stood. JSON-able throughout.

    Example: `Progress(step=10, updates=160, version=160, stream={"draws": 640, "sources": {...}}, best=0.41)`.
    """

    step: int
    updates: int
    version: int
    """Weights that the engines served."""
    reference_updates: int = 0
    stream: Mapping[str, Any] = field(default_factory=dict)
    algo: Mapping[str, Any] = field(default_factory=dict)
    best: float | None = None
    """The best value of checkpoint.best_metric up to here."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Checkpoint:
    path: Path
    progress: Progress

    @property
    def hf(self) -> Path:
        return self.path / "hf"

    def state_of(self, role: str) -> Path:
        """What a trainer's ranks go on from."""
        return self.path / section_of(role)

    def model_of(self, role: str) -> Path:
        """Where the model of a critic or a process reward model is, if it was exported."""
        return self.path / role / "hf"


class Checkpoints:
    """The checkpoints of one stage. Only the driver makes one; it first finishes or clears what a crash left behind.

    Args:
        keep: newest checkpoints kept; `latest` and `best` are kept besides.
        event: told what was skipped or removed and why (`RunDir.event`).
    """

    def __init__(self, folder: Path, *, keep: int, event: Callable[..., None]) -> None:
        self.folder = folder
        self.keep = keep
        self.event = event
        self.newest_step: int | None = None
        """Of the newest checkpoint that this process knows to be whole."""
        folder.mkdir(parents=True, exist_ok=True)
        self._recover()

    @contextmanager
    def writing(self, progress: Progress, *, score: float | None = None) -> Iterator[Path]:
        """The folder in which the body writes hf/ and trainer/; on leaving it becomes the newest checkpoint, whole.

        Args:
            score: checkpoint.best_metric of exactly these weights; None when they were not evaluated.

        Raises:
            OSError: it could not be written (a full disk); what was written is removed, older checkpoints are untouched.
        """
        final = self.folder / name_of(progress.step)
        aside = self.folder / f"{ASIDE}{final.name}"
        shutil.rmtree(aside, ignore_errors=True)
        try:
            aside.mkdir()
            yield aside
            best = self.best_score
            if score is not None and math.isfinite(score) and (best is None or score > best):
                best = score
            (aside / STATE).write_text(json.dumps(asdict(progress) | {"best": best}, indent=1))
            seal(aside)
            self._move_in(aside, final)
        except OSError as error:
            shutil.rmtree(aside, ignore_errors=True)
            raise OSError(error.errno or errno.EIO, self._remedy(progress.step, error)) from error
        except BaseException:
            shutil.rmtree(aside, ignore_errors=True)
            raise
        self.newest_step = progress.step
        self._prune(final)

    def newest_valid(self) -> Checkpoint | None:
        """The newest checkpoint that is whole; an event names each newer one that is not, and why."""
        for path in reversed(self._paths()):
            damage = find_damage(path)
            if damage is None:
                found = load(path)
                self.newest_step = found.progress.step
                return found
            self.event("checkpoint_skipped", path=str(path), reason=damage)
        return None

    def kept(self) -> list[Progress]:
        """Of every checkpoint that is still there, oldest first; unverified, and without those that cannot be read."""
        found = []
        for path in self._paths():
            with suppress(OSError, ValueError, TypeError):
                found.append(load(path).progress)
        return found

    @property
    def best_score(self) -> float | None:
        """Of the checkpoint that `best` points at."""
        with suppress(OSError, ValueError):
            return load(self.folder / "best").progress.best
        return None

    def _paths(self) -> list[Path]:
        return sorted(self.folder.glob("step_*"))

    def _move_in(self, aside: Path, final: Path) -> None:
        if final.exists():  # a damaged one, skipped when the run went on from an older step
            final.rename(self.folder / f"{REMOVING}{final.name}")
        aside.rename(final)
        self._point("latest", final)
        best = load(final).progress.best
        if best is not None and best != self.best_score:  # a best value that `best` does not have yet is this one's own
            self._point("best", final)
        _sync_folder(self.folder)

    def _point(self, name: str, target: Path) -> None:
        aside = self.folder / f".{name}"
        aside.unlink(missing_ok=True)
        aside.symlink_to(target.name)
        os.replace(aside, self.folder / name)

    def _recover(self) -> None:
        """After a crash: a checkpoint that was sealed but not yet renamed is complete; everything else aside is not."""
        for aside in self.folder.glob(f"{ASIDE}*"):
            final = self.folder / aside.name.removeprefix(ASIDE)
            if find_damage(aside) is None:
                if final.exists():
                    shutil.rmtree(final)
                self._move_in(aside, final)
                self.event("checkpoint_recovered", path=str(final))
        for leftover in [*self.folder.glob(f"{ASIDE}*"), *self.folder.glob(f"{REMOVING}*")]:
            shutil.rmtree(leftover)

    def _prune(self, newest: Path) -> None:
        """Keep the newest ones and what `best` points at. What is newer than the one just written was skipped as damaged when
        the run went on from an older step: the future of a branch that was given up."""
        best = (self.folder / "best").resolve()
        given_up = [path for path in self._paths() if path.name > newest.name]
        older = [path for path in self._paths()[: -self.keep - len(given_up)] if path.resolve() != best]
        for path in given_up + older:
            # Renamed first: a crash while deleting must not leave half a checkpoint under its name.
            path.rename(self.folder / f"{REMOVING}{path.name}")
        for leftover in self.folder.glob(f"{REMOVING}*"):
            shutil.rmtree(leftover)

    def _remedy(self, step: int, error: OSError) -> str:
        older = [path.name for path in self._paths()]
        free = shutil.disk_usage(self.folder).free / 2**30
        kept = f"{older[-1]} is untouched" if older else "there is no older one"
        return (
            f"the checkpoint of step {step} could not be written to {self.folder}: {error.strerror or error} "
            f"({free:.1f} GiB free; {kept}). Make room, or choose another run_dir, a smaller checkpoint.keep or a larger "
            "checkpoint.every_steps; resume=auto goes on from the last whole checkpoint"
        )


def name_of(step: int) -> str:
    return f"step_{step:06d}"


def load(path: Path) -> Checkpoint:
    """The checkpoint at `path` (a `latest` or `best` link is followed); the caller has verified it."""
    path = path.resolve()
    return Checkpoint(path=path, progress=Progress(**json.loads((path / STATE).read_text())))


def seal(folder: Path) -> None:
    """Write the manifest of all files below `folder`, after everything it vouches for is on the disk."""
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
    """Why this checkpoint must not be loaded, in words; None when every file is as the manifest says."""
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
    return f"{', '.join(damaged)}: the content is not what was written" if damaged else None


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

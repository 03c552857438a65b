"""Checkpoints that are complete or absent: written to a temporary folder, fsynced, sealed by a manifest of hashes, then renamed.

    step_000010/  hf/ (transformers, vllm serve)   trainer/ (DeepSpeed)   state.json   manifest.json        latest -> best ->
                  critic/ and prm/ next to trainer/, if the algorithm has them; both also export hf/ (transformers): in the
                  stage's last checkpoint, or in every checkpoint if another stage starts from this one

A crash at any moment leaves the older checkpoints as they were. The loader takes the newest one whose files match its manifest.
`latest` and `best` are for readers of the folder: they follow from the steps and scores in the checkpoints, and every start derives
them again.
"""

import json
import math
import os
import shutil
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from r1ray.roles import section_of
from r1ray.run.files import make_folder, sync_folder
from r1ray.run.full_disk import naming_full_disk
from r1ray.run.seal import WRITING, find_damage, seal

STATE = "state.json"
REMOVING = ".removing-"
"""Prefix of a checkpoint that is being removed. It is never loaded under such a name."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress:
    """What a stage needs besides weights and optimizer to resume exactly where it was. Can be written as JSON.

    Example: `Progress(step=10, updates=160, version=160, stream={"draws": 640, "sources": {...}}, score=0.41)`.
    """

    step: int
    updates: int
    version: int
    """Version of the weights in the engines."""
    reference_updates: int = 0
    stream: Mapping[str, Any] = field(default_factory=dict[str, Any])
    algo: Mapping[str, Any] = field(default_factory=dict[str, Any])
    unevaluated: Mapping[str, float] = field(default_factory=dict[str, float])
    """The metrics of this step if it is trained and its evaluation was cut short; {} otherwise."""
    score: float | None = None
    """The value of checkpoint.best_metric for exactly these weights; None if they were not evaluated."""


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
        keep: how many of the newest whole checkpoints are kept; `latest` and `best` always are.
        event: logs what was skipped, recovered or removed as damaged (`RunDir.event`).
        needs_damage: the damage of what a checkpoint needs besides its own files (`StageContext.reference_damage`).
    """

    def __init__(
        self,
        folder: Path,
        *,
        keep: int,
        event: Callable[..., None],
        needs_damage: Callable[[Progress], str | None] = lambda progress: None,  # noqa: ARG005
    ) -> None:
        self.folder = folder
        self.keep = keep
        self.event = event
        self.needs_damage = needs_damage
        self.newest: Progress | None = None
        """Of the newest checkpoint that this process knows to be complete."""
        self._whole: set[str] = set()
        """Names of the checkpoints that this process has written or read."""
        self._damaged: dict[str, str] = {}
        """{name: damage}."""
        make_folder(folder)
        self._recover()
        self._link()
        self._prune()

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
        older = [path.name for path in self._paths()]
        kept = f"{older[-1]} is untouched" if older else "there is no older checkpoint"
        try:
            with naming_full_disk(self.folder, what=f"the checkpoint of step {progress.step}", kept=kept):
                temporary.mkdir()
                yield temporary
                progress = replace(progress, score=score if score is not None and math.isfinite(score) else None)
                (temporary / STATE).write_text(json.dumps(asdict(progress), indent=1))
                seal(temporary)
                self._move_in(temporary, final)
        except BaseException:
            shutil.rmtree(temporary, ignore_errors=True)
            raise
        self.newest = progress
        self._link()
        self._prune(written=final)

    def newest_valid(self) -> Checkpoint | None:
        """The newest complete checkpoint; every newer one is named with its damage. None if there is no checkpoint.

        Raises ValueError if all are damaged: the stage must not start over next to files that may still be put back.
        """
        self._whole.clear()
        for path in reversed(self._paths()):
            if self._is_whole(path):
                found = load(path)
                self.newest = found.progress
                self._link()
                return found
        self._raise_if_damaged()
        return None

    def final(self) -> Checkpoint | None:
        """The whole checkpoint with the best score, else the newest whole one; None if there is none. Raises as `newest_valid`."""
        while known := self._undamaged():
            chosen = best_of(known) or known[-1]
            if self._is_whole(chosen.path):
                self._link()
                return chosen
        self._raise_if_damaged()
        return None

    def kept(self) -> list[Progress]:
        """The progress of every checkpoint that exists, oldest first; unverified, without those that cannot be read."""
        found: list[Progress] = []
        for path in self._paths():
            with suppress(OSError, ValueError, TypeError):
                found.append(load(path).progress)
        return found

    def _paths(self) -> list[Path]:
        return steps_in(self.folder)

    def _is_whole(self, path: Path) -> bool:
        """Whether every file is as it was written. Reads all of them, once."""
        if path.name not in self._whole and path.name not in self._damaged:
            self._note(path, find_damage(path) or self.needs_damage(load(path).progress))
            if path.name not in self._damaged:
                self._whole.add(path.name)
        return path.name not in self._damaged

    def _undamaged(self) -> list[Checkpoint]:
        """The checkpoints of which no damage is known and no file is missing or cut, oldest first."""
        for path in self._paths():
            if path.name not in self._whole and path.name not in self._damaged:
                self._note(path, find_damage(path, contents_of=(STATE,)))
        return [load(path) for path in self._paths() if path.name not in self._damaged]

    def _note(self, path: Path, damage: str | None) -> None:
        if damage is not None:
            self._damaged[path.name] = damage
            self.event("checkpoint_skipped", path=str(path), reason=damage)
            print(f"r1ray: the checkpoint {path} is skipped: {damage}")

    def _raise_if_damaged(self) -> None:
        if self._damaged:
            listed = "; ".join(f"{name}: {damage}" for name, damage in sorted(self._damaged.items(), reverse=True))
            raise ValueError(
                f"every checkpoint in {self.folder} is damaged ({listed}): put back the files of one of them, or choose "
                "name=ANOTHER for a new run"
            )

    def _move_in(self, temporary: Path, final: Path) -> None:
        if final.exists():  # a damaged one, skipped when the run resumed from an older step
            final.rename(self.folder / f"{REMOVING}{final.name}")
        temporary.rename(final)
        sync_folder(self.folder)
        self._damaged.pop(final.name, None)
        self._whole.add(final.name)

    def _link(self) -> None:
        """Point `latest` and `best` at what they mean; a name that means nothing is removed."""
        known = self._undamaged()
        with naming_full_disk(self.folder, what="latest or best", kept="the checkpoints are whole"):
            for name, target in (("latest", known[-1] if known else None), ("best", best_of(known))):
                link = self.folder / name
                if target is None:
                    link.unlink(missing_ok=True)
                elif not link.is_symlink() or os.readlink(link) != target.path.name:
                    temporary = self.folder / f".{name}"
                    temporary.unlink(missing_ok=True)
                    temporary.symlink_to(target.path.name)
                    os.replace(temporary, link)
            sync_folder(self.folder)

    def _recover(self) -> None:
        """After a crash: a checkpoint that was sealed but not yet renamed is complete; other temporary folders are removed."""
        for temporary in self.folder.glob(f"{WRITING}*"):
            final = self.folder / temporary.name.removeprefix(WRITING)
            if find_damage(temporary) is None:
                self._move_in(temporary, final)
                self.event("checkpoint_recovered", path=str(final))
        for leftover in [*self.folder.glob(f"{WRITING}*"), *self.folder.glob(f"{REMOVING}*")]:
            shutil.rmtree(leftover)

    def _prune(self, *, written: Path | None = None) -> None:
        """Remove all but the newest `keep` and the best. None is removed before those that stay have been read and are whole.

        Args:
            written: the checkpoint just written, which replaces the damaged ones, and any newer one: that was skipped as damaged
                when the run resumed from an older step.
        """
        abandoned = [path for path in self._paths() if written and path.name > written.name]
        while True:
            known = [checkpoint for checkpoint in self._undamaged() if checkpoint.path not in abandoned]
            best = best_of(known)
            kept = {checkpoint.path for checkpoint in (*known[-self.keep :], *([best] if best else []))}
            excess = [checkpoint.path for checkpoint in known if checkpoint.path not in kept]
            if not excess or all(self._is_whole(path) for path in sorted(kept)):
                break
        damaged = [path for path in self._paths() if written and path.name in self._damaged]
        for path in {*abandoned, *damaged, *excess}:
            # Renamed first: a crash while deleting must not leave a part of a checkpoint under its name.
            path.rename(self.folder / f"{REMOVING}{path.name}")
            if reason := self._damaged.pop(path.name, None):
                self.event("checkpoint_removed", path=str(path), reason=reason)
        for leftover in self.folder.glob(f"{REMOVING}*"):
            shutil.rmtree(leftover)
        self._link()


def name_of(step: int) -> str:
    return f"step_{step:06d}"


def steps_in(folder: Path) -> list[Path]:
    """The checkpoints in a folder, oldest first, unverified."""
    return sorted(folder.glob("step_*"))


def best_of(checkpoints: Sequence[Checkpoint]) -> Checkpoint | None:
    """The one with the highest score, the oldest of several; None if none has a score."""
    scored = [checkpoint for checkpoint in checkpoints if checkpoint.progress.score is not None]
    return max(scored, key=lambda checkpoint: checkpoint.progress.score or 0.0, default=None)


def load(path: Path) -> Checkpoint:
    """The checkpoint at `path` (a `latest` or `best` link is followed); unverified."""
    path = path.resolve()
    state: dict[str, Any] = json.loads((path / STATE).read_text())
    return Checkpoint(path=path, progress=Progress(**state))

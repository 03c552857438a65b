"""What the run function of a stage kind gets, and what stages share: model folder, tokenizer, log, checkpoints."""

import shutil
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from r1ray.config import Config
from r1ray.config.run import best_metric
from r1ray.data.answer_marks import missing_mark
from r1ray.data.prompts import NOTICEABLE, ProblemSet, dropped_rows, with_control_tokens
from r1ray.plugin import Args
from r1ray.roles import TrainerRole, section_of
from r1ray.run.checkpoint import Checkpoint, Checkpoints, Progress
from r1ray.run.directory import CONFIG, RunDir
from r1ray.run.log import RunLog
from r1ray.run.phases import announce
from r1ray.run.seal import find_damage


@dataclass(frozen=True, slots=True, kw_only=True)
class StageContext:
    """One stage about to run."""

    name: str
    cfg: Config
    run: RunDir
    model_path: str
    """A folder or hub name: the model from which this stage starts."""
    args: Args = field(default_factory=Args)
    """`stages.<name>.args`, an instance of the kind's `Args`."""

    def tokenizer(self) -> Any:
        # This import takes seconds; the actors start meanwhile.
        from transformers import AutoTokenizer

        return AutoTokenizer.from_pretrained(self.model_path)

    def checkpoints(self) -> Checkpoints:
        return Checkpoints(
            self.run.stage(self.name).checkpoints,
            keep=self.cfg.checkpoint.keep,
            event=self.run.event,
            needs_damage=self.reference_damage,
        )

    def resume_checkpoint(self, checkpoints: Checkpoints) -> Checkpoint | None:
        """The newest valid checkpoint when the run resumes; the console says which."""
        found = checkpoints.newest_valid() if self.cfg.resume == "auto" else None
        if found is not None:
            self.run.event("stage_resumed", stage=self.name, step=found.progress.step, path=str(found.path))
            print(f"r1ray: stage {self.name} resumes after step {found.progress.step}, from {found.path}")
        return found

    def reference_folder(self, updates: int) -> Path:
        """The folder of the reference: the policy after `updates` updates, a number that the checkpoint records."""
        return self.run.stage(self.name).path / "reference" / f"updates_{updates:06d}"

    def reference_path(self, progress: Progress) -> str:
        updates = progress.reference_updates
        return str(self.reference_folder(updates)) if updates else self.model_path

    def reference_damage(self, progress: Progress) -> str | None:
        """Why the reference that a checkpoint needs cannot be loaded; None if it can, or is the model of the stage."""
        if not progress.reference_updates:
            return None
        folder = self.reference_folder(progress.reference_updates)
        damage = find_damage(folder)
        return f"its reference in {folder} cannot be loaded: {damage}" if damage else None

    def remove_unused_references(self, checkpoints: Checkpoints, *, first: str) -> None:
        """Remove the references that no kept checkpoint needs. Older checkpoints count too, because the newest one may be damaged.

        Args:
            first: the folder from which reference workers start and restart.
        """
        needed = {Path(first)} | {self.reference_folder(progress.reference_updates) for progress in checkpoints.kept()}
        for folder in (self.run.stage(self.name).path / "reference").glob("*updates_*"):
            if folder not in needed:
                shutil.rmtree(folder)

    def report_sets(self, use: Literal["train", "eval"], sets: Mapping[str, ProblemSet], tokenizer: Any) -> None:
        """Log to events.jsonl how many rows were dropped, cut or held out.

        Printed are the numbers of sets with unreadable rows, of training sets that lost many rows for other reasons, and of
        evaluation sets that lost any.
        """
        words = {"train": "training", "eval": "evaluation"}[use]
        announce(
            f"problems for {words}: {', '.join(f'{name} {len(loaded.problems)}' for name, loaded in sets.items())}"
        )
        for name, loaded in sets.items():
            self.run.event("data_loaded", stage=self.name, use=use, set=name, **loaded.counts)
            if dropped := dropped_rows(loaded, noticeable=NOTICEABLE if use == "train" else 0):
                print(f"r1ray: {'data.train' if use == 'train' else 'eval.sets'}.{name}: {dropped}")
            if control_tokens := with_control_tokens(loaded, self.cfg.model.template):
                print(f"r1ray: {'data.train' if use == 'train' else 'eval.sets'}.{name}: {control_tokens}")
            if mark := missing_mark(loaded.problems, tokenizer):
                self.run.event("alarm", name="answer_mark_missing", stage=self.name, use=use, set=name, mark=mark)
                print(f"r1ray: answers of {name} are read from {mark!r}, which none of its prompts mentions")

    def log(
        self,
        tokenizer: Any,
        *,
        first_step: int,
        last_step: int,
        trained: int = 0,
        memory: Callable[[], Mapping[str, float]] = dict,
    ) -> RunLog:
        return RunLog(
            self.run,
            stage=self.name,
            cfg=self.cfg,
            first_step=first_step,
            last_step=last_step,
            trained=trained,
            decode=tokenizer.decode,
            memory=memory,
        )

    def save(
        self,
        checkpoints: Checkpoints,
        trainers: Mapping[TrainerRole, Any],
        progress: Progress,
        metrics: Mapping[str, float],
    ) -> None:
        """The ranks write hf/, trainer/ and the folders of other trainers; the driver writes state.json and the manifest,
        after everything else that a resume reads.

        The models of other trainers are as large as the policy. A resumed run loads their trainer state, so they are exported only
        where another stage, or another run, may start from them.

        Args:
            trainers: {role: its `TrainerGroup`}; the role of the policy is `policy`.
        """
        self.run.sync(self.name)
        best = best_metric(self.cfg)
        score = metrics.get(best) if best else None
        with checkpoints.writing(progress, score=score) as folder:
            for role, trainer in trainers.items():
                trainer.save(str(folder / section_of(role)))
                if role == "policy":
                    trainer.export_hf(str(folder / "hf"))
                elif progress.step >= self.cfg.steps or self._is_continued():
                    trainer.export_hf(str(folder / role / "hf"))
            if self.run.config.exists():
                shutil.copyfile(self.run.config, folder / CONFIG)
        self.run.event("checkpoint_saved", stage=self.name, step=progress.step)

    def _is_continued(self) -> bool:
        return any(stage.after == self.name for stage in self.cfg.stages.values())


def final_checkpoint(run: RunDir, stage: str) -> Checkpoint:
    """The checkpoint from which the next stage starts: the best one where there is one, else the latest.

    The next stage takes only the weights of the policy and the critic, as DeepScaleR and Skywork-OR1 do when they raise the
    response length. It has new optimizers, counts its steps and updates from 0, runs its own learning-rate schedules, uses this
    model as the reference, and its stream of problems and its curriculum start from the beginning. A process reward model
    starts from the beginning too: its rewards are relative to the reference, which has changed.

    Raises ValueError when the stage has left none, or only damaged ones.
    """
    folder = run.stage(stage).checkpoints
    if (found := Checkpoints(folder, keep=sys.maxsize, event=run.event).final()) is not None:
        return found
    raise ValueError(f"stage {stage!r} left no checkpoint in {folder}: the stage after it has nothing to start from")

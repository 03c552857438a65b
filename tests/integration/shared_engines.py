"""Many short runs on engines that are started once: each run has its own trainers, whose first push sends the engines its model."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from real_run import json_lines

from r1ray import algo as algorithms
from r1ray import builtin
from r1ray.actors.cluster import connected
from r1ray.actors.group import ActorGroup
from r1ray.actors.start import actor_groups, scoring_roles
from r1ray.check import load
from r1ray.cli import compose
from r1ray.run.directory import RunDir, open_run
from r1ray.stages import rl
from r1ray.stages.context import StageContext
from r1ray.stages.pipeline import context_of


@contextmanager
def engines(
    overrides: Sequence[str], folder: Path, *, roles: Sequence[str] = ("rollout", "reward")
) -> Iterator[Mapping[str, ActorGroup]]:
    """Workers of `roles`, as in a run with these overrides; their logs go to `folder`."""
    cfg = load(compose(overrides)).config
    with (
        connected(cfg.cluster),
        actor_groups(
            cfg,
            roles=roles,
            model_path=str(builtin.path()),
            reference_path="",
            trainer_kwargs={},
            run=RunDir(folder),
        ) as groups,
    ):
        yield groups


def train(shared: Mapping[str, ActorGroup], overrides: Sequence[str], folder: Path) -> list[dict[str, Any]]:
    """A run of one stage; returns the metrics of each step."""
    [steps] = train_stages(shared, overrides, folder).values()
    return steps


def train_stages(
    shared: Mapping[str, ActorGroup], overrides: Sequence[str], folder: Path
) -> dict[str, list[dict[str, Any]]]:
    """A run of consecutive rl stages on these workers, in `folder`: {stage: the metrics of each step}.

    The overrides of shared workers must equal those with which they were started, except for what each request carries. Workers of
    other roles are started for this run."""
    checked = load(compose([*overrides, f"run_dir={folder}"]))
    run = open_run(checked.config.run_dir, raw=checked.raw, overrides=checked.overrides)
    for stage in checked.stages:
        train_stage(shared, context_of(stage, run))
    return {stage.name: json_lines(run.stage(stage.name).metrics) for stage in checked.stages}


def train_stage(shared: Mapping[str, ActorGroup], context: StageContext) -> None:
    cfg = context.cfg
    algo = algorithms.make(cfg.algo, max_response_length=cfg.rollout.max_response_length)
    with actor_groups(
        cfg,
        roles=[role for role in (*scoring_roles(cfg), *algorithms.training_roles(algo)) if role not in shared],
        model_path=context.model_path,
        reference_path=context.model_path,
        trainer_kwargs=rl.trainer_kwargs(cfg, algo),
        run=context.run,
    ) as own:
        rl.train_on({**shared, **own}, context, algo, context.checkpoints(), None)

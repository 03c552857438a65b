"""A run: its stages one after another, each starting from the model that an earlier one left."""

from typing import Any

from r1ray.actors.cluster import connected, starts_ray
from r1ray.algo import roles_of
from r1ray.check import CheckedRun, CheckedStage
from r1ray.config import Config
from r1ray.data.sources import program_languages
from r1ray.model.files import folder_of
from r1ray.plugin import resolve
from r1ray.run.directory import RunDir
from r1ray.run.stop import raise_if_stop_requested
from r1ray.run.summary import closing_summary
from r1ray.sandbox import current
from r1ray.stage_kinds import kind_of
from r1ray.stages.context import StageContext, final_checkpoint


def check_sandbox(cfg: Config) -> dict[str, Any]:
    """The sandbox in which a stage's programs will run (`current.check`); {} when it runs none.

    Raises SandboxUnavailable when this machine cannot run them. On a cluster the reward workers check their nodes.
    """
    languages = program_languages((*cfg.data.train.values(), *cfg.eval.sets.values()))
    return current.check(cfg.sandbox, languages) if languages else {}


def run_stages(checked: CheckedRun, run: RunDir) -> None:
    """Run all stages in order; a resumed run starts no workers for a stage whose checkpoint is at its last step."""
    cfg = checked.config
    if starts_ray(cfg.cluster):
        for name, _, stage_cfg in checked.stages:  # before anything that takes longer
            if found := check_sandbox(stage_cfg):
                run.event("sandbox", stage=name, **found)
    with connected(cfg.cluster, event=run.event):
        for checked_stage in checked.stages:
            raise_if_stop_requested()  # Ray's start, and an earlier stage, take long
            context, kind = context_of(checked_stage, run), kind_of(checked_stage.stage.kind)
            critic = context.cfg.critic.path
            run.event(
                "stage_started", stage=context.name, model=context.model_path, **({"critic": critic} if critic else {})
            )
            resolve(kind.run, {}, what="run function of a stage kind")(context)
            run.event("stage_finished", stage=context.name)
    print(closing_summary(run))


def context_of(checked: CheckedStage, run: RunDir) -> StageContext:
    """The context of a stage that is about to run; the stage that it starts from has finished.

    If critic.path is null, the critic starts from the critic of the earlier stage, if that stage has one. Raises ValueError when
    the earlier stage has left no model.
    """
    name, stage, cfg = checked
    args = kind_of(stage.kind).Args.model_validate(stage.args)
    if stage.after is None:
        return StageContext(name=name, cfg=cfg, run=run, model_path=folder_of(cfg.model.path), args=args)
    result = final_checkpoint(run, stage.after)
    critic = result.model_of("critic")
    if cfg.critic.path is None and critic.exists() and "critic" in roles_of(cfg.algo):
        cfg = cfg.model_copy(update={"critic": cfg.critic.model_copy(update={"path": str(critic)})})
    return StageContext(name=name, cfg=cfg, run=run, model_path=str(result.hf), args=args)

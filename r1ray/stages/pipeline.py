"""A run: its stages one after another, each starting from the model that an earlier one left."""

from typing import Any

from r1ray import builtin
from r1ray.actors.cluster import connected, starts_ray
from r1ray.algo import roles_of
from r1ray.check import CheckedRun, CheckedStage
from r1ray.config import Config
from r1ray.data.sources import program_languages
from r1ray.run.directory import RunDir
from r1ray.run.summary import closing_summary
from r1ray.sandbox import here
from r1ray.stages import module_of
from r1ray.stages.context import StageContext, result_of


def check_sandbox(cfg: Config) -> dict[str, Any]:
    """What programs are going to be run in (`here.check`); {} where there are none.

    Raises SandboxUnavailable when this machine cannot run them. On a cluster the reward workers say so.
    """
    languages = program_languages((*cfg.data.train.values(), *cfg.eval.sets.values()))
    return here.check(cfg.sandbox, languages) if languages else {}


def run_stages(checked: CheckedRun, run: RunDir) -> None:
    """Run them all; one that a resumed run finds at its last step starts nothing."""
    cfg = checked.config
    if starts_ray(cfg.cluster):
        for name, _, stage_cfg in checked.stages:  # before anything that takes longer
            if found := check_sandbox(stage_cfg):
                run.event("sandbox", stage=name, **found)
    with connected(cfg.cluster):
        for checked_stage in checked.stages:
            context = context_of(checked_stage, run)
            critic = context.cfg.critic.path
            run.event(
                "stage_started", stage=context.name, model=context.model_path, **({"critic": critic} if critic else {})
            )
            module_of(checked_stage.stage.kind).run(context)
            run.event("stage_finished", stage=context.name)
    print(closing_summary(run))


def context_of(checked: CheckedStage, run: RunDir) -> StageContext:
    """Of a stage whose turn it is: the one that it comes after is through.

    Where critic.path is null the critic starts from the earlier stage's, if that had one. Raises ValueError when the earlier stage
    has left no model.
    """
    name, stage, cfg = checked
    if stage.after is None:
        return StageContext(name=name, cfg=cfg, run=run, model_path=builtin.folder_of(cfg.model.path))
    result = result_of(run, stage.after)
    critic = result.model_of("critic")
    if cfg.critic.path is None and critic.exists() and "critic" in roles_of(cfg.algo):
        cfg = cfg.model_copy(update={"critic": cfg.critic.model_copy(update={"path": str(critic)})})
    return StageContext(name=name, cfg=cfg, run=run, model_path=str(result.hf))

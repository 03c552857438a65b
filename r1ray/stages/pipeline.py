"""A run: its stages one after another, each starting from the model that an earlier one left."""

from typing import Any

from r1ray import builtin
from r1ray.actors.cluster import connected, starts_ray
from r1ray.check import CheckedRun
from r1ray.config import Config
from r1ray.data.sources import runs_programs
from r1ray.run.directory import RunDir
from r1ray.run.summary import closing_summary
from r1ray.sandbox import here
from r1ray.stages import module_of
from r1ray.stages.context import StageContext, result_of


def check_sandbox(cfg: Config) -> dict[str, Any]:
    """What programs are going to be run in (`here.check`); {} where there are none.

    Raises SandboxUnavailable when this machine cannot run them. On a cluster the reward workers say so.
    """
    languages = runs_programs((*cfg.data.train.values(), *cfg.eval.sets.values()))
    return here.check(cfg.sandbox, languages) if languages else {}


def run_stages(checked: CheckedRun, run: RunDir) -> None:
    """Run them all; one that a resumed run finds at its last step starts nothing."""
    cfg = checked.config
    if starts_ray(cfg.cluster):
        for name, _, stage_cfg in checked.stages:  # before anything that takes longer
            if found := check_sandbox(stage_cfg):
                run.event("sandbox", stage=name, **found)
    with connected(cfg.cluster):
        for name, stage, stage_cfg in checked.stages:
            path = stage_cfg.model.path if stage.after is None else str(result_of(run, stage.after))
            model_path = builtin.folder_of(path)
            context = StageContext(name=name, cfg=stage_cfg, run=run, model_path=model_path)
            run.event("stage_started", stage=name, model=model_path)
            module_of(stage.kind).run(context)
            run.event("stage_finished", stage=name)
    print(closing_summary(run))

"""A stage of kind `eval`: evaluate a model without a trainer."""

from r1ray.actors.start import actor_groups, scoring_roles, wait_until_ready
from r1ray.actors.watchdog import Watchdog
from r1ray.actors.workers import RayWorkers
from r1ray.collect.reward_errors import RewardErrors
from r1ray.data.prompts import evaluation_sets
from r1ray.evaluator import evaluator_of
from r1ray.failures import RestartBudget
from r1ray.run.phases import phase
from r1ray.run.stop import raise_if_stop_requested, stop_requested
from r1ray.stages.context import StageContext


def run(context: StageContext) -> None:
    """Logs the metrics as step 0 of the stage."""
    cfg = context.cfg
    with actor_groups(
        cfg,
        roles=("rollout", *scoring_roles(cfg)),
        model_path=context.model_path,
        reference_path=context.model_path,
        trainer_kwargs={},
        run=context.run,
    ) as groups:
        with phase("loading data"):
            tokenizer = context.tokenizer()
            sets = evaluation_sets(cfg, tokenizer)
        context.report_sets("eval", sets, tokenizer)
        log = context.log(tokenizer, first_step=0, last_step=0)
        wait_until_ready(groups, cfg)
        restarts = RestartBudget(cfg.cluster.max_restarts, event=context.run.event)
        with Watchdog(groups, cfg=cfg.cluster, event=context.run.event) as watchdog:
            workers = RayWorkers(
                groups["rollout"], groups["reward"], cfg=cfg, restarts=restarts, last_progress=watchdog.last_progress
            )
            errors = RewardErrors(event=context.run.event)
            evaluate = evaluator_of(
                cfg, workers, sets, reward_errors=errors, record=log.evaluation, stopping=stop_requested
            )
            metrics = evaluate(0)
            raise_if_stop_requested()
            log.step(0, metrics)
        log.close()

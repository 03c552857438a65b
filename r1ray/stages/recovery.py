"""After a trainer rank is lost: all ranks restart in their slots, and the stage continues from its last checkpoint.

Engines and reward workers keep running, except those that were lost with the rank. The first push gives engines the weights of the
checkpoint.
"""

from collections.abc import Callable, Mapping

from r1ray.actors.group import ActorGroup
from r1ray.failures import Failures, RestartBudget, TrainersLost
from r1ray.roles import TRAINERS
from r1ray.run.checkpoint import Checkpoint, Checkpoints
from r1ray.run.stop import stop_requested
from r1ray.stages.context import StageContext


def run_with_recovery(
    context: StageContext,
    groups: Mapping[str, ActorGroup],
    restarts: RestartBudget,
    checkpoints: Checkpoints,
    body: Callable[[Checkpoint | None], None],
    checkpoint: Checkpoint | None,
) -> None:
    """Run `body(checkpoint)`. After each loss, run it again from the newest valid checkpoint.

    Restarted trainers hold the initial model of the stage: without a checkpoint the stage starts from the beginning.
    """
    timeout_s = context.cfg.trainer.start_timeout_s
    while True:
        try:
            return body(checkpoint)
        except TrainersLost as error:
            if stop_requested():
                raise  # the run was asked to stop: there is no time to roll back, and nothing new to save
            lost = error
        print(f"r1ray: {lost}; all trainer ranks restart from the last checkpoint")
        restarts.restart({"policy": lost}, lambda _: restart_trainers(groups, timeout_s=timeout_s))
        checkpoint = checkpoints.newest_valid()
        context.run.event("rolled_back", stage=context.name, step=checkpoint.progress.step if checkpoint else 0)


def restart_trainers(groups: Mapping[str, ActorGroup], *, timeout_s: float) -> Failures:
    """Restart the policy's trainer and all others: a critic must not keep updates from after the checkpoint."""
    for role in TRAINERS:
        if role in groups:
            groups[role].restart_all(timeout_s=timeout_s)
    return {}

"""When a trainer rank is lost, all ranks begin anew in their places and the stage goes on from its last checkpoint.

Engines and reward workers stay, but for those that were lost with it: they get the checkpoint's weights with the first push.
"""

from collections.abc import Callable, Mapping

from r1ray.actors.group import ActorGroup
from r1ray.failures import Failures, RestartBudget, TrainersLost
from r1ray.roles import TRAINERS
from r1ray.run.checkpoint import Checkpoint, Checkpoints
from r1ray.run.stop import asked
from r1ray.stages.context import StageContext


def with_trainers_restored(
    context: StageContext,
    groups: Mapping[str, ActorGroup],
    restarts: RestartBudget,
    checkpoints: Checkpoints,
    body: Callable[[Checkpoint | None], None],
    checkpoint: Checkpoint | None,
) -> None:
    """Run `body(checkpoint)` to its end; after each loss once more, from what is then the newest whole checkpoint.

    Trainers that have just been started hold the model the stage begins with: without a checkpoint it begins again.
    """
    timeout_s = context.cfg.trainer.start_timeout_s
    while True:
        try:
            return body(checkpoint)
        except TrainersLost as error:
            if asked():
                raise  # there is no time left to go back, and nothing new that could be saved
            lost = error
        print(f"r1ray: {lost}; all trainer ranks are started again from the last checkpoint")
        restarts.restart({"policy": lost}, lambda _: start_all_again(groups, timeout_s=timeout_s))
        checkpoint = checkpoints.newest_valid()
        context.run.event("rolled_back", stage=context.name, step=checkpoint.progress.step if checkpoint else 0)


def start_all_again(groups: Mapping[str, ActorGroup], *, timeout_s: float) -> Failures:
    """The policy's trainer and all others: what a critic has learned since the checkpoint must not outlive the policy's."""
    for role in TRAINERS:
        if role in groups:
            groups[role].restart_all(timeout_s=timeout_s)
    return {}

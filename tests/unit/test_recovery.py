"""Recovery from lost trainer ranks: what restarts, from which checkpoint the stage continues, and when it gives up."""

from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

import pytest

from r1ray.failures import RestartBudget, TrainersLost, WorkerUnresponsive
from r1ray.stages.recovery import run_with_recovery


class World:
    """Checkpoints are numbers; each run of the body saves one and ends as given."""

    def __init__(self, *ends: Exception | None, saves: Sequence[int] = ()) -> None:
        self.ends, self.saves = list(ends), list(saves)
        self.starts: list[Exception | None] = []
        """How restarts end; later ones succeed."""
        self.newest: Any = None
        self.did: list[Any] = []

    def body(self, checkpoint: Any) -> None:
        self.did.append(f"from {checkpoint.progress.step if checkpoint else None}")
        if self.saves:
            self.newest = SimpleNamespace(progress=SimpleNamespace(step=self.saves.pop(0)))
        if end := self.ends.pop(0):
            raise end

    def event(self, kind: str, **fields: Any) -> None:
        self.did.append(f"{kind} {fields.get('stage', '')}{fields.get('worker', '')} {fields.get('step', '')}".strip())

    def restart_all(self, *, timeout_s: float) -> dict[str, Exception]:
        self.did.append(f"restart all within {timeout_s}")
        if self.starts and (end := self.starts.pop(0)):
            raise end
        return {}

    def run(self, *, max_restarts: int = 20, checkpoint: Any = None) -> None:
        run_with_recovery(
            SimpleNamespace(  # type: ignore[arg-type]
                name="rl",
                cfg=SimpleNamespace(trainer=SimpleNamespace(start_timeout_s=9)),
                run=SimpleNamespace(event=self.event),
            ),
            {"policy": SimpleNamespace(restart_all=self.restart_all)},  # type: ignore[dict-item]
            RestartBudget(max_restarts, event=self.event),
            SimpleNamespace(newest_valid=lambda: self.newest),  # type: ignore[arg-type]
            self.body,
            checkpoint,
        )


LOST = TrainersLost("policy-1 died")


def test_a_stage_without_a_loss_runs_once() -> None:
    world = World(None)
    world.run(checkpoint=SimpleNamespace(progress=SimpleNamespace(step=4)))
    assert world.did == ["from 4"]


def test_after_a_loss_it_continues_from_the_newest_checkpoint() -> None:
    world = World(LOST, LOST, None, saves=[10, 20])
    world.run()
    again = ["worker_restarted policy", "restart all within 9"]
    assert world.did == ["from None", *again, "rolled_back rl 10", "from 10", *again, "rolled_back rl 20", "from 20"]


def test_after_a_loss_without_a_checkpoint_it_starts_from_the_beginning() -> None:
    world = World(LOST, None)
    world.run()
    assert world.did[-2:] == ["rolled_back rl 0", "from None"]


def test_restarts_are_limited() -> None:
    world = World(*[LOST] * 9)
    with pytest.raises(TrainersLost, match="giving up after 2 restarts"):
        world.run(max_restarts=2)
    assert world.did.count("from None") == 3


def test_ranks_that_fail_to_start_are_restarted_again() -> None:
    world = World(LOST, None)
    world.starts = [WorkerUnresponsive("policy-0 did not answer"), None]
    world.run()
    assert world.did.count("restart all within 9") == 2 and world.did.count("from None") == 2


def test_another_error_is_not_recovered_from() -> None:
    world = World(ValueError("a mistake"))
    with pytest.raises(ValueError, match="a mistake"):
        world.run()
    assert world.did == ["from None"]

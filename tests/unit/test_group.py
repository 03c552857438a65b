"""What the driver makes of what Ray says about a call."""

from typing import Any

import pytest
from ray.exceptions import OutOfMemoryError, RayActorError

import r1ray.actors.group as group_module
from r1ray.actors.group import WorkerDied, result_of

OUT_OF_MEMORY = """6 worker(s) were killed due to the node running low on memory. 5.5 GB used
Object store memory usage: [- objects spillable: 0
Top 10 memory users: PID"""


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (OutOfMemoryError(OUT_OF_MEMORY), "rollout-1 was ended in 'generate' because 6 worker(s) were killed due to the "
         "node running low on memory. 5.5 GB used"),
        (RayActorError(), "rollout-1 died during 'generate': The actor experienced an error before finishing this task."),
    ],
)  # fmt: skip
def test_a_death_is_told_in_one_line(error: Exception, message: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(_: Any) -> None:
        raise error

    monkeypatch.setattr(group_module.ray, "get", fails)
    with pytest.raises(WorkerDied) as raised:
        result_of("ref", name="rollout-1", what="generate")
    assert str(raised.value) == message

"""Groups whose scoring ends reward workers: found by the worker's note, ended after the second death; the restarts do not count."""

import os
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import test_workers
from reward_samples import completion, problem
from test_workers import World, pool

from r1ray.actors.culprits import Note, identity, no_scores
from r1ray.actors.reward import RewardWorker
from r1ray.actors.workers import Call, RayWorkers
from r1ray.check import load
from r1ray.cli import compose
from r1ray.failures import RestartBudget, WorkerDied
from r1ray.reward.base import WORKER, RewardContext

world = test_workers.world
CONTEXT = RewardContext(step=1, seed=5, max_response_length=10)


def submit(workers: RayWorkers, names: Sequence[str]) -> dict[str, list[Call]]:
    calls: dict[str, list[Call]] = {}
    for name in names:
        asked: Any = SimpleNamespace(id=name, prompt_ids_T=np.array([1], np.int32))
        completions = workers.generate(asked, seeds=[1, 2, 3], sampling=None)  # type: ignore[arg-type]
        calls[name] = [completions, workers.score(asked, completions, CONTEXT)]
    return calls


def note_of(name: str) -> str:
    return identity(SimpleNamespace(id=name), CONTEXT)  # type: ignore[arg-type]


def drain(workers: RayWorkers, calls: dict[str, list[Call]]) -> dict[str, Any]:
    """{problem: its scores}."""
    name_of = {call: name for name, pair in calls.items() for call in pair}
    waiting, scores = list(name_of), dict[str, Any]()
    while waiting:
        for call in workers.wait(waiting):
            waiting.remove(call)
            result = workers.result(call)
            if call.method == "score":
                scores[name_of[call]] = result
    return scores


def die(world: World, *workers: str) -> None:
    for name in workers:
        world.fate[f"{name}/score"] = world.died(name)


def test_the_group_in_the_workers_hands_is_ended_after_the_second_death_and_no_other(world: World) -> None:
    workers = pool(world, [0.5])
    world.notes = [note_of("p1")] * 2
    die(world, "reward-0", "reward-0'")
    scores = drain(workers, submit(workers, ["p0", "p1", "p2"]))
    assert len(world.events) == 2 and [name for name, kind in world.calls if kind == "interrupted"] == [
        "reward-0'",
        "reward-0''",
    ]
    assert len(scores["p1"]) == 3 and not any(score.usable for score in scores["p1"])
    assert "2 workers ended or hung while they scored it" in scores["p1"][0].errors[WORKER].message
    assert scores["p0"].startswith("value of reward-0''") and scores["p2"].startswith("value of reward-0''")


def test_one_death_is_no_proof(world: World) -> None:
    workers = pool(world, [0.5])
    world.notes = [note_of("p1"), note_of("p2"), note_of("another/group"), ""]
    die(world, "reward-0", "reward-0'", "reward-0''", "reward-0'''")
    scores = drain(workers, submit(workers, ["p0", "p1", "p2"]))
    assert all(isinstance(value, str) for value in scores.values())


def test_restarts_of_a_culprit_do_not_count(world: World) -> None:
    """With a budget of one restart five problems are ended; then one death and another are two restarts, one too many."""
    workers = pool(world, [0.5])
    workers._restarts = RestartBudget(1, event=lambda kind, **f: None)
    names = [f"p{i}" for i in range(5)]
    world.notes = [note_of(name) for name in names for _ in range(2)]
    die(world, *("reward-0" + "'" * i for i in range(10)))
    scores = drain(workers, submit(workers, names))
    assert all(WORKER in scores[name][0].errors for name in names)
    world.notes = [note_of("q0"), note_of("q1")]
    die(world, "reward-0" + "'" * 10, "reward-0" + "'" * 11)
    with pytest.raises(WorkerDied, match="giving up after 1 restarts"):
        drain(workers, submit(workers, ["q0", "q1"]))


def test_a_suspect_that_was_not_in_the_workers_hands_excuses_nothing(world: World) -> None:
    workers = pool(world, [0.5])
    workers._restarts = RestartBudget(1, event=lambda kind, **f: None)
    world.notes = [note_of("p0"), note_of("p1")]
    die(world, "reward-0", "reward-0'")
    with pytest.raises(WorkerDied, match="giving up after 1 restarts"):
        drain(workers, submit(workers, ["p0", "p1"]))


def test_a_worker_that_hangs_is_treated_like_one_that_dies(world: World) -> None:
    workers = pool(world, [0.5], reward_s=1000.0)
    world.notes = [note_of("p0")] * 2
    world.restart = hangs_again(world, world.restart)  # type: ignore[method-assign]
    scores = drain(workers, submit(workers, ["p0"]))
    assert "made no progress" in scores["p0"][0].errors[WORKER].message and len(world.events) == 2


def hangs_again(world: World, restart: Any) -> Any:
    def restarted(group: Any, names: Any) -> Any:
        failed = restart(group, names)
        if group.role == "reward":
            group.handles[0] = world.actor(f"{group.handles[0].name}*", 1000.0)
        return failed

    return restarted


def test_a_note_survives_the_process_that_wrote_it(tmp_path: Path) -> None:
    path = str(tmp_path / "note")
    first = Note(path)
    assert first.left == ""
    first.write("p1, a long name")
    first.write("p2")
    second = Note(path)
    assert (second.left, Note(path).left) == ("p2", "")
    assert Note(str(tmp_path / "no" / "folder")).left == "" and Note(None).left == ""
    Note(str(tmp_path / "no" / "folder")).write("p1")


def mortal(problem: Any, completions_G: Any, context: RewardContext) -> list[float]:
    """What a user's reward may do to its process."""
    if completions_G[0].text == "end":
        os._exit(3)
    if completions_G[0].text == "fork":
        os.fork()
    if completions_G[0].text == "fork and fail" and not os.fork():
        raise ValueError("in the child")
    return [1.0] * len(completions_G)


def worker(note: Path) -> RewardWorker:
    named = f"reward.components.mortal.name={__name__}:mortal"
    return RewardWorker(index=0, cfg=load(compose([named])).config, note=str(note))


def test_a_reward_worker_notes_what_it_scores(tmp_path: Path) -> None:
    note = tmp_path / "note"
    first = worker(note)
    assert first.score(problem(), [completion("fine")], CONTEXT)[0].components["mortal"] == 1.0
    assert note.read_text() == ""
    child = os.fork()
    if not child:
        first._pid = os.getpid()
        first.score(problem(), [completion("end")], CONTEXT)
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 3
    assert worker(note).interrupted() == identity(problem(), CONTEXT)


@pytest.mark.parametrize("text", ["fork", "fork and fail"])
def test_a_fork_that_a_reward_makes_does_not_answer_in_its_place(text: str, tmp_path: Path) -> None:
    made, pid = worker(tmp_path / "note"), os.getpid()
    assert made.score(problem(), [completion(text)], CONTEXT)[0].components["mortal"] == 1.0
    assert os.getpid() == pid, "the child ends in `score`"
    os.wait()


def test_scores_of_a_culprit_are_as_many_as_its_completions() -> None:
    scores = no_scores(4, worker="reward-1", error=WorkerDied("reward-1 died"))
    assert len(scores) == 4 and "logs/reward-1.log" in scores[0].errors[WORKER].place

"""The driver's side of the trainer: rows go to their ranks, repeatedly skipped updates end the run, and which errors mean that a
rank is lost."""

import re
from types import SimpleNamespace
from typing import Any

import pytest
import yaml
from algo_samples import CONF, sample

from r1ray.actors import trainer_group
from r1ray.actors.group import ActorGroup
from r1ray.actors.trainer_group import TrainerGroup, skip_reason
from r1ray.config import TrainerConfig
from r1ray.data.pack import pack
from r1ray.failures import TrainersLost, UpdateFailed, WorkerDied, WorkerFailed, WorkerUnresponsive

GOOD = {"loss/policy": 0.1, "grad_norm": 1.0, "updates_skipped": 0.0, "mismatch/logprob_gap/max": 1e-5}
SKIPPED = GOOD | {"grad_norm": float("nan"), "updates_skipped": 1.0}


def trainer_config(**overrides):
    return TrainerConfig(**yaml.safe_load((CONF / "trainer/default.yaml").read_text()) | overrides)


class FakeActors:
    """A fake of ActorGroup: calls run at once, a reference is the result."""

    def __init__(self, answers, num=2):
        self.answers, self.seen, self.dead = list(answers), [], {}
        call = SimpleNamespace(remote=self._call)
        self.handles = [SimpleNamespace(update=call, compute_logprobs_or_values=call) for _ in range(num)]

    role = "policy"

    def __len__(self):
        return len(self.handles)

    def _call(self, rows):
        self.seen.append(rows)
        return len(self.seen) - 1

    def name(self, index):
        return f"policy-{index}"

    def gather(self, refs, *, what, timeout_s, key):
        answer = self.answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return [answer] * len(refs) if isinstance(answer, dict) else [answer[ref] for ref in refs]

    def unhealthy(self, *, timeout_s):
        return self.dead

    cause_of = ActorGroup.cause_of


def group_of(actors: Any, **overrides: Any) -> TrainerGroup:
    return TrainerGroup(actors, cfg=trainer_config(**overrides))


def batch():
    samples = [sample(5, index=i) for i in range(4)]
    weights = [{"policy": one.mask_T} for one in samples]
    return pack(samples, weights=weights, num_ranks=2, max_tokens=10)


def test_each_rank_gets_its_own_rows():
    actors, rows = FakeActors([GOOD]), batch()
    assert group_of(actors).update(rows) == GOOD
    assert [id(seen) for seen in actors.seen] == [id(rank) for rank in rows.rows]


def test_ranks_that_share_rows_get_the_same_ones_and_count_once():
    actors, rows = FakeActors([GOOD, ["a", "a again", "b", "b again"]], num=4), batch()
    group = group_of(actors, num_workers=4, sequence_parallel=2)
    assert len(group) == len(rows.rows) == 2
    assert group.update(rows) == GOOD
    assert [id(seen) for seen in actors.seen] == [id(rank) for rank in rows.rows for _ in range(2)]
    actors.seen.clear()
    assert group.compute_logprobs_or_values(rows) == ["a", "b"]


def test_skipped_updates_in_a_row_end_the_run():
    actors = FakeActors([SKIPPED, SKIPPED, GOOD, SKIPPED, SKIPPED, SKIPPED])
    group = group_of(actors, max_skipped_updates=3)
    for _ in range(5):
        group.update(batch())
    with pytest.raises(
        RuntimeError,
        match=r"3 updates in a row were skipped \(trainer.max_skipped_updates\), the last because the gradient norm is nan",
    ):
        group.update(batch())


@pytest.mark.parametrize(
    ("metrics", "trainer", "reason"),
    [
        ({}, {}, None),
        ({"loss/kl": float("inf")}, {}, "loss/kl is inf"),
        (
            {"mismatch/logprob_gap/max": 0.01},
            {},
            r"mismatch/logprob_gap/max is 0.01, above trainer.logprob_gap_limit \(0.001\)",
        ),
        ({"mismatch/logprob_gap/max": 0.01}, {"precision": "bf16_autocast"}, None),
        ({"mismatch/logprob_gap/max": 0.01}, {"logprob_gap_limit": 0.02}, None),
        ({"mismatch/logprob_gap/max": 0.3, "mismatch/logprob_gap/mean": 0.02}, {"precision": "bf16"}, None),
        (
            {"mismatch/logprob_gap/mean": 0.2},
            {"precision": "bf16"},
            r"mismatch/logprob_gap/mean is 0.2, above trainer.logprob_gap_limit \(0.1\)",
        ),
        ({"mismatch/logprob_gap/mean": float("nan")}, {"precision": "bf16"}, "mismatch/logprob_gap/mean is nan"),
    ],
)
def test_the_reason_to_skip_an_update(metrics, trainer, reason):
    got = skip_reason(GOOD | metrics, cfg=trainer_config(**trainer))
    assert (got is None) == (reason is None)
    assert reason is None or re.match(reason, got or "")


GLOO = "DistBackendError: [../third_party/gloo/gloo/transport/tcp/pair.cc:547] Connection closed by peer"
NCCL = "DistBackendError: NCCL error in: ProcessGroupNCCL.cpp:3690, remote process exited or there was a network error"
LOST = {
    "a rank that died": (WorkerDied("policy-1 died during 'update'"), {}),
    "a rank that times out": (WorkerUnresponsive("policy-1 did not finish 'update' within 600 s"), {}),
    "a rank whose peer has gone, over gloo": (WorkerFailed(f"policy-0 failed in 'update': RuntimeError: {GLOO}"), {}),
    "a rank whose peer has gone, over NCCL": (WorkerFailed(f"policy-0 failed in 'update': {NCCL}"), {}),
    "a rank whose store has gone": (WorkerFailed("policy-0 failed in 'update': DistStoreError: wait timeout"), {}),
    "an error together with a dead rank": (
        WorkerFailed("policy-0 failed in 'update': RuntimeError: Broken pipe"), {1: WorkerDied("policy-1 died")},
    ),
    "an error together with a hung rank": (
        WorkerFailed("policy-0 failed in 'update': RuntimeError: Broken pipe"), {1: WorkerUnresponsive("policy-1 did not answer")},
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", LOST)
def test_error_means_that_trainers_are_lost(case):
    error, dead = LOST[case]
    actors = FakeActors([error])
    actors.dead = dead
    with pytest.raises(TrainersLost, match="policy-1" if dead else str(error)[:20]):
        group_of(actors).update(batch())


@pytest.mark.parametrize(
    ("numbers", "unchanged"),
    [([7, 7], True), ([7, 8], False), ([None, None], False), ([7, WorkerUnresponsive("policy-1 hangs")], False)],
)
def test_an_error_of_a_healthy_rank_says_whether_the_weights_changed(numbers, unchanged, monkeypatch):
    def settle(calls, *, what, timeout_s):
        answers = {name: numbers[number] for name, number in calls.items()}
        failed = {name: answer for name, answer in answers.items() if isinstance(answer, Exception)}
        return {name: answer for name, answer in answers.items() if name not in failed}, failed

    monkeypatch.setattr(trainer_group, "settle", settle)
    actors = FakeActors([WorkerFailed("policy-0 failed in 'update': OutOfMemoryError: CUDA out of memory")])
    for index, handle in enumerate(actors.handles):
        handle.num_updates = SimpleNamespace(remote=lambda index=index: index)
    with pytest.raises(WorkerFailed, match="out of memory") as caught:
        group_of(actors).update(batch())
    assert isinstance(caught.value, UpdateFailed) == unchanged


def test_raise_if_lost_raises_only_when_a_rank_is_gone():
    actors = FakeActors([])
    group = group_of(actors)
    group.raise_if_lost()
    actors.dead = {0: WorkerUnresponsive("policy-0 did not answer")}
    with pytest.raises(TrainersLost, match="policy-0 did not answer"):
        group.raise_if_lost()


def test_a_rank_that_hangs_but_answers_heartbeats_counts_as_lost():
    group = group_of(FakeActors([]))
    group.raise_if_lost({"rollout-0"})
    with pytest.raises(TrainersLost, match="policy-1 hangs"):
        group.raise_if_lost({"rollout-0", "policy-1"})

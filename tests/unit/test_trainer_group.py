"""The driver's side of the trainer: rows go to their ranks, and updates that are skipped again and again end the run."""

from types import SimpleNamespace

import pytest
import yaml
from algo_samples import CONF, sample

from r1ray.actors.trainer_group import TrainerGroup, why_not
from r1ray.config import TrainerConfig
from r1ray.data.pack import pack

GOOD = {"loss/policy": 0.1, "grad_norm": 1.0, "updates_skipped": 0.0, "logprob_gap/max": 1e-5}
SKIPPED = GOOD | {"grad_norm": float("nan"), "updates_skipped": 1.0}


def trainer_config(**overrides):
    return TrainerConfig(**yaml.safe_load((CONF / "trainer/default.yaml").read_text()) | overrides)


class FakeActors:
    """Stands in for an ActorGroup: calls run at once, a reference is the result."""

    def __init__(self, answers):
        self.answers, self.seen = list(answers), []
        self.handles = [SimpleNamespace(update=SimpleNamespace(remote=self._update)) for _ in range(2)]

    def __len__(self):
        return len(self.handles)

    def _update(self, rows):
        self.seen.append(rows)

    def gather(self, refs, *, what, timeout_s):
        return [self.answers.pop(0)] * len(refs)


def batch():
    samples = [sample(5, index=i) for i in range(4)]
    weights = [{"policy": one.mask_T} for one in samples]
    return pack(samples, weights=weights, num_ranks=2, max_tokens=10)


def test_each_rank_gets_its_own_rows():
    actors, rows = FakeActors([GOOD]), batch()
    assert TrainerGroup(actors, cfg=trainer_config()).update(rows) == GOOD
    assert [id(seen) for seen in actors.seen] == [id(rank) for rank in rows.rows]


def test_skipped_updates_in_a_row_end_the_run():
    actors = FakeActors([SKIPPED, SKIPPED, GOOD, SKIPPED, SKIPPED, SKIPPED])
    group = TrainerGroup(actors, cfg=trainer_config(max_nan_updates=3))
    for _ in range(5):
        group.update(batch())
    with pytest.raises(
        RuntimeError, match="3 updates in a row were skipped, the last because the gradient's norm is nan"
    ):
        group.update(batch())


@pytest.mark.parametrize(
    ("metrics", "trainer", "reason"),
    [
        ({}, {}, None),
        ({"loss/kl": float("inf")}, {}, "loss/kl is inf"),
        ({"logprob_gap/max": 0.01}, {}, r"logprob_gap/max is 0.01, above trainer.logprob_gap_limit \(0.001\)"),
        ({"logprob_gap/max": 0.01}, {"precision": "bf16_autocast"}, None),
        ({"logprob_gap/max": 0.01}, {"logprob_gap_limit": 0.02}, None),
        ({"logprob_gap/max": 0.3, "logprob_gap/mean": 0.02}, {"precision": "bf16"}, None),
        (
            {"logprob_gap/mean": 0.2},
            {"precision": "bf16"},
            r"logprob_gap/mean is 0.2, above trainer.logprob_gap_limit \(0.1\)",
        ),
        ({"logprob_gap/mean": float("nan")}, {"precision": "bf16"}, "logprob_gap/mean is nan"),
    ],
)
def test_why_an_update_is_not_made(metrics, trainer, reason):
    import re

    got = why_not(GOOD | metrics, cfg=trainer_config(**trainer))
    assert (got is None) == (reason is None)
    assert reason is None or re.match(reason, got)

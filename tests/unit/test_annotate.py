"""Every sample gets its own log-probs, whatever it is packed with."""

import numpy as np
import pytest
from algo_samples import sample

from r1ray.annotate import annotate


class FakeGroup:
    """Returns a function of each token, so that a value at the wrong token is noticed."""

    def __init__(self, size, factor):
        self.size, self.factor, self.tokens, self.max_tokens = size, factor, 0, 32

    def __len__(self):
        return self.size

    def compute_logprobs_or_values(self, batch):
        self.tokens += sum(len(row.token_ids_L) for rank in batch.rows for row in rank if row.sample_L[0] >= 0)
        return [[self.factor * row.token_ids_L.astype(np.float32) for row in rank] for rank in batch.rows]


SAMPLES = [sample(n, prompt=2, index=i, seed=1) for i, n in enumerate([5, 30, 3, 12, 12, 7])]


@pytest.mark.parametrize("num_ranks", [1, 2, 9])
def test_old_and_reference_log_probs_return_to_their_samples(num_ranks):
    trainers, reference = FakeGroup(num_ranks, 2.0), FakeGroup(2, -3.0)
    needs = frozenset({"old_logprobs", "ref_logprobs"})
    out = annotate(SAMPLES, needs, groups={"old_logprobs": trainers, "ref_logprobs": reference})
    for before, after in zip(SAMPLES, out, strict=True):
        assert after.index == before.index
        np.testing.assert_array_equal(after.old_logprobs_T, 2.0 * before.token_ids_T)
        np.testing.assert_array_equal(after.ref_logprobs_T, -3.0 * before.token_ids_T)


def test_only_what_is_needed_is_computed():
    trainers = FakeGroup(1, 1.0)
    out = annotate(SAMPLES, frozenset(), groups={"old_logprobs": trainers})
    assert trainers.tokens == 0
    assert all(one.old_logprobs_T is None and one.ref_logprobs_T is None for one in out)


def test_masked_samples_are_not_computed():
    masked = sample(50, index=9, mask_T=np.zeros(50, np.float32))
    trainers = FakeGroup(1, 1.0)
    out = annotate([SAMPLES[0], masked], frozenset({"old_logprobs"}), groups={"old_logprobs": trainers})
    assert trainers.tokens == 5
    assert not out[1].old_logprobs_T.any()
    (only,) = annotate([masked], frozenset({"old_logprobs"}), groups={"old_logprobs": trainers})
    assert not only.old_logprobs_T.any()


def test_process_rewards_are_the_log_ratio_to_the_reference():
    needs = frozenset({"process_rewards", "ref_logprobs", "old_values"})
    groups = {"process_rewards": FakeGroup(2, 2.0), "ref_logprobs": FakeGroup(1, -3.0), "old_values": FakeGroup(1, 7.0)}
    for before, after in zip(SAMPLES, annotate(SAMPLES, needs, groups=groups), strict=True):
        np.testing.assert_array_equal(after.process_rewards_T, 5.0 * before.token_ids_T)
        np.testing.assert_array_equal(after.old_values_T, 7.0 * before.token_ids_T)


def test_need_without_a_worker_is_an_assertion_error():
    with pytest.raises(AssertionError, match="old_values"):
        annotate(SAMPLES, frozenset({"old_values"}), groups={})

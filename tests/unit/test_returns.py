"""Edge cases of r1ray.algo.returns; tests/golden has the plain cases."""

import numpy as np
import pytest

from r1ray.algo import returns

MASK = np.float32([0, 1, 1, 0, 1])


def test_discounting_skips_untrained_tokens():
    rewards = np.float32([9, 0, 0, 9, 1])
    assert returns.reward_to_go(rewards, MASK, gamma=0.5).tolist() == [0, 0.25, 0.5, 0, 1]


def test_lambda_one_gives_the_monte_carlo_return_minus_the_value():
    rng = np.random.default_rng(0)
    rewards, values = rng.normal(size=(2, 5)).astype(np.float32)
    want = (returns.reward_to_go(rewards, MASK, gamma=1.0) - values) * MASK
    np.testing.assert_allclose(returns.gae(rewards, values, MASK, gamma=1.0, lam=1.0), want, atol=1e-6)


def test_lambda_of_a_long_completion_is_close_to_one():
    assert [returns.vapo_lambda(length, alpha=0.05) for length in (1, 20, 40)] == [0, 0, 0.5]


def test_leave_one_out_subtracts_the_mean_of_the_others():
    assert returns.leave_one_out([1.0, 0.0, 0.0]).tolist() == pytest.approx([1, -0.5, -0.5])
    assert returns.leave_one_out([0.1] * 3).tolist() == [0, 0, 0]
    assert returns.leave_one_out([5.0]).tolist() == [0]


def test_leave_one_out_over_tokens_with_equal_rewards_equals_that_over_completions():
    rewards = [np.full(5, value, np.float32) for value in (1.0, 0.0, 0.5)]
    out = returns.token_leave_one_out(rewards, [MASK] * 3)
    for got, want in zip(out, returns.leave_one_out([1.0, 0.0, 0.5]), strict=True):
        np.testing.assert_allclose(got, want * MASK, atol=1e-6)
    assert returns.token_leave_one_out([rewards[0]], [MASK])[0].tolist() == [0] * 5


def test_completion_without_trained_tokens_is_not_in_the_baseline_of_tokens():
    untrained, rewards = np.zeros(5, np.float32), [np.full(5, value, np.float32) for value in (1.0, 0.25)]
    with_it = returns.token_leave_one_out([*rewards, untrained], [MASK, MASK, untrained])
    without = returns.token_leave_one_out(rewards, [MASK] * 2)
    assert [r_T.tolist() for r_T in with_it] == [*(r_T.tolist() for r_T in without), [0] * 5]
    assert with_it[0].tolist() == pytest.approx((0.75 * MASK).tolist())
    alone = returns.token_leave_one_out([rewards[0], untrained], [MASK, untrained])
    assert [r_T.tolist() for r_T in alone] == [[0] * 5] * 2


def test_whitening_uses_exactly_the_tokens_in_the_mask():
    values = [np.float32([99, 1, 2, 99, 3]), np.float32([4, 99])]
    out = returns.whiten(values, [MASK, np.float32([1, 0])], ddof=0, eps=0.0)
    tokens = np.concatenate([out[0][MASK > 0], out[1][:1]])
    assert tokens.mean() == pytest.approx(0, abs=1e-6)
    assert tokens.std() == pytest.approx(1)
    assert (out[0][MASK == 0] == 0).all() and out[1][1] == 0


@pytest.mark.parametrize("values", [[[0.1, 0.1, 0.1]], [[0.7]], [[]]])
def test_whitening_of_equal_one_or_no_tokens_is_exactly_zero(values):
    arrays = [np.float32(v) for v in values]
    out = returns.whiten(arrays, [np.ones_like(a) for a in arrays], ddof=1, eps=0.0)
    assert [a.tolist() for a in out] == [[0.0] * len(v) for v in values]


def test_only_the_best_of_a_group_has_an_advantage():
    assert returns.best_of_group([1.0, 1.0, 0.0]).tolist() == [0, 0, 0], "two are as good: neither is missed"
    assert returns.best_of_group([1.0]).tolist() == [0]

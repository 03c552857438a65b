"""r1ray.algo.ops compared with closed forms."""

import math

import numpy as np
import pytest
import torch

from r1ray.algo import ops


def test_masked_removes_undefined_values_from_gradients():
    value = torch.tensor([1.0, math.inf, math.nan], requires_grad=True)
    mask = torch.tensor([1.0, 0.0, 0.0])
    ops.masked(value, mask).square().sum().backward()
    assert value.grad is not None
    assert value.grad.tolist() == [2.0, 0.0, 0.0]


@pytest.mark.parametrize(("estimator", "expected"), [("k1", 0.5), ("k2", 0.125), ("k3", math.exp(-0.5) + 0.5 - 1)])
def test_kl_estimators(estimator, expected):
    logp, ref = torch.tensor([-1.0]), torch.tensor([-1.5])
    assert ops.kl(logp, ref, estimator=estimator).item() == pytest.approx(expected)


def test_k3_gradient_is_one_minus_the_ratio():
    """d/dlogp [exp(ref - logp) - (ref - logp) - 1] = 1 - exp(ref - logp)."""
    logp = torch.tensor([-1.0, -3.0], requires_grad=True)
    ref = torch.tensor([-1.5, -2.0])
    ops.kl(logp, ref, estimator="k3").sum().backward()
    assert logp.grad is not None
    torch.testing.assert_close(logp.grad, 1 - (ref - logp.detach()).exp())


@pytest.mark.parametrize("estimator", ["k1", "k3"])
def test_kl_estimators_are_unbiased(estimator):
    """Over samples from p the mean of k1 and of k3 is KL(p || q)."""
    p, q = torch.tensor([0.7, 0.2, 0.1]), torch.tensor([0.5, 0.3, 0.2])
    exact = (p * (p / q).log()).sum()
    assert (p * ops.kl(p.log(), q.log(), estimator=estimator)).sum() == pytest.approx(exact.item(), rel=1e-5)


def test_extreme_ratio_stays_finite():
    logs = torch.tensor([500.0, -500.0], requires_grad=True)
    out = ops.clipped_surrogate(logs, torch.tensor([-1.0, -1.0]), clip_low=0.2, clip_high=0.2, dual_clip=None)
    out.objective_L.sum().backward()
    assert logs.grad is not None
    assert torch.isfinite(out.objective_L).all()
    assert torch.isfinite(logs.grad).all()


def test_each_side_is_clipped_at_its_own_width():
    log_ratio, advantages = torch.tensor([0.5, 1.4]).log(), torch.tensor([-1.0, 1.0])
    out = ops.clipped_surrogate(log_ratio, advantages, clip_low=0.2, clip_high=0.28, dual_clip=None)
    assert out.objective_L.tolist() == pytest.approx([-0.8, 1.28])


def test_dual_clip_bounds_only_negative_advantages():
    log_ratio = torch.tensor([5.0, 5.0]).log()
    advantages = torch.tensor([-1.0, 1.0])
    out = ops.clipped_surrogate(log_ratio, advantages, clip_low=0.2, clip_high=9.0, dual_clip=3.0)
    assert out.objective_L.tolist() == pytest.approx([-3.0, 5.0])
    assert out.clipped_L.tolist() == [1.0, 0.0]


def test_clipped_tokens_have_no_gradient():
    log_ratio = torch.tensor([0.5, -0.5, 0.5, -0.5], requires_grad=True)
    advantages = torch.tensor([1.0, 1.0, -1.0, -1.0])
    out = ops.clipped_surrogate(log_ratio, advantages, clip_low=0.2, clip_high=0.2, dual_clip=None)
    out.objective_L.sum().backward()
    assert log_ratio.grad is not None
    assert out.clipped_L.tolist() == [1.0, 0.0, 0.0, 1.0]
    assert (log_ratio.grad == 0).tolist() == [True, False, False, True]


def test_equal_rewards_give_exact_zeros_even_without_eps():
    advantages = ops.normalise_group([0.1] * 7, std_ddof=1, eps=0.0, scale_by_std=True)
    assert advantages.tolist() == [0.0] * 7


MASKS = [np.float32([0, 1, 1]), np.float32([0, 1, 1, 1, 1]), np.float32([0, 0])]


@pytest.mark.parametrize(
    ("aggregation", "expected"),
    [
        ("seq_mean_token_mean", (1.5 + 3.0) / 2),
        ("token_mean", (1 + 2 + 3 * 4) / 6),
        ("seq_mean_token_sum", (3 + 12) / 2),
        ("seq_mean_token_sum_norm", (3 + 12) / 2 / 8),
    ],
)
def test_aggregation_does_not_count_masked_sequences(aggregation, expected):
    losses = [np.float32([9, 1, 2]), np.float32([9, 3, 3, 3, 3]), np.float32([9, 9])]
    weights = ops.aggregation_weights(MASKS, aggregation=aggregation, max_length=8)
    total = sum(float((w * loss).sum()) for w, loss in zip(weights, losses, strict=True))
    assert total == pytest.approx(expected)


def test_weights_are_0_without_trained_tokens():
    weights = ops.aggregation_weights([np.zeros(3, np.float32)], aggregation="seq_mean_token_mean", max_length=8)
    assert weights[0].tolist() == [0, 0, 0]

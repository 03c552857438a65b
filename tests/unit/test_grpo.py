"""GRPO as an algorithm: groups, masks, minibatches, weights, loss."""

import numpy as np
import pytest
import torch
from algo_samples import algo_config, sample

from r1ray.algo import make
from r1ray.algo.base import LossInput
from r1ray.algo.grpo import Grpo


def grpo(**overrides):
    return Grpo(cfg=algo_config(**overrides), max_response_length=16)


def loss_input(logprobs, *, mask, old=None, rollout=None, ref=None, advantages=None):
    logprobs = torch.tensor(logprobs) if not isinstance(logprobs, torch.Tensor) else logprobs
    zeros = torch.zeros(len(mask))
    return LossInput(
        logprobs_L=logprobs,
        entropy_L=zeros + 2.0,
        old_logprobs_L=logprobs.detach() if old is None else torch.tensor(old),
        rollout_logprobs_L=logprobs.detach() if rollout is None else torch.tensor(rollout),
        ref_logprobs_L=None if ref is None else torch.tensor(ref),
        advantages_L=zeros + 1.0 if advantages is None else torch.tensor(advantages),
        mask_L=torch.tensor(mask),
        segment_L=zeros.int(),
        pair_L=zeros.int() - 1,
    )


def test_groups_are_identified_by_id_in_any_order():
    rewards = {"a": [1.0, 0.0, 0.0], "b": [5.0, 7.0, 9.0]}
    samples = [sample(3, reward=rewards[g][k], group=g, index=k) for k in range(3) for g in ("a", "b")]
    out = grpo(adv_eps=0.0).advantages(samples, {})
    got = {(s.group_id, s.index): float(s.advantages_T[-1]) for s in out}
    assert got["a", 0] == pytest.approx(1.1547005)
    assert got["a", 2] == pytest.approx(-0.5773503)
    assert [got["b", k] for k in range(3)] == pytest.approx([-1, 0, 1])


def test_advantage_is_set_only_on_the_completion_of_its_sample():
    samples = [sample(5, prompt=2, reward=float(k == 1), index=k) for k in range(3)]
    out = grpo(adv_eps=0.0).advantages(samples, {})
    assert [s.index for s in out] == [0, 1, 2]
    assert out[1].advantages_T.tolist() == pytest.approx([0, 0] + [1.1547005] * 3)
    assert out[0].advantages_T.tolist() == pytest.approx([0, 0] + [-0.5773503] * 3)


def test_unusable_completion_is_masked_and_not_in_the_baseline():
    samples = [sample(3, reward=r, index=k, usable=k != 2) for k, r in enumerate([1.0, 0.0, 100.0])]
    out = grpo(adv_eps=0.0).advantages(samples, {})
    assert [float(s.advantages_T[-1]) for s in out] == pytest.approx([0.70710678, -0.70710678, 0])
    assert not out[2].mask_T.any()


def test_masked_truncated_completion_stays_in_the_baseline():
    samples = [sample(3, reward=r, index=k) for k, r in enumerate([1.0, 0.0, 0.0])]
    samples.append(sample(3, reward=1.0, index=3, mask_T=np.zeros(3, np.float32)))
    out = grpo(adv_eps=0.0, scale_by_std=False).advantages(samples, {})
    assert [float(s.advantages_T[-1]) for s in out] == pytest.approx([0.5, -0.5, -0.5, 0])


def test_minibatches_contain_every_trained_sample_once_in_random_order():
    algo = grpo(num_minibatches=4)
    samples = [sample(3, index=k) for k in range(15)] + [sample(3, index=15, mask_T=np.zeros(3, np.float32))]
    parts = algo.minibatches(samples, {}, np.random.default_rng(0))
    assert [len(part) for part in parts] == [4, 4, 4, 3]
    assert sorted(s.index for part in parts for s in part) == list(range(15))
    assert [s.index for s in parts[0]] != [0, 1, 2, 3]
    again = algo.minibatches(samples, {}, np.random.default_rng(0))
    assert [[s.index for s in part] for part in again] == [[s.index for s in part] for part in parts]


def test_step_without_trained_samples_makes_no_update():
    samples = [sample(3, mask_T=np.zeros(3, np.float32))]
    assert grpo(num_minibatches=2).minibatches(samples, {}, np.random.default_rng(0)) == []


def test_needs_depend_on_the_configuration():
    assert grpo(kl_coef=0.0, num_minibatches=1).needs == frozenset()
    assert grpo(kl_coef=0.1, num_minibatches=1).needs == {"ref_logprobs"}
    assert grpo(kl_coef=0.0, num_minibatches=2).needs == {"old_logprobs"}


def test_kl_is_a_separate_term_whose_weights_include_the_coefficient():
    samples = [sample(4, index=0), sample(7, index=1)]
    with_kl = grpo(kl_coef=0.5).weights(samples, {})
    for weights in with_kl:
        np.testing.assert_allclose(weights["kl"], 0.5 * weights["policy"])
    assert set(grpo(kl_coef=0.0).weights(samples, {})[0]) == {"policy"}


def test_dr_grpo_divides_by_the_response_limit():
    (weights,) = grpo(kl_coef=0.0, aggregation="seq_mean_token_sum_norm").weights([sample(4)], {})
    assert weights["policy"].tolist() == pytest.approx([0, 1 / 16, 1 / 16, 1 / 16])


def test_first_update_has_ratio_one_no_clipping_and_no_kl():
    out = grpo(kl_coef=0.1).loss(loss_input([-1.0, -2.0, -0.1], mask=[0.0, 1.0, 1.0], ref=[0.0, -2.0, -0.1]))
    assert out.metrics["ratio/max"].tolist() == [1, 1, 1]
    assert out.metrics["clip_fraction"].sum() == 0
    assert out.metrics["kl_ref"].sum() == 0
    assert out.terms["kl"].sum() == 0
    assert out.terms["policy"][1:].tolist() == [-1, -1]


def test_mismatch_metrics_compare_engine_and_trainer_before_the_step():
    row = loss_input([-9.0, -9.0], mask=[0.0, 1.0], old=[0.0, -1.0], rollout=[0.0, -1.5])
    out = grpo(kl_coef=0.0).loss(row)
    assert out.metrics["mismatch/logprob_gap/max"].tolist() == [0, 0.5]
    # k3(engine || trainer): z = old - rollout = 0.5
    assert out.metrics["mismatch/kl"][1].item() == pytest.approx(np.exp(0.5) - 0.5 - 1)


def test_undefined_values_outside_the_mask_do_not_affect_loss_or_gradient():
    logprobs = torch.tensor([-1.0, -2.0, -3.0], requires_grad=True)
    bad = [float("nan"), -2.1, float("inf")]
    row = loss_input(logprobs, mask=[0.0, 1.0, 0.0], old=bad, rollout=bad, ref=bad, advantages=bad)
    out = grpo(kl_coef=0.1).loss(row)
    total = torch.stack([term.sum() for term in out.terms.values()]).sum()
    total.backward()
    assert torch.isfinite(total)
    assert all(torch.isfinite(value).all() for value in out.metrics.values())
    assert logprobs.grad is not None
    assert logprobs.grad[[0, 2]].tolist() == [0, 0]
    assert logprobs.grad[1] != 0


def test_gradient_of_the_policy_term_is_minus_advantage_times_ratio():
    logprobs = torch.tensor([-1.0, -2.0], requires_grad=True)
    row = loss_input(logprobs, mask=[1.0, 1.0], old=[-1.1, -1.9], advantages=[2.0, -3.0])
    grpo(kl_coef=0.0).loss(row).terms["policy"].sum().backward()
    assert logprobs.grad is not None
    assert logprobs.grad.tolist() == pytest.approx([-2 * np.exp(0.1), 3 * np.exp(-0.1)], rel=1e-5)


def test_algorithms_are_found_by_name_or_import_path():
    assert isinstance(make(algo_config(), max_response_length=8), Grpo)
    assert isinstance(make(algo_config(name="r1ray.algo.grpo:Grpo"), max_response_length=8), Grpo)
    with pytest.raises(ValueError, match="did you mean grpo"):
        make(algo_config(name="grop"), max_response_length=8)

"""What distinguishes each algorithm, on small numbers; test_algo_contract has what all have in common."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from algo_samples import algo_config, group_of, sample
from test_grpo import loss_input

from r1ray.algo import make


def algorithm(option, *, limit=16, **overrides):
    return make(algo_config(option, **overrides), max_response_length=limit)


def advantages(option, samples, **overrides):
    algo = algorithm(option, **overrides)
    return [float(s.advantages_T[-1]) for s in algo.advantages(samples, algo.initial_state())]


def groups(*rewards):
    return [
        sample(3 + k, reward=r, group=str(g), index=k)
        for g, rewards_G in enumerate(rewards)
        for k, r in enumerate(rewards_G)
    ]


def gradient(option, logprobs, *, old, advantages, segments=None, **overrides):
    values = torch.tensor(logprobs, requires_grad=True)
    row = loss_input(values, mask=[1.0] * len(logprobs), old=old, advantages=advantages)
    row = row if segments is None else replace(row, segment_L=torch.tensor(segments))
    out = algorithm(option, **overrides).loss(row)
    out.terms["policy"].sum().backward()
    return values.grad.tolist(), out


def test_dr_grpo_divides_neither_by_standard_deviation_nor_by_length():
    samples = groups([1.0, 0.0, 0.0, 0.0])
    assert advantages("dr_grpo", samples) == pytest.approx([0.75, -0.25, -0.25, -0.25])
    weights = algorithm("dr_grpo", limit=10).weights(samples, {})
    assert {float(w["policy"][-1]) for w in weights} == {np.float32(1 / 40)}


def test_opo_weighs_the_baseline_by_length():
    rewards, lengths = np.array([1.0, 0.0, 0.5]), np.array([2, 3, 4])  # tokens of `groups` after the prompt's one
    want = rewards - np.average(rewards, weights=lengths)
    assert advantages("opo", groups(rewards.tolist())) == pytest.approx(want.tolist())
    assert advantages("opo", groups([0.3, 0.3, 0.3], [1.0])) == [0, 0, 0, 0]
    masked = [sample(9, reward=9.0, group="0", index=3, mask_T=np.zeros(9, np.float32))]
    assert advantages("opo", [*groups(rewards.tolist()), *masked])[:3] == pytest.approx(want.tolist())
    unusable = [sample(9, reward=9.0, group="0", index=3, usable=False)]
    assert advantages("opo", [*groups(rewards.tolist()), *unusable])[:3] == pytest.approx(want.tolist())
    algo = algorithm("opo")
    assert algo.needs == set() and algo.cfg.num_minibatches == 1
    assert {float(w["policy"][-1]) for w in algo.weights(groups([1.0, 0.0]), {})} == {0.5}


def test_lite_ppo_divides_by_the_deviation_of_the_batch():
    rewards = [1.0, 0.0, 0.0, 0.0], [1.0, 1.0, 0.0, 0.5], [1.0, 1.0, 1.0, 1.0]
    std = np.concatenate(rewards).std(ddof=1)
    want = [(r - np.mean(group)) / (std + 1e-4) for group in rewards for r in group]
    assert advantages("lite_ppo", groups(*rewards)) == pytest.approx(want)
    assert advantages("gspo", groups(*rewards), std_over="batch") == pytest.approx(want)
    assert advantages("lite_ppo", groups(*rewards), scale_by_std=False) == pytest.approx(
        [w * (std + 1e-4) for w in want]
    )
    unusable = [sample(3, reward=100.0, group="0", index=9, usable=False)]
    assert advantages("lite_ppo", [*groups(*rewards), *unusable])[:12] == pytest.approx(want)
    assert advantages("lite_ppo", groups([0.1, 0.1], [0.1, 0.1]), adv_eps=0.0) == [0, 0, 0, 0], (
        "no deviation, no division"
    )
    assert advantages("lite_ppo", groups([0.7]), adv_eps=0.0) == pytest.approx([0.7])
    weights = algorithm("lite_ppo").weights(groups([1.0, 0.0]), {})
    assert {float(w["policy"][-1]) for w in weights} == {np.float32(1 / 5)}


def test_dapo_averages_over_tokens_and_clips_higher():
    samples = groups([1.0, 0.0])
    assert {float(w["policy"][-1]) for w in algorithm("dapo").weights(samples, {})} == {np.float32(1 / 5)}
    grad, _ = gradient("dapo", np.log([1.25, 1.3]).tolist(), old=[0.0, 0.0], advantages=[1.0, 1.0])
    assert grad == pytest.approx([-1.25, 0])


def test_rloo_excludes_a_completion_from_its_own_baseline():
    assert advantages("rloo", groups([1.0, 0.0, 0.0]), kl_coef=0.0) == pytest.approx([1, -0.5, -0.5])


def test_rloo_sums_over_the_tokens_of_a_completion():
    weights = algorithm("rloo", kl_coef=0.0).weights(groups([1.0, 0.0]), {})
    assert {float(w["policy"][-1]) for w in weights} == {0.5}


def test_reinforce_pp_normalises_over_the_step_and_its_baseline_variant_subtracts_the_group_mean():
    easy_and_hard = [
        sample(2, reward=r, group=g, index=k)
        for g, r_G in (("e", [1, 1, 1, 0]), ("h", [1, 0, 0, 0]))
        for k, r in enumerate(r_G)
    ]
    plain = advantages("reinforce_pp", easy_and_hard, kl_coef=0.0)
    assert plain[0] == plain[4] and plain[3] == plain[7], "a correct completion has the same advantage in every group"
    with_baseline = advantages("reinforce_pp_baseline", easy_and_hard, kl_coef=0.0)
    assert with_baseline[4] == pytest.approx(3 * with_baseline[0]), (
        "a correct completion of the hard problem has a larger advantage"
    )
    assert np.mean(with_baseline) == pytest.approx(0, abs=1e-6)
    assert np.std(with_baseline, ddof=1) == pytest.approx(1, rel=1e-5)


def test_reinforce_pp_discounts_rewards():
    algo = algorithm("reinforce_pp", kl_coef=0.0, args={"gamma": 0.5})
    (one,) = algo.advantages([sample(4, reward=1.0)], {})
    centred = np.array([0.25, 0.5, 1.0]) - np.mean([0.25, 0.5, 1.0])
    np.testing.assert_allclose(one.advantages_T[1:], centred / np.sqrt(centred.var() * 1.5 + 1e-8), rtol=1e-5)


def test_logic_rl_is_reinforce_pp_with_the_kl_in_the_loss():
    algo = algorithm("logic_rl")
    assert type(algo) is type(algorithm("reinforce_pp"))
    assert algo.needs == {"ref_logprobs"}
    assert set(algo.weights([sample(3)], {})[0]) == {"policy", "kl"}


@pytest.mark.parametrize(("alpha", "want"), [("paper", 4 / 2), ("verl", 4 / 3)])
def test_gpg_scales_up_for_groups_without_a_gradient(alpha, want):
    samples = groups([1.0, 0.0], [1.0, 1.0])
    assert advantages("gpg", samples, args={"alpha": alpha}) == pytest.approx([want / 2, -want / 2, 0, 0])


def test_gpg_counts_only_usable_completions():
    samples = [*groups([1.0, 0.0], [1.0, 1.0]), sample(3, reward=1.0, group="1", index=2, usable=False)]
    assert advantages("gpg", samples)[:2] == pytest.approx([1, -1])


def test_gpg_does_not_clip():
    grad, out = gradient("gpg", [-1.0, -5.0], old=[-4.0, -0.1], advantages=[2.0, -3.0])
    assert grad == [-2.0, 3.0]
    assert out.metrics["clip_fraction"].sum() == 0
    assert out.metrics["ratio/max"][0] == pytest.approx(np.exp(3.0))


def test_gspo_clips_whole_completions():
    # Mean log-ratios 1e-4 and 1e-2 of two completions with a positive advantage: all tokens of the second are clipped.
    logprobs, old = [-1.0 + 5e-4, -2.0 - 3e-4, -1.0, -1.0], [-1.0, -2.0, -1.0 - 3e-2, -1.0 + 1e-2]
    grad, out = gradient("gspo", logprobs, old=old, advantages=[1.0] * 4, segments=[0, 0, 1, 1])
    assert out.metrics["clip_fraction"].tolist() == [0, 0, 1, 1]
    assert grad[2:] == [0, 0]
    # Both tokens carry J, whose gradient is s A / T each: 2 * s / 2.
    assert grad[:2] == pytest.approx([-np.exp(1e-4)] * 2, rel=1e-3)
    assert out.metrics["ratio/max"][0] == out.metrics["ratio/max"][1]


def test_gspo_ratio_is_the_mean_over_trained_tokens():
    values = torch.tensor([-9.0, -1.0, -2.0], requires_grad=True)
    row = loss_input(values, mask=[0.0, 1.0, 1.0], old=[0.0, -1.2, -2.0])
    assert algorithm("gspo").loss(row).metrics["ratio/max"].tolist()[1:] == pytest.approx([np.exp(0.1)] * 2, rel=1e-5)


def test_cispo_clips_the_weight_and_keeps_every_gradient():
    log_ratios = np.log([0.5, 2.0, 50.0]).tolist()
    grad, out = gradient("cispo", log_ratios, old=[0.0] * 3, advantages=[1.0, -1.0, 1.0])
    assert grad == pytest.approx([-0.5, 2.0, -5.0], rel=1e-5), "no gradient through the weight, no token is clipped"
    assert out.metrics["clip_fraction"].tolist() == [0, 0, 1]


def test_skywork_excludes_equal_groups_from_every_denominator():
    algo = algorithm("skywork_or1")
    samples = groups([1.0, 0.0], [1.0, 1.0])
    out = algo.advantages(samples, algo.initial_state())
    assert [bool(s.mask_T.any()) for s in out] == [True, True, False, False]
    (update,) = algo.minibatches(out, {}, np.random.default_rng(0))
    assert len(update) == 2
    assert sum(float(w["policy"].sum()) for w in algo.weights(update, {})) == pytest.approx(1)
    assert algo.keep(group_of([1, 1])), "no other groups are sampled instead"


def test_skywork_keeps_completions_of_average_reward():
    algo = algorithm("skywork_or1")
    out = algo.advantages(groups([0.0, 0.5, 1.0]), algo.initial_state())
    assert all(s.mask_T.any() for s in out)
    assert out[1].advantages_T.tolist() == [0, 0, 0, 0]


@pytest.mark.parametrize("option", ["light_r1", "deepscaler", "deepcoder"])
def test_option_files_without_code_are_grpo(option):
    assert algo_config(option).name == "grpo"

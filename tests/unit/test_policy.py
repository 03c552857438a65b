"""What all policy-gradient algorithms share: filter, place of KL, controllers, entropy bonus, off-policy correction."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from algo_samples import algo_config, group_of, sample
from test_grpo import loss_input

from r1ray.algo import controllers
from r1ray.algo.grpo import Grpo


def grpo(**overrides):
    return Grpo(cfg=algo_config(**overrides), max_response_length=16)


@pytest.mark.parametrize(
    ("corrects", "low", "high", "kept"),
    [
        ([0, 0], 0.0, 1.0, False),
        ([1, 1], 0.0, 1.0, False),
        ([1, 0], 0.0, 1.0, True),
        ([1, 0], 0.5, 1.0, False),  # strictly
        ([1, 0], None, 0.5, False),
        ([1, 1], 0.5, None, True),
        ([1, None], 0.0, 1.0, False),  # only completions that could be scored count
        ([None, None], 0.0, 1.0, True),  # no correctness
    ],
)
def test_filter_selects_groups_by_solve_rate(corrects, low, high, kept):
    assert grpo(filter={"min_solve_rate": low, "max_solve_rate": high}).keep(group_of(corrects)) is kept


def test_filter_uses_correctness_and_not_the_shaped_reward():
    mixed_rewards = group_of([1, 1], rewards=[1.0, 0.5])
    assert not grpo(filter={"min_solve_rate": 0.0, "max_solve_rate": 1.0}).keep(mixed_rewards)
    assert grpo(filter={"drop_equal": True}).keep(mixed_rewards)
    assert not grpo(filter={"drop_equal": True}).keep(group_of([1, 0, None], rewards=[1.0, 1.0, 0.0]))
    assert grpo().keep(group_of([1, 1]))


def kl_samples():
    old, ref = np.float32([0, -1.0, -2.0]), np.float32([0, -1.1, -2.5])
    return [
        sample(3, reward=1.0, index=0, old_logprobs_T=old, ref_logprobs_T=ref),
        sample(3, reward=0.0, index=1, old_logprobs_T=old, ref_logprobs_T=old),
    ]


def test_kl_in_the_reward_is_not_a_term_of_the_loss():
    algo = grpo(kl_in="reward", kl_coef=0.5, kl_estimator="k1", scale_by_std=False)
    assert algo.needs == {"old_logprobs", "ref_logprobs"}
    assert algo.rewards(kl_samples(), {}).tolist() == pytest.approx([1 - 0.5 * 0.6, 0])
    tokens = algo.token_rewards(kl_samples(), {})
    np.testing.assert_allclose(tokens[0], [0, -0.05, 1 - 0.25], atol=1e-6)
    assert set(algo.weights(kl_samples(), {})[0]) == {"policy"}
    out = algo.loss(loss_input([-1.0, -2.0], mask=[0.0, 1.0], ref=[0.0, -2.5]))
    assert set(out.terms) == {"policy"}
    assert out.metrics["kl_ref"][1] > 0
    advantages = [float(s.advantages_T[-1]) for s in algo.advantages(kl_samples(), {})]
    assert advantages == pytest.approx([0.35, -0.35])


def test_completion_without_trained_tokens_gets_no_kl_penalty():
    (masked,) = kl_samples()[:1]
    masked = sample(
        3,
        reward=1.0,
        mask_T=np.zeros(3, np.float32),
        old_logprobs_T=np.float32([np.nan] * 3),
        ref_logprobs_T=masked.ref_logprobs_T,
    )
    algo = grpo(kl_in="reward", kl_coef=0.5)
    assert algo.rewards([masked], {}).tolist() == [1.0]
    assert algo.token_rewards([masked], {})[0].tolist() == [0, 0, 0]


def test_kl_coefficient_adapts_to_its_target():
    algo = grpo(kl_coef=0.2, kl_target=0.5, kl_horizon=1024, prompts_per_step=64, group_size=8)
    state = algo.initial_state()
    assert state == {"kl_coef": 0.2}
    more = algo.update_state(state, {"kl_ref": 9.0})
    assert more["kl_coef"] == pytest.approx(0.2 * (1 + 0.2 * 512 / 1024))
    assert algo.update_state(state, {"kl_ref": 0.45})["kl_coef"] == pytest.approx(0.2 * (1 - 0.1 * 0.5))
    assert algo.update_state(state, {})["kl_coef"] == 0.2, "a step without an update has no measurement"
    assert algo.update_state(state, {"kl_ref": float("nan")})["kl_coef"] == 0.2
    assert algo.update_state({}, {"kl_ref": 9.0}) == more, "a state from before the controller was turned on"
    (weights,) = algo.weights([sample(3)], more)
    np.testing.assert_allclose(weights["kl"], more["kl_coef"] * weights["policy"])
    samples = kl_samples()
    in_reward = grpo(kl_in="reward", kl_coef=0.2, kl_target=0.5, kl_estimator="k1")
    assert in_reward.rewards(samples, {"kl_coef": 0.5}).tolist() == pytest.approx([1 - 0.5 * 0.6, 0])


def test_entropy_bonus_is_active_only_below_its_target():
    algo = grpo(entropy_target=0.2, entropy_coef_step=0.001, entropy_coef_max=0.0015)
    assert algo.needs_entropy_grad
    state = algo.initial_state()
    assert state == {"entropy_coef": 0.0, "entropy_bonus": 0.0}
    for entropy, coef, bonus in ((0.1, 0.001, 0.001), (0.1, 0.0015, 0.0015), (0.3, 0.0005, 0.0), (0.3, 0.0, 0.0)):
        state = algo.update_state(state, {"entropy": entropy})
        assert state == pytest.approx({"entropy_coef": coef, "entropy_bonus": bonus})
        (weights,) = algo.weights([sample(3)], state)
        np.testing.assert_allclose(weights["entropy"], bonus * weights["policy"])


def test_entropy_bonus_raises_entropy_and_needs_a_coefficient():
    assert not grpo().needs_entropy_grad
    row = loss_input([-1.0, -2.0], mask=[0.0, 1.0])
    assert "entropy" not in grpo(kl_coef=0.0).loss(row).terms
    out = grpo(kl_coef=0.0, entropy_coef=0.01).loss(row)
    assert out.terms["entropy"].tolist() == [0, -2.0]
    (weights,) = grpo(kl_coef=0.0, entropy_coef=0.01).weights([sample(3)], {})
    np.testing.assert_allclose(weights["entropy"], 0.01 * weights["policy"])


# Two sequences; log-ratios of trainer and engine: 0.5, 0.5 and -1, 2; cap 2.
GAPS = [0.0, 0.5, 0.5, 0.0, -1.0, 2.0]
SEGMENTS = [0, 0, 0, 1, 1, 1]
CORRECTIONS = {
    "token_truncate": [np.exp(0.5), np.exp(0.5), np.exp(-1), 2.0],
    "token_mask": [np.exp(0.5), np.exp(0.5), np.exp(-1), 0.0],
    "sequence_truncate": [2.0, 2.0, 2.0, 2.0],
    "sequence_mask": [0.0, 0.0, 0.0, 0.0],
}
CAPPED = {"token_truncate": [0, 0, 0, 1], "token_mask": [0, 0, 0, 1]}


def corrected(mode, *, gaps=GAPS, **overrides):
    mask = torch.tensor([0.0, 1, 1, 0, 1, 1])
    logprobs = torch.tensor([0.0, -1.0, -1.2, 0.0, -0.5, -2.0], requires_grad=True)
    old = torch.tensor([0.0, -1.0, -1.0, 0.0, -1.0, -2.2])
    row = loss_input(
        logprobs, mask=mask.tolist(), old=old.tolist(), rollout=(old - torch.tensor(gaps)).tolist(), ref=old.tolist()
    )
    out = grpo(importance_sampling=mode, **overrides).loss(replace(row, segment_L=torch.tensor(SEGMENTS)))
    return logprobs, out, mask > 0


@pytest.mark.parametrize("mode", CORRECTIONS)
def test_policy_term_is_weighted_by_trainer_over_engine(mode):
    """Decoupled PPO: the clip is around the trainer's old log-probs, the weight corrects from the engine's to those."""
    _, plain, mask = corrected("none")
    _, out, _ = corrected(mode)
    want = torch.tensor(CORRECTIONS[mode], dtype=torch.float32)
    torch.testing.assert_close(out.terms["policy"][mask], want * plain.terms["policy"][mask])
    torch.testing.assert_close(out.terms["kl"], plain.terms["kl"])
    assert out.metrics["importance_sampling/capped"][mask].tolist() == CAPPED.get(mode, [1, 1, 1, 1])
    torch.testing.assert_close(out.metrics["importance_sampling/mean"][mask], want)


def test_sequence_weights_below_the_cap_are_unchanged():
    _, out, mask = corrected("sequence_mask", gaps=[0, 0.1, 0.2, 0, -1.0, 0.5])
    want = torch.tensor([0.3, 0.3, -0.5, -0.5]).exp()
    torch.testing.assert_close(out.metrics["importance_sampling/mean"][mask], want)


def test_equal_engine_and_trainer_need_no_correction():
    for mode in CORRECTIONS:
        _, plain, _ = corrected("none", gaps=[0.0] * 6)
        _, out, _ = corrected(mode, gaps=[0.0] * 6)
        torch.testing.assert_close(out.terms["policy"], plain.terms["policy"], rtol=0, atol=0)


def test_correction_has_no_gradient():
    logprobs, out, mask = corrected("token_truncate", kl_coef=0.0)
    out.terms["policy"].sum().backward()
    plain_logprobs, plain, _ = corrected("none", kl_coef=0.0)
    plain.terms["policy"].sum().backward()
    want = torch.tensor(CORRECTIONS["token_truncate"], dtype=torch.float32) * plain_logprobs.grad[mask]
    torch.testing.assert_close(logprobs.grad[mask], want)


def test_entropy_controller_stays_within_its_bounds():
    up = [controllers.adapted_entropy_coef(0.4, entropy=0.1, target=0.2, step=0.2, largest=0.5)]
    assert up == [0.5]
    assert controllers.adapted_entropy_coef(0.1, entropy=0.2, target=0.2, step=0.2, largest=0.5) == 0.0

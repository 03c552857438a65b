"""Objectives of critic and process reward model, and how PPO, VAPO and PRIME use their outputs."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from algo_samples import algo_config, sample

from r1ray.algo import make, roles_of
from r1ray.algo.base import LossInput
from r1ray.algo.critic import CriticObjective
from r1ray.algo.implicit_prm import ImplicitPrmObjective
from r1ray.check import load
from r1ray.cli import compose
from r1ray.stages.rl import trainer_kwargs
from r1ray.types import Sample


def algorithm(option: str, **args: Any) -> Any:
    cfg = algo_config(option, group_size=4, prompts_per_step=2, num_minibatches=1)
    return make(cfg.model_copy(update={"args": {**cfg.args, **args}}), max_response_length=12)


def row(samples: list[Sample], **changes: Any) -> LossInput:
    """Samples concatenated to one row, in float64."""

    def joined(name: str) -> torch.Tensor | None:
        parts = [getattr(s, f"{name}_T") for s in samples]
        return None if parts[0] is None else torch.tensor(np.concatenate(parts).astype(np.float64))

    mask_L = joined("mask")
    assert mask_L is not None
    segment = np.repeat(np.arange(len(samples)), [len(s.mask_T) for s in samples])
    fields: dict[str, Any] = {
        "logprobs_L": joined("rollout_logprobs"), "entropy_L": torch.zeros_like(mask_L), "segment_L": torch.tensor(segment),
        "old_logprobs_L": joined("rollout_logprobs"), "rollout_logprobs_L": joined("rollout_logprobs"),
        "ref_logprobs_L": joined("ref_logprobs"), "advantages_L": joined("advantages"), "mask_L": mask_L,
        "pair_L": torch.tensor(segment), "old_values_L": joined("old_values"), "returns_L": joined("returns"),
        "outcomes_L": joined("outcomes"),
    }  # fmt: skip
    return LossInput(**(fields | changes))


def step(*, rewards: Any = (1.0, 0.0, 0.0, 1.0), correct: Any = (True, False, False, True)) -> list[Sample]:
    """A group of four with everything that an algorithm may need."""
    out = []
    for i, (reward, right) in enumerate(zip(rewards, correct, strict=True)):
        one = sample(5 + i, prompt=2, reward=reward, group="g", index=i, seed=i)
        assert one.score is not None
        rng, size = np.random.default_rng(i), len(one.mask_T)
        draws = {
            name: (rng.normal(size=size) * one.mask_T).astype(np.float32) for name in ("old_values", "process_rewards")
        }
        out.append(
            replace(
                one,
                score=replace(one.score, correct=right),
                old_values_T=draws["old_values"],
                process_rewards_T=draws["process_rewards"],
                ref_logprobs_T=one.rollout_logprobs_T * np.float32(0.9),
                old_logprobs_T=one.rollout_logprobs_T,
            )
        )
    return out


def test_roles_follow_from_the_algorithm() -> None:
    cfg = {name: algo_config(name) for name in ("grpo", "ppo", "vapo", "prime")}
    assert roles_of(cfg["grpo"]) == ["policy", "reference"]
    assert roles_of(cfg["ppo"]) == roles_of(cfg["vapo"]) == ["policy", "critic"]
    assert roles_of(cfg["prime"]) == ["policy", "prm", "reference"]
    assert roles_of(cfg["ppo"].model_copy(update={"name": "ppoo"})) == ["policy"], "the check reports it"


def test_value_loss_is_clipped() -> None:
    objective = CriticObjective(updates_per_step=1, value_clip=0.5)
    values_L = torch.tensor([9.0, 0.2, 2.0, 0.9, 0.0], requires_grad=True, dtype=torch.float64)
    old_L = torch.tensor([9.0, 0.0, 1.0, 1.0, 0.0], dtype=torch.float64)
    returns_L = torch.tensor([5.0, 1.0, 3.0, 0.0, 0.0], dtype=torch.float64)
    given = row(step()[:1], values_L=values_L, old_values_L=old_L, returns_L=returns_L)
    given = replace(given, mask_L=torch.tensor([0.0, 1.0, 1.0, 1.0, 0.0], dtype=torch.float64))
    out = objective.loss(given)
    # A value of 2 whose target is 3 is clipped at 1.5 and has the loss of 1.5; one that moves the wrong way has its own loss.
    assert out.terms["value"].tolist() == pytest.approx([0, 0.5 * 0.8**2, 0.5 * 1.5**2, 0.5 * 0.9**2, 0])
    assert out.metrics["value_clipped"].tolist() == [0, 0, 1, 0, 0]
    out.terms["value"].sum().backward()
    assert values_L.grad is not None
    assert values_L.grad.tolist() == pytest.approx([0, -0.8, 0, 0.9, 0])
    free = CriticObjective(updates_per_step=1, value_clip=0.0).loss(given)
    assert free.terms["value"].tolist() == pytest.approx([0, 0.32, 0.5, 0.405, 0])


def test_critic_updates_split_the_samples_and_weigh_tokens_equally() -> None:
    samples = algorithm("ppo", critic_updates=3).advantages(step(), {})
    objective = algorithm("ppo", critic_updates=3).objectives["critic"]
    parts = objective.minibatches(samples, {}, np.random.default_rng(0))
    assert len(parts) == 3 == objective.updates_per_step
    assert sorted(s.index for part in parts for s in part) == [0, 1, 2, 3]
    weights = objective.weights(samples, {})
    assert np.concatenate([w["value"] for w in weights]).sum() == pytest.approx(1)
    assert len({round(float(x), 9) for w in weights for x in w["value"] if x}) == 1


def test_implicit_reward_is_trained_on_the_sum_of_log_ratios() -> None:
    samples = algorithm("prime").advantages(step(), {})
    objective = ImplicitPrmObjective(beta=0.5, updates_per_step=1)
    given = row(samples)
    logprobs_L = given.logprobs_L.clone().requires_grad_()
    out = objective.loss(replace(given, logprobs_L=logprobs_L))
    weights_L = torch.tensor(np.concatenate([w["outcome"] for w in objective.weights(samples, {})]))
    loss = (weights_L * out.terms["outcome"]).sum()
    wanted = []
    for s, outcome in zip(samples, (1.0, 0.0, 0.0, 1.0), strict=True):
        assert s.ref_logprobs_T is not None and s.outcomes_T is not None
        assert set(s.outcomes_T[s.mask_T > 0]) == {outcome}
        total = 0.5 * float(((s.rollout_logprobs_T - s.ref_logprobs_T) * s.mask_T).sum())
        chance = 1 / (1 + np.exp(-total))
        wanted.append(-np.log(chance if outcome else 1 - chance))
    assert loss.item() == pytest.approx(np.mean(wanted), rel=1e-5)
    loss.backward()
    assert logprobs_L.grad is not None and not logprobs_L.grad[given.mask_L == 0].any()
    right_L = out.metrics["accuracy"]
    assert 0 < float(right_L.mean()) < 1


def test_process_reward_model_makes_the_configured_number_of_updates() -> None:
    for updates in (1, 2):
        algo = algorithm("prime", prm_updates=updates)
        objective, samples = algo.objectives["prm"], algo.advantages(step(), {})
        parts = objective.minibatches(samples, {}, np.random.default_rng(0))
        assert len(parts) == updates == objective.updates_per_step
        assert sorted(s.index for part in parts for s in part) == [0, 1, 2, 3]


def test_policy_is_frozen_during_the_first_steps_of_the_critic() -> None:
    algo = algorithm("vc_ppo", policy_frozen_steps=2)
    state, samples = algo.initial_state(), step()
    for frozen in (True, True, False):
        found = algo.advantages(samples, state)
        assert (algo.minibatches(found, state, np.random.default_rng(0)) == []) == frozen
        assert algo.objectives["critic"].minibatches(found, state, np.random.default_rng(0))
        state = algo.update_state(state, {})


def test_critic_and_policy_have_separate_lambdas() -> None:
    algo = algorithm("vc_ppo")
    for s in algo.advantages(step(), {}):
        assert s.returns_T is not None and s.old_values_T is not None and s.score is not None
        # With lambda 1 the target is the return, whatever the values are.
        np.testing.assert_allclose(s.returns_T[s.mask_T > 0], s.score.reward, atol=1e-5)
    decoupled, coupled = algo, algorithm("vc_ppo", lam_critic=0.0)
    assert not np.allclose(decoupled.advantages(step(), {})[0].returns_T, coupled.advantages(step(), {})[0].returns_T)


def test_advantages_are_whitened_over_the_tokens_of_the_step() -> None:
    samples = algorithm("ppo").advantages(step(), {})
    tokens = np.concatenate([s.advantages_T[s.mask_T > 0] for s in samples if s.advantages_T is not None])
    assert tokens.mean() == pytest.approx(0, abs=1e-6) and tokens.std(ddof=1) == pytest.approx(1, abs=1e-4)


def test_vapo_imitates_only_correct_completions() -> None:
    algo = algorithm("vapo")
    samples = algo.advantages(step(rewards=(0.0, 1.0, 1.0, 0.0)), algo.initial_state())
    weights = [w["imitation"] for w in algo.weights(samples, algo.initial_state())]
    assert [bool(w.any()) for w in weights] == [True, False, False, True]
    assert sum(float(w.sum()) for w in weights) == pytest.approx(0.1), "mu times a mean over their tokens"
    none_correct = algo.advantages(step(correct=(False,) * 4), algo.initial_state())
    assert not any(w["imitation"].any() for w in algo.weights(none_correct, algo.initial_state()))


def test_vapo_lambda_depends_on_length() -> None:
    algo = algorithm("vapo", alpha=0.5)
    short, long = sample(5, prompt=2, reward=1.0), sample(42, prompt=2, reward=1.0)
    assert algo.policy_lambda(short) == pytest.approx(1 - 1 / 1.5)
    assert algo.policy_lambda(long) == pytest.approx(0.95)


def test_prime_process_rewards_vary_advantages_within_a_completion() -> None:
    within = [float(np.ptp(s.advantages_T[s.mask_T > 0])) for s in algorithm("prime").advantages(step(), {})]
    assert min(within) > 0.01
    flat = algorithm("prime", process_coef=0.0).advantages(step(), {})
    assert max(float(np.ptp(s.advantages_T[s.mask_T > 0])) for s in flat if s.advantages_T is not None) < 1e-6


def test_masked_truncated_completion_is_not_in_the_baseline_of_process_rewards() -> None:
    """It has no process rewards."""
    algo, samples = algorithm("prime", process_coef=1e6), step(rewards=(0.0,) * 4)
    nothing_T = np.zeros_like(samples[3].mask_T)
    cut = [*samples[:3], replace(samples[3], mask_T=nothing_T, process_rewards_T=nothing_T)]
    *others, last = algo.advantages(cut, {})
    assert last.advantages_T is not None and not last.advantages_T.any()
    for got, alone in zip(others, algo.advantages(samples[:3], {}), strict=True):
        np.testing.assert_allclose(got.advantages_T, alone.advantages_T, atol=1e-3)


def test_learning_rate_schedule_counts_the_updates_of_the_policy() -> None:
    base = load(compose(["steps=60", "algo=ppo", "algo.num_minibatches=4"])).config
    for frozen, updates in ((0, 240), (50, 40)):
        algo = algorithm("vapo", policy_frozen_steps=frozen, critic_updates=12)
        kwargs_by_role = trainer_kwargs(base, algo)
        assert {role: kwargs["total_updates"] for role, kwargs in kwargs_by_role.items()} == {
            "policy": updates,
            "critic": 720,
        }


def test_prime_process_rewards_have_the_scale_of_outcomes_at_any_length() -> None:
    """A process reward model that is far off cannot outweigh the outcomes."""

    def first(norm: str) -> list[float]:
        far = [replace(s, process_rewards_T=s.process_rewards_T * np.float32(1000)) for s in step()]
        samples = algorithm("prime", process_norm=norm).advantages(far, {})
        return [float(s.advantages_T[s.mask_T > 0][0]) for s in samples if s.advantages_T is not None]

    same = [float(s.advantages_T[s.mask_T > 0][0]) for s in algorithm("prime").advantages(step(), {})]
    assert first("batch") == pytest.approx(same, abs=1e-4)
    assert first("none") != pytest.approx(same, abs=0.1)


def test_policy_that_was_not_frozen_before_a_resume_is_not_frozen_after_it() -> None:
    algo = algorithm("vc_ppo", policy_frozen_steps=5)
    state: Any = {"kl_coef": 0.1}
    for _ in range(3):
        assert algo.minibatches(algo.advantages(step(), state), state, np.random.default_rng(0))
        state = algo.update_state(state, {})

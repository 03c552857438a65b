"""The algorithms' cases of tests/golden/algorithms.json, and a check that no case of any category is skipped silently."""

from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from algo_samples import CONF, algo_config, algo_option, group_of, sample
from golden_cases import CASES, CLAIMED, NOT_YET, cases_of, check, signature

from r1ray.algo import controllers, ops, returns
from r1ray.algo.base import LossInput
from r1ray.algo.gpg import Gpg
from r1ray.algo.grpo import Grpo
from r1ray.algo.gspo import Gspo
from r1ray.algo.policy import spread
from r1ray.algo.reinforce_pp import ReinforcePP
from r1ray.algo.sft import Sft
from r1ray.model.lr_schedule import lr_at


def group_advantages(x):
    """Rewards to advantages through the whole algorithm; groups by `index`, otherwise one group."""
    index = x.get("index", ["g"] * len(x["rewards"]))
    algo = Grpo(
        cfg=algo_config(std_ddof=x.get("ddof", 1), adv_eps=x.get("eps", 0.0), scale_by_std="ddof" in x or "eps" in x),
        max_response_length=8,
    )
    samples = [sample(3, reward=r, group=g, index=i) for i, (r, g) in enumerate(zip(x["rewards"], index, strict=True))]
    return [float(s.advantages_T[-1]) for s in algo.advantages(samples, {})]


def surrogate(x):
    advantages = torch.full((len(x["ratios"]),), x["advantage"])
    # A ratio of 0 has no logarithm; the smallest value that the clamp allows is far below the tolerance.
    log_ratio = torch.tensor(x["ratios"]).clamp(min=1e-30).log()
    out = ops.clipped_surrogate(
        log_ratio, advantages, clip_low=x["eps_low"], clip_high=x["eps_high"], dual_clip=x["dual_clip"]
    )
    return out.objective_L.tolist()


def ppo_loss(x):
    logp, old = torch.tensor(x["logp"]), torch.tensor(x["old_logp"])
    advantages = torch.full_like(logp, x["advantage"])
    out = ops.clipped_surrogate(logp - old, advantages, clip_low=x["eps"], clip_high=x["eps"], dual_clip=None)
    return {
        "ratios": out.ratio_L.tolist(),
        "token_losses": (-out.objective_L).tolist(),
        "loss": -out.objective_L.mean().item(),
        "clip_fraction": out.clipped_L.mean().item(),
    }


def aggregated(losses, *, mask=None, aggregation, max_length=1):
    masks = [np.float32(m) for m in mask] if mask else [np.ones(len(row), np.float32) for row in losses]
    weights = ops.aggregation_weights(masks, aggregation=aggregation, max_length=max_length)
    return sum(float((w * np.float32(row)).sum()) for w, row in zip(weights, losses, strict=True))


def dr_grpo(x):
    # The case divides only by the scale; ours is also a mean over sequences.
    mean = aggregated(x["losses"], aggregation="seq_mean_token_sum_norm", max_length=x["scale"])
    return mean * len(x["losses"])


def microbatches(x):
    weights = ops.aggregation_weights(
        [np.ones(len(row), np.float32) for micro in x["micro"] for row in micro], aggregation="token_mean", max_length=1
    )
    per_micro, k = [], 0
    for micro in x["micro"]:
        per_micro.append(sum(float((weights[k + i] * np.float32(row)).sum()) for i, row in enumerate(micro)))
        k += len(micro)
    return {"correct": sum(per_micro)}


def masked_rows(x):
    return {
        name: aggregated(x["losses"], mask=x["mask"], aggregation=name)
        for name in ("seq_mean_token_mean", "token_mean")
    }


def k3(x):
    return ops.kl(torch.tensor([x["logp"]]), torch.tensor([x["ref"]]), estimator="k3").item()


def sft_nll(x):
    mask = np.float32(x["loss_mask"])
    (weights,) = Sft().weights([sample(len(mask), mask_T=mask)], {})
    return float((weights["nll"] * -np.float32(x["logp"])).sum())


def cosine(x):
    return [
        lr_at(
            t,
            lr=x["lr0"],
            schedule="cosine",
            warmup_updates=0,
            total_updates=x["T"] + 1,
            min_ratio=x["lr_min"] / x["lr0"],
        )
        for t in x["t"]
    ]


def ones(values):
    return np.ones(len(values), np.float32)


def remax(x):
    advantages = returns.remax(x["rewards"], x["greedy_rewards"])
    samples = [sample(1 + length, prompt=1, index=i) for i, length in enumerate(x["lengths"])]
    return [value_T[1:].tolist() for value_T in spread(samples, advantages)]


def reinforce_pp(x):
    """Through the whole algorithm; the outcome is the reward of the last token, which is the only reward here."""
    rewards = [float(np.sum(r_T)) for r_T in x["token_rewards"]]
    assert all(r_T[-1] == reward for r_T, reward in zip(x["token_rewards"], rewards, strict=True))
    cfg = algo_config("reinforce_pp", kl_coef=0.0, std_ddof=x["ddof"], adv_eps=x["eps"])
    algo = ReinforcePP(cfg=cfg, max_response_length=8, args=ReinforcePP.Args(gamma=x["gamma"]))
    samples = [
        sample(len(r_T) + 1, prompt=1, reward=reward, group=str(i))
        for i, (r_T, reward) in enumerate(zip(x["token_rewards"], rewards, strict=True))
    ]
    to_go = [
        returns.reward_to_go(r_T, s.mask_T, gamma=x["gamma"])[1:].tolist()
        for r_T, s in zip(algo.token_rewards(samples, {}), samples, strict=True)
    ]
    return {"returns": to_go, "advantages": [s.advantages_T[1:].tolist() for s in algo.advantages(samples, {})]}


def discounted(x):
    return [returns.reward_to_go(np.float32(r_T), ones(r_T), gamma=x["gamma"]).tolist() for r_T in x["token_rewards"]]


def kl_in_reward(x):
    """All three numbers, from the token rewards of the algorithm."""
    cfg = algo_config("reinforce_pp", kl_coef=x["beta"])
    algo = ReinforcePP(cfg=cfg, max_response_length=8, args=ReinforcePP.Args(gamma=x["gamma"]))
    old, ref = (np.float32([0, *x[name]]) for name in ("logp", "ref_logp"))
    one = sample(len(old), reward=x["reward"], old_logprobs_T=old, ref_logprobs_T=ref)
    without = sample(len(old), reward=0.0, old_logprobs_T=old, ref_logprobs_T=ref)
    (rewards_T,), (penalties_T,) = algo.token_rewards([one], {}), algo.token_rewards([without], {})
    return {
        "kl": (-penalties_T[1:] / x["beta"]).tolist(),
        "token_rewards": rewards_T[1:].tolist(),
        "returns": returns.reward_to_go(rewards_T, one.mask_T, gamma=x["gamma"])[1:].tolist(),
    }


def gpg_verl(x):
    assert x["F_norm"] == 1
    samples = [
        sample(2, reward=r, group=str(g), index=k)
        for g, rewards in enumerate(x["groups"])
        for k, r in enumerate(rewards)
    ]
    algo = Gpg(cfg=algo_config("gpg"), max_response_length=8, args=Gpg.Args(alpha="verl"))
    advantages = iter([float(s.advantages_T[-1]) for s in algo.advantages(samples, {})])
    return {
        "alpha": algo._alpha([np.array(rewards) for rewards in x["groups"]]),
        "advantages": [[next(advantages) for _ in rewards] for rewards in x["groups"]],
    }


def by_expectation(x):
    """Two algorithms have only rewards as input: Dr. GRPO's are 0 or 1, pass@k's are graded."""
    if set(x["rewards"]) <= {0, 1}:
        return group_advantages(x)
    return returns.best_of_group(x["rewards"]).tolist()


def prime_returns(x):
    assert len(x["outcome"]) == x["K"]
    implicit = [np.float32(r_T) for r_T in x["implicit_token_rewards"]]
    masks = [ones(r_T) for r_T in implicit]
    process = returns.token_leave_one_out(implicit, masks)
    outcome = [np.zeros_like(r_T) for r_T in implicit]
    for r_T, advantage in zip(outcome, returns.leave_one_out(x["outcome"]), strict=True):
        r_T[-1] = advantage
    to_go = [
        returns.reward_to_go(p_T, m_T, gamma=x["gamma"]) + returns.reward_to_go(o_T, m_T, gamma=x["gamma"])
        for p_T, o_T, m_T in zip(process, outcome, masks, strict=True)
    ]
    return {
        name: [r_T.tolist() for r_T in r] for name, r in (("rm_loo", process), ("gt_loo", outcome), ("returns", to_go))
    }


def generalised(x):
    rewards, values = np.float32(x["rewards"]), np.float32(x["values"])
    mask = np.float32(x["mask"]) if "mask" in x else ones(rewards)
    advantages = returns.gae(rewards, values, mask, gamma=x["gamma"], lam=x["lam"])
    if "mask" in x or x["lam"] == 0:
        return {"advantages": advantages.tolist()}
    deltas = returns.gae(rewards, values, mask, gamma=x["gamma"], lam=0.0)
    return {"deltas": deltas.tolist(), "advantages": advantages.tolist(), "returns": (advantages + values).tolist()}


def vapo_lambdas(x):
    assert x["clamp_min"] == 0
    return [returns.vapo_lambda(length, alpha=x["alpha"]) for length in x["lengths"]]


def row_of(logprobs, *, old, advantages):
    """One sequence without a prompt."""
    zeros = torch.zeros(len(logprobs))
    return LossInput(
        logprobs_L=torch.tensor(logprobs),
        entropy_L=zeros,
        old_logprobs_L=torch.tensor(old),
        rollout_logprobs_L=torch.tensor(old),
        ref_logprobs_L=None,
        advantages_L=zeros + advantages,
        mask_L=zeros + 1,
        segment_L=zeros.int(),
        pair_L=zeros.int() - 1,
    )


def gspo_ratio(x):
    algo = Gspo(cfg=algo_config("gspo"), max_response_length=8)
    (ratio,) = set(algo.loss(row_of(x["log_ratios"], old=[0.0] * 3, advantages=1.0)).metrics["ratio/max"].tolist())
    return ratio


def gpg_loss(x):
    algo = Gpg(cfg=algo_config("gpg"), max_response_length=8)
    return algo.loss(row_of(x["logp"], old=[-9.0, -9.0], advantages=x["advantage"])).terms["policy"].tolist()


def truncated_weight(x):
    gap = torch.tensor(x["train_logp"]) - torch.tensor(x["rollout_logp"])
    weight = ops.rollout_weight(gap, torch.zeros(len(gap)).int(), mode="token_truncate", cap=x["C"])
    assert weight.above_L.tolist() == [0, 1, 0]
    return weight.weight_L.tolist()


def adaptive_kl(x):
    return controllers.adapted_kl_coef(
        x["beta"], kl=x["current_kl"], target=x["target"], num_samples=x["n_steps"], horizon=x["horizon"]
    )


def adaptive_entropy(x):
    """Through the algorithm's state, step by step."""
    assert x["min"] == 0
    cfg = algo_config(
        "skywork_or1",
        entropy_coef=x["coef0"],
        entropy_target=x["target"],
        entropy_coef_step=x["delta"],
        entropy_coef_max=x["max"],
    )
    algo = Grpo(cfg=cfg, max_response_length=8)
    state, coefficients, active = algo.initial_state(), [], []
    for entropy in x["entropies"]:
        state = algo.update_state(state, {"entropy": entropy})
        coefficients.append(state["entropy_coef"])
        active.append(int(state["entropy_bonus"] > 0))
        assert state["entropy_bonus"] in (0, state["entropy_coef"])
    return {"coef": coefficients, "active": active}


def kept(groups, **options):
    algo = Grpo(cfg=algo_config(**options), max_response_length=8)
    return {"kept": [i for i, corrects in enumerate(groups) if algo.keep(group_of(corrects))]}


def dynamic_sampling(x):
    groups = [[1] * right + [0] * (x["G"] - right) for right in x["group_correct"]]
    return kept(groups, filter=algo_option("dapo")["filter"])


def pass_rate_filter(x):
    return kept(x["rewards"], filter={"min_solve_rate": x["low"], "max_solve_rate": x["high"]})


def r1_arithmetic(x):
    """R1's step with the options of its recipe: the actual minibatches, and the lag of the last one."""
    problems = x["outputs_per_rollout"] // x["outputs_per_question"]
    cfg = algo_config(
        group_size=x["outputs_per_question"], prompts_per_step=problems, num_minibatches=x["minibatches"], kl_coef=0.0
    )
    samples = [sample(2, index=i) for i in range(cfg.prompts_per_step * cfg.group_size)]
    updates = Grpo(cfg=cfg, max_response_length=8).minibatches(samples, {}, np.random.default_rng(0))
    (outputs,) = {len(update) for update in updates}
    rollouts = x["steps"] // len(updates)
    stages = yaml.safe_load((CONF / "stages/r1_zero.yaml").read_text())
    assert sum(stage["config"]["steps"] for stage in stages.values()) == rollouts
    return {
        "questions_per_rollout": cfg.prompts_per_step,
        "minibatch_outputs": outputs,
        "questions_per_step": outputs // cfg.group_size,
        "rollouts": rollouts,
        "question_draws": rollouts * cfg.prompts_per_step,
        "max_policy_lag_steps": len(updates) - 1,
    }


COMPUTE = {
    ("advantage", "ddof eps rewards"): group_advantages,
    ("advantage", "eps mean_override rewards std_override"): group_advantages,
    ("advantage", "ddof eps index rewards"): group_advantages,
    ("advantage", "rewards"): by_expectation,
    ("advantage", "greedy_rewards lengths rewards"): remax,
    ("advantage", "ddof eps gamma token_rewards"): reinforce_pp,
    ("advantage", "gamma token_rewards"): discounted,
    ("advantage", "beta gamma logp ref_logp reward"): kl_in_reward,
    ("advantage", "F_norm groups"): gpg_verl,
    ("advantage", "K gamma implicit_token_rewards outcome"): prime_returns,
    ("gae", "gamma lam rewards values"): generalised,
    ("gae", "gamma lam mask rewards values"): generalised,
    ("gae", "alpha clamp_min lengths"): vapo_lambdas,
    ("policy_loss", "log_ratios"): gspo_ratio,
    ("policy_loss", "advantage logp"): gpg_loss,
    ("policy_loss", "C rollout_logp train_logp"): truncated_weight,
    ("kl", "beta current_kl horizon n_steps target"): adaptive_kl,
    ("kl", "coef0 delta entropies max min target"): adaptive_entropy,
    ("sampling", "G group_correct"): dynamic_sampling,
    ("sampling", "high low rewards"): pass_rate_filter,
    ("schedule", "minibatches outputs_per_question outputs_per_rollout steps"): r1_arithmetic,
    ("policy_loss", "advantage dual_clip eps_high eps_low ratios"): surrogate,
    ("policy_loss", "advantage eps logp old_logp"): ppo_loss,
    ("aggregation", "losses scale"): dr_grpo,
    ("aggregation", "micro"): microbatches,
    ("aggregation", "losses mask"): masked_rows,
    ("kl", "logp ref"): k3,
    ("sft", "logp loss_mask"): sft_nll,
    ("schedule", "T lr0 lr_min t"): cosine,
}


@pytest.mark.parametrize("case", cases_of("test_golden"), ids=lambda case: case["id"])
def test_golden(case):
    check(case, COMPUTE, left_out=["wrong_mean_of_means"])


def test_every_category_has_a_test_or_is_listed_as_missing():
    assert {case["category"] for case in CASES} == {*CLAIMED, *NOT_YET}
    assert not CLAIMED.keys() & set(NOT_YET)
    for test in CLAIMED.values():
        assert f'cases_of("{test}")' in (Path(__file__).parent / f"{test}.py").read_text()


def test_case_without_a_computation_fails():
    with pytest.raises(AssertionError, match="nothing here computes"):
        check({"id": "x", "category": "advantage", "inputs": {"rewards": [], "luck": 1}, "expected": 0}, COMPUTE)
    (known,) = (case for case in CASES if signature(case) == ("gae", "alpha clamp_min lengths"))
    with pytest.raises(AssertionError):
        check({**known, "expected": [*known["expected"][:-1], 0.5]}, COMPUTE)
    with pytest.raises(AssertionError):
        check({**known, "expected": {"lambdas": known["expected"]}}, COMPUTE)

"""tests/golden/algorithms.json: numbers computed with numpy and math alone, most also by hand.

Dispatch is on category and input names. Categories that this file claims must not hold a case it does not know; the cases of
other categories are claimed where their code is tested.
"""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from algo_samples import algo_config, sample

from r1ray.algo import ops
from r1ray.algo.grpo import Grpo
from r1ray.algo.sft import Sft
from r1ray.model.schedule import lr_at

CASES = json.loads((Path(__file__).parents[1] / "golden/algorithms.json").read_text())["cases"]
CLAIMED = {"advantage", "policy_loss", "kl", "aggregation", "sft", "schedule"}


def group_advantages(x):
    """Rewards to advantages through the whole algorithm; groups by `index`, else one group."""
    index = x.get("index", ["g"] * len(x["rewards"]))
    algo = Grpo(
        cfg=algo_config(std_ddof=x.get("ddof", 1), adv_eps=x.get("eps", 0.0), scale_by_std="ddof" in x or "eps" in x),
        max_response_length=8,
    )
    samples = [sample(3, reward=r, group=g, index=i) for i, (r, g) in enumerate(zip(x["rewards"], index, strict=True))]
    return [float(s.advantages_T[-1]) for s in algo.advantages(samples, {})]


def surrogate(x):
    advantages = torch.full((len(x["ratios"]),), x["advantage"])
    # A ratio of 0 has no logarithm; the smallest the clamp lets through is far below the tolerance.
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
    # The case divides by the scale alone; ours is also a mean over sequences.
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


COMPUTE = {
    ("advantage", "ddof eps rewards"): group_advantages,
    ("advantage", "eps mean_override rewards std_override"): group_advantages,
    ("advantage", "rewards"): {"adv_drgrpo": group_advantages},
    ("advantage", "ddof eps index rewards"): group_advantages,
    ("policy_loss", "advantage dual_clip eps_high eps_low ratios"): surrogate,
    ("policy_loss", "advantage eps logp old_logp"): ppo_loss,
    ("aggregation", "losses scale"): dr_grpo,
    ("aggregation", "micro"): microbatches,
    ("aggregation", "losses mask"): masked_rows,
    ("kl", "logp ref"): k3,
    ("sft", "logp loss_mask"): sft_nll,
    ("schedule", "T lr0 lr_min t"): cosine,
}
NOT_OURS_YET = {
    ("advantage", "greedy_rewards lengths rewards"),
    ("advantage", "ddof eps gamma token_rewards"),
    ("advantage", "gamma token_rewards"),
    ("advantage", "beta gamma logp ref_logp reward"),
    ("advantage", "F_norm groups"),
    ("advantage", "K gamma implicit_token_rewards outcome"),
    ("policy_loss", "log_ratios"),
    ("policy_loss", "advantage logp"),
    ("policy_loss", "C rollout_logp train_logp"),
    ("kl", "beta current_kl horizon n_steps target"),
    ("kl", "coef0 delta entropies max min target"),
    ("schedule", "minibatches outputs_per_question outputs_per_rollout steps"),
}
"""Algorithms that do not exist here yet."""


def signature(case):
    return case["category"], " ".join(sorted(case["inputs"]))


@pytest.mark.parametrize("case", [c for c in CASES if c["category"] in CLAIMED], ids=lambda c: c["id"])
def test_golden(case):
    compute = COMPUTE.get(signature(case))
    if isinstance(compute, dict):  # equal inputs, different algorithms
        compute = compute.get(case["id"])
        if compute is None:
            pytest.skip("another algorithm's case")
    if compute is None:
        assert signature(case) in NOT_OURS_YET, f"{case['id']}: nothing here computes {signature(case)}"
        pytest.skip("another algorithm's case")
    got, want = compute(case["inputs"]), case["expected"]
    if isinstance(want, dict):
        want = {key: want[key] for key in got}
    else:
        got, want = {"value": got}, {"value": want}
    for key in want:
        np.testing.assert_allclose(got[key], want[key], rtol=1e-6, atol=case["tolerance"])

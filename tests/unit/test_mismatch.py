"""Corrections between engine and trainer, and the metrics of their difference, against numpy on two packed sequences."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from algo_samples import algo_config
from test_grpo import loss_input

from r1ray.algo.grpo import Grpo
from r1ray.algo.mismatch import with_divergences
from r1ray.run.metrics import is_metric, reduce_updates

# Prompt, two tokens; prompt, three tokens: log w, the trainer's log-prob less the engine's.
MASK = np.array([0, 1, 1, 0, 1, 1, 1.0])
SEGMENTS = [0, 0, 0, 1, 1, 1, 1]
GAPS = np.array([0, 0.5, -0.2, 0, -1.0, 2.0, 0.1])
ENGINE = np.array([0, -0.3, -1.0, 0, -2.0, -3.0, -0.4])
RATIOS = np.exp(GAPS)[MASK > 0]
SPANS = [slice(0, 2), slice(2, 5)]
"""The tokens of each sequence among those trained on."""


def output(*, gaps=GAPS, **overrides):
    """(policy term of the trained tokens, metrics) and the same without a correction."""
    overrides = {"kl_coef": 0.0, **overrides}
    logprobs = torch.tensor(np.where(MASK > 0, ENGINE + gaps, np.nan), requires_grad=True)
    old = (ENGINE + gaps).tolist()
    row = loss_input(logprobs, mask=MASK.tolist(), old=old, rollout=ENGINE.tolist())
    row = replace(row, segment_L=torch.tensor(SEGMENTS))
    out = Grpo(cfg=algo_config(**overrides), max_response_length=16).loss(row)
    chosen = torch.tensor(MASK > 0)
    metrics = {name: value_L[chosen].double().mean().item() for name, value_L in out.metrics.items()}
    return out.terms["policy"][chosen], metrics, logprobs


def factors(**overrides):
    """What each token's policy term is multiplied by."""
    return (output(**overrides)[0] / output(gaps=overrides.get("gaps", GAPS))[0]).tolist()


@pytest.mark.parametrize(
    ("mode", "want"),
    [
        ("token_mask", [w if 0.5 <= w <= 5 else 0 for w in RATIOS]),  # IcePop
        ("token_truncate", np.clip(RATIOS, 0.5, 5)),
        ("sequence_truncate", [np.exp(0.3)] * 2 + [np.exp(1.1)] * 3),
        ("sequence_mask", [np.exp(0.3)] * 2 + [np.exp(1.1)] * 3),
    ],
)
def test_weights_have_two_bounds(mode, want):
    assert factors(importance_sampling=mode, is_floor=0.5, is_cap=5.0) == pytest.approx(list(want), rel=1e-5)
    low = {"importance_sampling": mode, "gaps": GAPS - 1.0, "is_floor": 0.5, "is_cap": 5.0}
    weights = RATIOS / np.e if mode.startswith("token") else np.repeat([np.exp(0.3 - 2), np.exp(1.1 - 3)], [2, 3])
    limited = np.clip(weights, 0.5, 5) if mode.endswith("truncate") else weights * (weights >= 0.5)
    assert factors(**low) == pytest.approx(limited.tolist(), rel=1e-5)
    metrics = output(**low)[1]
    assert metrics["importance_sampling/floored"] == pytest.approx(np.mean(weights < 0.5))
    assert metrics["importance_sampling/mean"] == pytest.approx(limited.mean(), rel=1e-5)


def estimates(name):
    over, _, kind = name.partition("_")
    z = np.log(RATIOS)
    tokens = {"k1": -z, "k2": z**2 / 2, "k3": np.exp(z) - z - 1}[kind]
    return np.array([getattr(tokens[span], over)() for span in SPANS])


@pytest.mark.parametrize("by", ["mean_k1", "mean_k2", "mean_k3", "sum_k1", "sum_k2", "sum_k3"])
def test_sequences_are_rejected_by_their_divergence(by):
    first, second = estimates(by)
    middle = (first + second) / 2
    below = {"by": by, "high": middle}
    above = {"by": by, "low": middle}
    keeps_first, keeps_second = ([1, 1, 0, 0, 0], [0, 0, 1, 1, 1])
    if first > second:
        below, above = above, below
    assert factors(rejection=below) == keeps_first
    assert factors(rejection=above) == keeps_second
    assert factors(rejection={"by": by, "low": -9.0, "high": 99.0}) == [1] * 5
    assert output(rejection=below)[1]["rejection/fraction"] == pytest.approx(3 / 5)


def test_one_improbable_token_vetoes_its_sequence_alone():
    assert factors(rejection={"veto": 0.4}) == [1, 1, 0, 0, 0], "exp(-1) is 0.37"
    assert factors(rejection={"veto": 0.3}) == [1] * 5
    term, _, logprobs = output(rejection={"veto": 0.4})
    term.sum().backward()
    assert (logprobs.grad != 0).tolist() == [False, True, True, False, False, False, False]


def test_seq_mask_tis_is_a_rejection_and_a_weight():
    got = factors(
        importance_sampling="token_truncate", is_cap=2.0, rejection={"by": "mean_k1", "low": -0.2, "high": 0.2}
    )
    assert got == pytest.approx([min(RATIOS[0], 2), min(RATIOS[1], 2), 0, 0, 0], rel=1e-5)


def test_defaults_correct_nothing():
    _, metrics, _ = output()
    assert factors() == [1] * 5
    assert not [name for name in metrics if name.startswith(("importance_sampling/", "rejection/"))]


def test_divergences_of_engine_and_trainer():
    got = reduce_updates([output()[1]])
    engine, trainer = ENGINE[MASK > 0], (ENGINE + GAPS)[MASK > 0]
    sequences = np.array([RATIOS[span].prod() for span in SPANS])
    want = {
        "mismatch/k1": np.mean(engine - trainer),
        "mismatch/kl": np.mean(RATIOS - np.log(RATIOS) - 1),
        "mismatch/rollout_ppl": np.exp(-engine.mean()),
        "mismatch/trainer_ppl": np.exp(-trainer.mean()),
        "mismatch/ppl_ratio": np.exp(-trainer.mean()) / np.exp(-engine.mean()),
        "mismatch/chi2": np.mean(RATIOS**2) - 1,
        "mismatch/sequence_chi2": np.mean(sequences**2) - 1,
        "mismatch/ess": RATIOS.sum() ** 2 / (RATIOS**2).sum() / len(RATIOS),
        "mismatch/sequence_ess": sequences.sum() ** 2 / (sequences**2).sum() / len(sequences),
    }
    assert {name: got[name] for name in want} == pytest.approx(want, rel=1e-5)
    assert all(is_metric(name) for name in got), "the moments are not logged"


def test_engine_equal_to_the_trainer_has_no_divergence():
    got = reduce_updates([output(gaps=0 * GAPS)[1]])
    for name in ("k1", "kl", "chi2", "sequence_chi2"):
        assert got[f"mismatch/{name}"] == 0
    for name in ("ppl_ratio", "ess", "sequence_ess"):
        assert got[f"mismatch/{name}"] == pytest.approx(1, abs=1e-6)


def test_extreme_ratios_and_updates_without_tokens_stay_finite():
    got = reduce_updates([output(gaps=1000 * GAPS)[1]])
    assert all(np.isfinite(got[name]) for name in ("mismatch/chi2", "mismatch/sequence_chi2", "mismatch/ess"))
    assert with_divergences({"loss/value": 1.0}) == {"loss/value": 1.0}
    assert with_divergences({"loss/policy": 0.0, "moments/sequences": 0.0}) == {"loss/policy": 0.0}

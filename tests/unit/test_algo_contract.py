"""The contract of every algorithm, under every option file of conf/algo: a new algorithm is tested without changing this file.

The model is a table of log-probs and one of entropies, a parameter for each token; the inputs in `needs` are random.
"""

import copy
import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from algo_samples import CONF, algo_config, algo_option, sample
from torch.overrides import TorchFunctionMode

from r1ray.algo import ALGORITHMS, make
from r1ray.algo.base import Algorithm, LossInput
from r1ray.data.pack import pack
from r1ray.types import Batch, Row, Sample

OPTIONS = sorted(path.stem for path in (CONF / "algo").glob("*.yaml"))
# Variants of each option file: all options that can be combined with it.
EVERYTHING = {
    "num_minibatches": 2,
    "kl_coef": 0.1,
    "kl_target": 0.05,
    "entropy_coef": 0.01,
    "entropy_target": 0.5,
    "importance_sampling": "sequence_truncate",
    "dual_clip": 3.0,
}
KINDS = {"as_it_is": {}, "with_everything": EVERYTHING}
LIMIT = 12
LENGTHS = (3, 9, 5, 2, 7, 4, 6, 3)
REWARDS = (1.0, 0.0, 0.25, 0.0, 1.0, 1.0, 0.0, 0.5)

pytestmark = pytest.mark.parametrize("option", OPTIONS)
kinds = pytest.mark.parametrize("kind", KINDS)


def test_every_algorithm_has_an_option_file(option: str) -> None:
    assert set(ALGORITHMS) == {algo_option(name)["name"] for name in OPTIONS}
    assert algo_option(option)["name"] in ALGORITHMS


def algorithm(option: str, kind: str = "as_it_is") -> Algorithm:
    return make(algo_config(option, group_size=4, prompts_per_step=2, **KINDS[kind]), max_response_length=LIMIT)


def step(
    algo: Algorithm, *, scale: float = 0.3, rewards: Any = REWARDS, usable: Any = (True,) * 8, seed: int = 0
) -> list[Sample]:
    """Two groups of four; old and reference log-probs differ from the engine's by about `scale`."""
    rng = np.random.default_rng(seed)
    samples = []
    for i, length in enumerate(LENGTHS):
        one = sample(2 + length, prompt=2, reward=rewards[i], group="ab"[i // 4], index=i % 4, usable=usable[i], seed=i)
        near = {
            f"{need}_T": (one.rollout_logprobs_T + scale * rng.normal(size=2 + length).astype(np.float32)) * one.mask_T
            for need in sorted(algo.needs)
        }
        samples.append(replace(one, **near))
    return algo.advantages(samples, algo.initial_state())


def trained(samples: list[Sample]) -> list[Sample]:
    return [s for s in samples if s.mask_T.any()]


def tables(samples: list[Sample], *, scale: float, seed: int = 1) -> SimpleNamespace:
    """[N, T] log-probs close to the engine's, and entropies, in float64."""
    rng = np.random.default_rng(seed)
    width = max(len(s.token_ids_T) for s in samples)
    logprobs_NT = np.zeros((len(samples), width))
    for i, s in enumerate(samples):
        logprobs_NT[i, : len(s.token_ids_T)] = s.rollout_logprobs_T
    logprobs_NT += scale * rng.normal(size=logprobs_NT.shape)
    return SimpleNamespace(
        logprobs=torch.tensor(logprobs_NT, requires_grad=True),
        entropy=torch.tensor(rng.random(logprobs_NT.shape), requires_grad=True),
    )


def row_input(row: Row, table: SimpleNamespace) -> LossInput:
    """As `r1ray.actors.trainer` builds it, in float64; empty rows are zeros."""
    at = (torch.tensor(row.sample_L).long().clamp(min=0), torch.tensor(row.positions_L).long())
    logprobs_L = table.logprobs[at]

    def given(name: str) -> torch.Tensor | None:
        value_L = getattr(row, f"{name}_L")
        return None if value_L is None else torch.tensor(value_L).double()

    old_L, advantages_L = given("old_logprobs"), given("advantages")
    assert advantages_L is not None
    return LossInput(
        logprobs_L=logprobs_L,
        entropy_L=table.entropy[at],
        old_logprobs_L=logprobs_L.detach() if old_L is None else old_L,
        rollout_logprobs_L=torch.tensor(row.rollout_logprobs_L).double(),
        ref_logprobs_L=given("ref_logprobs"),
        advantages_L=advantages_L,
        mask_L=torch.tensor(row.mask_L).double(),
        segment_L=torch.tensor(row.segment_L),
        pair_L=torch.tensor(row.pair_L),
    )


def total(algo: Algorithm, batch: Batch, table: SimpleNamespace) -> torch.Tensor:
    """The objective of the trainers: weight * loss summed over terms, tokens, rows and ranks."""
    losses = []
    for row in (row for rank in batch.rows for row in rank):
        terms = algo.loss(row_input(row, table)).terms
        assert terms.keys() == row.weights_L.keys()
        losses += [(torch.tensor(row.weights_L[term]).double() * loss_L).sum() for term, loss_L in terms.items()]
    return torch.stack(losses).sum()


def packed(algo: Algorithm, samples: list[Sample], *, num_ranks: int = 1, max_tokens: int = 1000) -> Batch:
    weights = algo.weights(samples, moved_state(algo))
    return pack(samples, weights=weights, num_ranks=num_ranks, max_tokens=max_tokens)


def moved_state(algo: Algorithm) -> Any:
    """The state after a step with low entropy and high KL: every controller is active."""
    return algo.update_state(algo.initial_state(), {"entropy": 0.1, "kl_ref": 1.0})


class Held(TorchFunctionMode):
    """Keeps detached values as in the first evaluation, so that finite differences match what backward computes."""

    def __init__(self) -> None:
        super().__init__()
        self.values: list[torch.Tensor] = []
        self.next: int | None = None

    @contextmanager
    def replaying(self) -> Iterator[None]:
        self.next = 0
        with self:
            yield

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        if func is not torch.Tensor.detach:
            return out
        if self.next is None:
            self.values.append(out.clone())
            return out
        self.next += 1
        return self.values[self.next - 1]


@kinds
@pytest.mark.parametrize("scale", [1e-4, 0.3], ids=["within the clip", "beyond it"])
def test_gradients_agree_with_finite_differences(option: str, kind: str, scale: float) -> None:
    """In float64, through weights and loss, at random points that are not on the kink of a clip."""
    algo = algorithm(option, kind)
    samples = trained(step(algo, scale=scale))
    batch, table, held, h = packed(algo, samples), tables(samples, scale=scale), Held(), 1e-7
    with held:
        total(algo, batch, table).backward()
    assert table.logprobs.grad.abs().max() > 0
    for name in ("logprobs", "entropy"):
        values = getattr(table, name)
        want = torch.zeros_like(values)
        for i in np.ndindex(*values.shape):
            sides = []
            for sign in (1, -1):
                with torch.no_grad(), held.replaying():
                    values[i] += sign * h
                    sides.append(total(algo, batch, table))
                    values[i] -= sign * h
            want[i] = (sides[0] - sides[1]) / (2 * h)
        got = torch.zeros_like(values) if values.grad is None else values.grad
        torch.testing.assert_close(got, want, atol=1e-6, rtol=1e-5)


@kinds
def test_only_the_policy_gets_a_gradient(option: str, kind: str) -> None:
    """Not old, engine and reference log-probs or advantages; not the entropy unless requested; nothing outside the mask."""
    algo = algorithm(option, kind)
    samples = trained(step(algo))
    table = tables(samples, scale=0.3)
    (row,) = packed(algo, samples).rows[0]
    given = row_input(row, table)
    constants = {
        name: getattr(given, name).detach().requires_grad_()
        for name in ("old_logprobs_L", "rollout_logprobs_L", "ref_logprobs_L", "advantages_L")
        if getattr(given, name) is not None
    }
    out = algo.loss(replace(given, **constants))
    torch.stack([loss_L.sum() for loss_L in out.terms.values()]).sum().backward()
    assert all(value.grad is None or not value.grad.any() for value in constants.values())
    assert algo.needs_entropy_grad == (table.entropy.grad is not None and bool(table.entropy.grad.any()))
    for grad in (table.logprobs.grad, table.entropy.grad):
        for i, s in enumerate(samples):
            outside = np.setdiff1d(np.arange(table.logprobs.shape[1]), np.flatnonzero(s.mask_T))
            assert grad is None or not grad[i, outside].any()


def test_entropy_coefficient_of_zero_gives_no_gradient(option: str) -> None:
    """Also where a controller has switched the bonus off."""
    algo = algorithm(option, "with_everything")
    off = algo.update_state(algo.initial_state(), {"entropy": 9.0, "kl_ref": 0.05})
    samples = trained(step(algo))
    batch = pack(samples, weights=algo.weights(samples, off), num_ranks=1, max_tokens=1000)
    table = tables(samples, scale=0.3)
    total(algo, batch, table).backward()
    assert not table.entropy.grad.any()
    assert table.logprobs.grad.any()


@kinds
def test_packing_micro_batches_and_ranks_do_not_change_the_update(option: str, kind: str) -> None:
    algo = algorithm(option, kind)
    samples = trained(step(algo))
    seen = []
    for num_ranks, max_tokens in ((1, 1000), (1, 12), (1, 1), (2, 20), (3, 12), (16, 1000)):
        table = tables(samples, scale=0.3)
        batch = packed(algo, samples, num_ranks=num_ranks, max_tokens=max_tokens)
        loss = total(algo, batch, table)
        loss.backward()
        entropy = torch.zeros_like(table.entropy) if table.entropy.grad is None else table.entropy.grad
        seen.append((loss.detach(), table.logprobs.grad, entropy))
    assert seen[0][1].any()
    for other in seen[1:]:
        torch.testing.assert_close(other, seen[0], atol=1e-12, rtol=1e-9)


def test_advantages_do_not_depend_on_the_order_of_samples(option: str) -> None:
    algo = algorithm(option)
    samples = step(algo)
    again = algo.advantages(
        [replace(s, advantages_T=None, returns_T=None, outcomes_T=None) for s in reversed(samples)],
        algo.initial_state(),
    )
    for a, b in zip(samples, reversed(again), strict=True):
        np.testing.assert_allclose(a.advantages_T, b.advantages_T, atol=1e-6)
        np.testing.assert_array_equal(a.mask_T, b.mask_T)


@kinds
def test_state_can_be_saved_and_is_never_mutated(option: str, kind: str) -> None:
    algo = algorithm(option, kind)
    state, metrics = algo.initial_state(), {"entropy": 0.1, "kl_ref": 1.0, "solve_rate": 0.5}
    for _ in range(3):
        loaded = json.loads(json.dumps(state))
        assert loaded == state
        before = copy.deepcopy(state)
        after = algo.update_state(state, metrics)
        assert state == before
        assert algo.update_state(loaded, metrics) == after
        samples = trained(step(algo))
        for a, b in zip(
            algo.weights(samples, after), algo.weights(samples, json.loads(json.dumps(after))), strict=True
        ):
            assert all((a[term] == b[term]).all() for term in a)
        state = after
    if kind == "with_everything":
        assert state != algo.initial_state(), "the controllers have changed"


def updates(algo: Algorithm, samples: list[Sample]) -> list[list[Sample]]:
    return algo.minibatches(samples, algo.initial_state(), np.random.default_rng(0))


def assert_finite(algo: Algorithm, samples: list[Sample]) -> torch.Tensor:
    """Loss and gradient of one update; returns the gradient of the policy term."""
    table = tables(samples, scale=0.0)
    batch = packed(algo, samples)
    loss = total(algo, batch, table)
    loss.backward()
    assert torch.isfinite(loss) and torch.isfinite(table.logprobs.grad).all()
    return table.logprobs.grad


@kinds
def test_equal_rewards_give_zero_advantages(option: str, kind: str) -> None:
    """Advantages are exactly 0 where completions are only compared with each other (`r1ray.algo.policy`): not with a critic, whose
    values differ, and not with KL in the reward. The loss is finite, with or without an update.
    """
    algo = algorithm(option, kind)
    samples = step(algo, rewards=(0.1,) * 8)
    compared = not algo.needs & {"old_values", "process_rewards"} and algo_option(option)["kl_in"] == "loss"
    if compared:
        assert all(not s.advantages_T.any() for s in samples)
    if kept := trained(samples):
        assert_finite(algo, kept)
    else:
        assert updates(algo, samples) == []


@kinds
def test_step_without_usable_samples_makes_no_update(option: str, kind: str) -> None:
    algo = algorithm(option, kind)
    samples = step(algo, usable=(False,) * 8)
    assert not trained(samples) and all(not s.advantages_T.any() for s in samples)
    assert updates(algo, samples) == []


@kinds
def test_one_usable_sample_makes_a_finite_update_or_none(option: str, kind: str) -> None:
    algo = algorithm(option, kind)
    samples = step(algo, usable=(False, True, *(False,) * 6), rewards=(1.0,) * 8)
    kept = trained(samples)
    assert all(np.isfinite(s.advantages_T).all() for s in samples)
    assert [s.index for s in kept] in ([1], [])
    for part in updates(algo, samples):
        assert [s.index for s in part] == [1]
    if kept:
        assert_finite(algo, kept)


@kinds
def test_unusable_sample_does_not_change_the_others(option: str, kind: str) -> None:
    """Whatever its reward."""
    algo = algorithm(option, kind)
    usable = (True, True, True, False, *(True,) * 4)
    one, other = (step(algo, usable=usable, rewards=(*REWARDS[:3], reward, *REWARDS[4:])) for reward in (0.0, 99.0))
    for a, b in zip(one, other, strict=True):
        np.testing.assert_array_equal(a.advantages_T, b.advantages_T)
    assert not one[3].mask_T.any()


@kinds
def test_undefined_values_outside_the_mask_have_no_effect(option: str, kind: str) -> None:
    """nan and inf outside the mask, which a row may contain."""
    algo = algorithm(option, kind)
    samples = trained(step(algo))
    (row,) = packed(algo, samples).rows[0]
    table = tables(samples, scale=0.1)
    with torch.no_grad():
        for name in ("logprobs", "entropy"):
            for i, s in enumerate(samples):
                outside = np.setdiff1d(np.arange(table.logprobs.shape[1]), np.flatnonzero(s.mask_T))
                getattr(table, name)[i, outside] = torch.nan
    given = row_input(row, table)
    bad = {
        name: torch.where(given.mask_L > 0, getattr(given, name), torch.inf)
        for name in ("old_logprobs_L", "rollout_logprobs_L", "ref_logprobs_L", "advantages_L")
        if getattr(given, name) is not None
    }
    out = algo.loss(replace(given, **bad))
    loss = torch.stack([loss_L.sum() for loss_L in out.terms.values()]).sum()
    loss.backward()
    assert torch.isfinite(loss) and torch.isfinite(table.logprobs.grad).all()
    assert all(torch.isfinite(value_L).all() for value_L in out.metrics.values())

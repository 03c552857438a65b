"""The trainer against a reference that is implemented here: one unpadded sequence at a time, full logits, float64, no r1ray.

Compared is the whole path from scored groups to the gradient: samples, advantages, minibatches, weights, packing, forward, loss,
sharding. Ranks are plain processes that are started once.
"""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from trainer_cases import (
    BETA,
    CLIP,
    COMPLETIONS,
    EPS,
    MINIBATCHES,
    TEMPERATURE,
    Together,
    capture_gradients,
    config,
    groups_of,
    grpo,
    make_trainer,
    weights_of,
)
from transformers import AutoModelForCausalLM

from r1ray.actors.reference import ReferenceWorker
from r1ray.annotate import sample_outputs
from r1ray.data.pack import pack
from r1ray.data.samples import to_samples

pytestmark = pytest.mark.integration

# --- the reference: plain data in, loss and gradients out, without r1ray


def reference_advantages(completions):
    out = [0.0] * len(completions)
    for name in {completion.group for completion in completions}:
        members = [i for i, completion in enumerate(completions) if completion.group == name and completion.usable]
        rewards = np.array([completions[i].reward for i in members])
        for i in members:
            out[i] = float((completions[i].reward - rewards.mean()) / (rewards.std(ddof=1) + EPS))
    return out


def response_logprobs(model, completion):
    """log pi(token | all previous tokens) for each token of the completion, at the sampling temperature."""
    ids = torch.tensor([completion.prompt + completion.ids])
    log = (model(ids).logits[0] / TEMPERATURE).log_softmax(-1)
    first = len(completion.prompt)
    return torch.stack([log[first + t - 1, completion.ids[t]] for t in range(len(completion.ids))])


def response_entropies(model, completion):
    """Entropy of the distributions from which the tokens of the completion were sampled."""
    ids = torch.tensor([completion.prompt + completion.ids])
    log = (model(ids).logits[0] / TEMPERATURE).log_softmax(-1)
    first = len(completion.prompt)
    return -(log.exp() * log).sum(-1)[first - 1 : first - 1 + len(completion.ids)]


def reference_loss(model, completions, advantages, old, ref, *, entropy_coef):
    """Mean over completions of the mean over tokens of -min(rho A, clip(rho) A) + beta k3 - entropy_coef H."""
    losses = []
    for completion, advantage, old_T, ref_T in zip(completions, advantages, old, ref, strict=True):
        new = response_logprobs(model, completion)
        rho = torch.exp(new - old_T)
        objective = torch.minimum(rho * advantage, torch.clamp(rho, 1 - CLIP, 1 + CLIP) * advantage)
        k3 = torch.exp(ref_T - new) - (ref_T - new) - 1
        losses.append((-objective + BETA * k3 - entropy_coef * response_entropies(model, completion)).mean())
    return torch.stack(losses).mean()


def float64_model(path, weights=None):
    model = AutoModelForCausalLM.from_pretrained(path, attn_implementation="eager").double()
    if weights is not None:
        missing, unexpected = model.load_state_dict({k: torch.tensor(v).double() for k, v in weights.items()}, False)
        assert not unexpected
        assert set(missing) <= {"lm_head.weight"}
    return model


def reference_gradients(model):
    return {name: p.grad.numpy() for name, p in model.named_parameters()}


# --- r1ray


def annotated(trainer, reference_path, rank, world_size, port, cfg, algorithm, completions, max_tokens):
    """Scored groups -> samples with old and reference log-probs and advantages, as in the loop."""
    samples = to_samples(groups_of(completions), truncated="mask")
    reference = ReferenceWorker(
        rank=rank, world_size=world_size, master_addr="127.0.0.1", master_port=port, cfg=cfg, model_path=reference_path
    )
    for name, worker in (("old_logprobs_T", trainer), ("ref_logprobs_T", reference)):
        column = sample_outputs(samples, Together(worker, rank, world_size, max_tokens))
        samples = [replace(sample, **{name: column[i]}) for i, sample in enumerate(samples)]
    return algorithm.advantages(samples, {})


def run_pass(rank, world_size, port, cfg, policy, reference, algorithm, completions, max_tokens):
    """One step. For each update: its completions, the weights before it, metrics, gradients."""
    trainer = make_trainer(rank, world_size, port, cfg, policy, algorithm)
    samples = annotated(trainer, reference, rank, world_size, port, cfg, algorithm, completions, max_tokens)
    grads, updates = capture_gradients(trainer), []
    for part in algorithm.minibatches(samples, {}, np.random.default_rng(0)):
        batch = pack(part, weights=algorithm.weights(part, {}), num_ranks=world_size, max_tokens=max_tokens)
        before = weights_of(trainer)
        metrics = trainer.update(batch.rows[rank])
        chosen = [(sample.group_id.split("@")[0], sample.index) for sample in part]
        updates.append({"chosen": chosen, "weights": before, "metrics": metrics, "grads": dict(grads)})
    return updates


def check_pass(updates, models, completions, *, entropy_coef=0.0):
    """Compares every update of rank 0 with the reference at the same weights."""
    first = float64_model(models.policy)
    other = float64_model(models.reference)
    advantages = reference_advantages(completions)
    of_group = {
        name: [i for i, r in enumerate(completions) if r.group == name] for name in {r.group for r in completions}
    }
    for update in updates:
        chosen = [of_group[name][k] for name, k in update["chosen"]]
        with torch.no_grad():
            old = [response_logprobs(first, completions[i]) for i in chosen]
            ref = [response_logprobs(other, completions[i]) for i in chosen]
        model = float64_model(models.policy, update["weights"])
        trained, their_advantages = [completions[i] for i in chosen], [advantages[i] for i in chosen]
        loss = reference_loss(model, trained, their_advantages, old, ref, entropy_coef=entropy_coef)
        loss.backward()
        metrics = update["metrics"]
        terms = sum(value for name, value in metrics.items() if name.startswith("loss/"))
        assert terms == pytest.approx(loss.item(), abs=1e-5)
        wanted = reference_gradients(model)
        assert update["grads"].keys() == wanted.keys()
        for name, grad in update["grads"].items():
            scale = max(1.0, np.abs(wanted[name]).max())
            np.testing.assert_allclose(grad / scale, wanted[name] / scale, atol=1e-5, rtol=0, err_msg=name)
        norm = math.sqrt(sum(float((grad**2).sum()) for grad in wanted.values()))
        assert metrics["grad_norm"] == pytest.approx(norm, rel=1e-4)
        assert metrics["updates_skipped"] == 0


@pytest.mark.parametrize(
    ("world_size", "max_tokens", "trainer"),
    [
        (1, 1, {}),  # every sequence in its own row
        (1, 40, {}),
        (1, 10_000, {}),  # everything in one row
        (1, 40, {"activation_checkpointing": True}),
        (2, 1, {}),
        (2, 40, {}),
        (2, 40, {"zero_stage": 1}),
        (2, 40, {"zero_stage": 2}),
        (2, 40, {"zero_stage": 2, "cpu_offload": True}),
        (2, 40, {"zero_stage": 3}),
        (2, 1, {"zero_stage": 3, "activation_checkpointing": True}),
        (2, 10_000, {"zero_stage": 3}),
    ],
    ids=str,
)
def test_loss_and_gradients_equal_the_reference(ranks, models, world_size, max_tokens, trainer):
    args = (config(**trainer), models.policy, models.reference, grpo(), COMPLETIONS, max_tokens)
    results = ranks[world_size].run(run_pass, *args)
    assert [len(updates) for updates in results] == [MINIBATCHES] * world_size
    trained = [completion for update in results[0] for completion in update["chosen"]]
    assert len(trained) == len(set(trained)) == len(COMPLETIONS) - 2
    check_pass(results[0], models, COMPLETIONS)
    for mine, theirs in zip(results[0], results[-1], strict=True):
        assert mine["metrics"] == theirs["metrics"]


@pytest.mark.parametrize(("world_size", "zero_stage"), [(1, 0), (2, 3)])
def test_entropy_bonus_is_part_of_loss_and_gradients(ranks, models, world_size, zero_stage):
    args = (config(zero_stage=zero_stage), models.policy, models.reference, grpo(entropy_coef=0.1), COMPLETIONS, 40)
    updates = ranks[world_size].run(run_pass, *args)[0]
    assert len(updates) == MINIBATCHES
    assert all(update["metrics"]["loss/entropy"] < 0 for update in updates)
    check_pass(updates, models, COMPLETIONS, entropy_coef=0.1)


@pytest.mark.parametrize("zero_stage", [0, 3])
def test_update_with_fewer_sequences_than_ranks_equals_the_reference(ranks, models, zero_stage):
    completions = [replace(COMPLETIONS[3], group="b"), replace(COMPLETIONS[5], group="b")]  # one is masked, one remains
    algorithm = grpo(num_minibatches=1)
    args = (config(zero_stage=zero_stage), models.policy, models.reference, algorithm, completions, 64)
    updates = ranks[2].run(run_pass, *args)[0]
    assert [update["chosen"] for update in updates] == [[("b", 0)]]
    check_pass(updates, models, completions)


def test_first_update_has_ratio_one_no_clipping_and_no_kl(ranks, models):
    args = (config(zero_stage=2), models.policy, models.policy, grpo(), COMPLETIONS, 40)
    metrics = ranks[2].run(run_pass, *args)[0][0]["metrics"]
    assert metrics["ratio/max"] == pytest.approx(1.0, abs=1e-5)
    assert metrics["clip_fraction"] == 0
    assert metrics["kl_ref"] == pytest.approx(0.0, abs=1e-9)

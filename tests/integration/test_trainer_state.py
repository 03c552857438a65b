"""State of a trainer: skipped updates, saved state, exported models, lower precisions; also the reference and SFT."""

import os
import pickle
import re
from dataclasses import replace

import numpy as np
import pytest
import torch
from trainer_cases import (
    COMPLETIONS,
    EOS,
    TEMPERATURE,
    Together,
    config,
    groups_of,
    grpo,
    make_trainer,
    weights_of,
)
from transformers import AutoModelForCausalLM, AutoTokenizer, GenerationConfig

from r1ray.actors.reference import ReferenceWorker
from r1ray.algo.base import LossOutput
from r1ray.algo.grpo import Grpo
from r1ray.algo.sft import Sft
from r1ray.annotate import sample_outputs
from r1ray.data.pack import pack
from r1ray.data.samples import to_samples

pytestmark = pytest.mark.integration


class PoisonedLoss(Grpo):
    """A normal loss that on tokens of advantage 1000 is nan (`poison="loss"`) or has a nan gradient (`poison="gradient"`)."""

    poison = "none"

    def loss(self, row):
        out = super().loss(replace(row, advantages_L=row.advantages_L.clamp(max=1.0)))
        bad_L = (row.advantages_L > 100).float()
        if self.poison == "loss":
            extra_L = torch.where(bad_L > 0, torch.nan, 0.0)
        else:
            zero_L = row.logprobs_L - row.logprobs_L.detach()
            extra_L = bad_L * torch.where(bad_L > 0, zero_L, 1.0).abs().sqrt()
        return LossOutput(terms={**out.terms, "policy": out.terms["policy"] + extra_L}, metrics=out.metrics)


class NanLoss(PoisonedLoss):
    poison = "loss"


class NanGradient(PoisonedLoss):
    poison = "gradient"


def run_poisoned(rank, world_size, port, cfg, policy, algorithm_class):
    """Update, poisoned update (one token of one rank), update: metrics of all three and how far each changed the weights."""
    algorithm = algorithm_class(cfg=grpo(num_minibatches=1, kl_coef=0.0).cfg, max_response_length=32)
    trainer = make_trainer(rank, world_size, port, cfg, policy, algorithm)
    samples = algorithm.advantages(to_samples(groups_of(COMPLETIONS), truncated="mask"), {})
    samples = algorithm.minibatches(samples, {}, np.random.default_rng(0))[0]
    out = []
    for poisoned in (False, True, False):
        batch = pack(samples, weights=algorithm.weights(samples, {}), num_ranks=world_size, max_tokens=40)
        rows = list(batch.rows[rank])
        if poisoned and rank == world_size - 1:
            rows[0] = replace(rows[0], advantages_L=np.where(rows[0].mask_L > 0, np.float32(1000), np.float32(0)))
        before = weights_of(trainer)
        metrics = trainer.update(rows)
        after = weights_of(trainer)
        moved = max((np.abs(after[name] - before[name]).max() for name in before if before[name].size), default=0.0)
        finite = all(np.isfinite(weight).all() for weight in after.values())
        out.append((metrics["updates_skipped"], float(moved), finite))
    return out


@pytest.mark.parametrize(
    "trainer",
    [
        {"zero_stage": 0},
        {"zero_stage": 1},
        {"zero_stage": 2},
        {"zero_stage": 3},
        {"zero_stage": 1, "precision": "bf16"},
        {"zero_stage": 2, "precision": "bf16"},
    ],
    ids=str,
)
@pytest.mark.parametrize("algorithm", [NanLoss, NanGradient])
def test_nan_on_one_rank_makes_all_ranks_skip_the_update(ranks, models, trainer, algorithm):
    results = ranks[2].run(run_poisoned, config(**trainer), models.policy, algorithm)
    for rank, updates in enumerate(results):
        assert [skipped for skipped, _, _ in updates] == [0, 1, 0]
        assert all(finite for _, _, finite in updates)
        moved = [moved for _, moved, _ in updates]
        assert moved[1] == 0
        if rank == 0 or trainer["zero_stage"] < 3:
            assert moved[0] > 0
            assert moved[2] > 0


def run_gap(rank, world_size, port, cfg, policy):
    algorithm = grpo(num_minibatches=1, kl_coef=0.0)
    trainer = make_trainer(rank, world_size, port, cfg, policy, algorithm)
    samples = algorithm.advantages(to_samples(groups_of(COMPLETIONS), truncated="mask"), {})
    batch = pack(samples, weights=algorithm.weights(samples, {}), num_ranks=world_size, max_tokens=40)
    before = weights_of(trainer)
    metrics = trainer.update(batch.rows[rank])
    return metrics, all((before[name] == weight).all() for name, weight in weights_of(trainer).items())


def test_update_with_wrong_engine_logprobs_is_skipped(ranks, models):
    for metrics, unchanged in ranks[2].run(run_gap, config(logprob_gap_limit=None), models.policy):
        assert metrics["mismatch/logprob_gap/max"] > 0.1
        assert metrics["updates_skipped"] == 1
        assert unchanged


def run_updates(rank, world_size, port, cfg, policy, num, *, load=None, save=None):
    """`num` updates, saved before the last; metrics of the last and the weights after it."""
    algorithm = grpo(num_minibatches=1, kl_coef=0.0)
    trainer = make_trainer(rank, world_size, port, cfg, policy, algorithm)
    if load:
        trainer.load(load)
    samples = algorithm.advantages(to_samples(groups_of(COMPLETIONS), truncated="mask"), {})
    batch = pack(samples, weights=algorithm.weights(samples, {}), num_ranks=world_size, max_tokens=40)
    metrics = {}
    for k in range(num):
        if save and k == num - 1:
            trainer.save(save)
        metrics = trainer.update(batch.rows[rank])
    return metrics, weights_of(trainer)


def run_and_save(rank, world_size, port, cfg, policy, path):
    return run_updates(rank, world_size, port, cfg, policy, 3, save=path)


def load_and_run(rank, world_size, port, cfg, policy, path):
    return run_updates(rank, world_size, port, cfg, policy, 1, load=path)


@pytest.mark.parametrize(
    "trainer",
    [{"zero_stage": 0}, {"zero_stage": 1}, {"zero_stage": 2, "precision": "bf16"}, {"zero_stage": 3}],
    ids=str,
)
def test_loaded_trainer_makes_the_same_next_update(ranks, models, tmp_path, trainer):
    cfg = config(**trainer, lr_schedule="cosine", warmup_updates=2)
    saved = ranks[2].run(run_and_save, cfg, models.policy, str(tmp_path))
    # Other initial weights, which loading must replace.
    loaded = ranks[2].run(load_and_run, cfg, models.reference, str(tmp_path))
    for (metrics, weights), (again, weights_again) in zip(saved, loaded, strict=True):
        assert metrics == again
        for name, weight in weights.items():
            np.testing.assert_array_equal(weight, weights_again[name])


@pytest.mark.parametrize("zero_stage", [0, 1])
def test_resumed_run_uses_its_own_optimizer_settings(ranks, models, tmp_path, zero_stage):
    cfg = config(zero_stage=zero_stage, weight_decay=0.0)
    ranks[2].run(run_and_save, cfg, models.policy, str(tmp_path))
    norms = []
    for weight_decay in (0.0, 500.0):
        cfg = config(zero_stage=zero_stage, weight_decay=weight_decay, lr_schedule="constant")
        _, weights = ranks[2].run(load_and_run, cfg, models.policy, str(tmp_path))[0]
        norms.append(sum(float(abs(weight).sum()) for weight in weights.values()))
    assert norms[1] < 0.7 * norms[0]  # lr 1e-3 times 500 halves every weight


class Code:
    """What a stranger may put into a file that is unpickled."""

    def __init__(self, marker):
        self.marker = marker

    def __reduce__(self):
        return os.system, (f"touch {self.marker}",)


@pytest.mark.parametrize(
    "file", ["rng_0.pt", "mp_rank_00_model_states.pt", "zero_pp_rank_0_mp_rank_00_optim_states.pt"]
)
@pytest.mark.parametrize("pickled", ["by torch", "by torch, old format", "directly"])
def test_code_in_trainer_state_is_not_run(ranks, models, tmp_path, file, pickled):
    state, marker = tmp_path / "state", tmp_path / "was_run"
    ranks[1].run(run_and_save, config(zero_stage=1), models.policy, str(state))
    (path,) = state.rglob(file)
    if pickled == "directly":
        path.write_bytes(pickle.dumps(Code(marker), protocol=2))
    else:
        torch.save({"state": Code(marker)}, path, _use_new_zipfile_serialization=pickled == "by torch")
    (message,) = ranks[1].run(refusal, config(zero_stage=1), models.policy, str(state))
    assert file in message and "was not loaded: it would run code" in message and "name=ANOTHER" in message
    assert not marker.exists()


def refusal(rank, world_size, port, cfg, policy, path):
    with pytest.raises(ValueError) as error:
        load_and_run(rank, world_size, port, cfg, policy, path)
    return str(error.value)


def test_trainer_state_of_another_layout_is_refused(ranks, models, tmp_path):
    ranks[2].run(run_and_save, config(zero_stage=1), models.policy, str(tmp_path))
    for message in ranks[2].run(refusal, config(zero_stage=3), models.policy, str(tmp_path)):
        assert re.search(r"holds trainer state of .*'zero_stage': 1.* this run has .*'zero_stage': 3", message)


@pytest.mark.parametrize(
    "trainer",
    [
        {"precision": "bf16_autocast"},
        {"precision": "bf16_autocast", "zero_stage": 3, "activation_checkpointing": True},
        {"precision": "bf16", "zero_stage": 1},
        {"precision": "bf16", "zero_stage": 2, "activation_checkpointing": True},
        {"precision": "bf16", "zero_stage": 3},
    ],
    ids=str,
)
def test_lower_precisions_are_close_to_float32(ranks, models, trainer):
    """The fourth update, which builds on three others, has nearly the same loss, gradient and distribution."""
    exact, _ = ranks[2].run(run_updates, config(), models.policy, 4)[0]
    close, _ = ranks[2].run(run_updates, config(**trainer), models.policy, 4)[0]
    assert close["loss/policy"] == pytest.approx(exact["loss/policy"], abs=0.01)
    assert close["mismatch/kl"] == pytest.approx(exact["mismatch/kl"], rel=0.02)
    assert close["grad_norm"] == pytest.approx(exact["grad_norm"], rel=0.05)


def run_export(rank, world_size, port, cfg, policy, path, sequences):
    trainer = make_trainer(rank, world_size, port, cfg, policy, grpo(num_minibatches=1, kl_coef=0.0))
    trainer.export_hf(path)
    return (
        trainer.logprobs_of(sequences),
        trainer.weight_metadata(),
        {n: w.shape for n, w in weights_of(trainer).items()},
    )


@pytest.mark.parametrize("zero_stage", [1, 3])
@pytest.mark.parametrize("name", ["policy", "untied"])
def test_exported_model_equals_the_trained_model(ranks, models, tmp_path, zero_stage, name):
    sequences = [np.int32([5, 9, 12, 1]), np.int32([30, 31])]
    source = getattr(models, name)
    args = (config(zero_stage=zero_stage, precision="fp32"), source, str(tmp_path), sequences)
    scores, metadata, shapes = ranks[2].run(run_export, *args)[0]
    assert [entry[0] for entry in metadata] == list(shapes)
    assert {entry[0]: tuple(entry[2]) for entry in metadata} == {n: tuple(shape) for n, shape in shapes.items()}
    assert ("lm_head.weight" in shapes) == (name == "untied")
    model = AutoModelForCausalLM.from_pretrained(str(tmp_path))
    original = AutoModelForCausalLM.from_pretrained(source).state_dict()
    for key, value in model.state_dict().items():
        torch.testing.assert_close(value, original[key], rtol=0, atol=0)
    for ids, got in zip(sequences, scores, strict=True):
        ids = torch.tensor(ids, dtype=torch.long)
        with torch.no_grad():
            log = model(ids[None]).logits[0].log_softmax(-1)
        assert got[0] == 0
        np.testing.assert_allclose(got[1:], log[:-1].gather(-1, ids[1:, None])[:, 0], atol=1e-5)
    generation = GenerationConfig.from_pretrained(str(tmp_path))
    assert (generation.temperature, generation.top_p, generation.eos_token_id) == (0.6, 0.95, EOS)
    assert AutoTokenizer.from_pretrained(str(tmp_path)).decode([2]) == "<think>"


def run_reference(rank, world_size, port, cfg, first, second):
    """Log-probs of two references, the second loaded over the first."""
    samples = to_samples(groups_of(COMPLETIONS), truncated="mask")
    reference = ReferenceWorker(
        rank=rank, world_size=world_size, master_addr="127.0.0.1", master_port=port, cfg=cfg, model_path=first
    )
    out = []
    for path in (None, second):
        if path:
            reference.load(path)
        out.append(sample_outputs(samples, Together(reference, rank, world_size, 40)))
    return out


@pytest.mark.parametrize("zero_stage", [0, 3])
def test_reference_loads_a_saved_folder(ranks, models, zero_stage):
    ranks[2].run(run_updates, config(), models.policy, 1)  # after all ranks have synchronised
    results = ranks[2].run(run_reference, config(zero_stage=zero_stage), models.reference, models.policy)[0]
    for path, column in zip((models.reference, models.policy), results, strict=True):
        model = AutoModelForCausalLM.from_pretrained(path).double()
        for completion, got in zip(COMPLETIONS, column, strict=True):
            if not (completion.trained and completion.usable):
                assert not got.any()
                continue
            ids = torch.tensor([completion.prompt + completion.ids])
            with torch.no_grad():
                log = (model(ids).logits[0, :-1] / TEMPERATURE).log_softmax(-1)
            want = log.gather(-1, ids[0, 1:, None])[len(completion.prompt) - 1 :, 0]
            np.testing.assert_allclose(got[len(completion.prompt) :], want, atol=1e-5)


def run_sft(rank, world_size, port, cfg, policy, num):
    algorithm = Sft()
    trainer = make_trainer(rank, world_size, port, cfg, policy, algorithm)
    samples = to_samples(groups_of([replace(completion, usable=True) for completion in COMPLETIONS]), truncated="score")
    samples = [replace(sample, score=None, temperature=1.0) for sample in samples]
    batch = pack(samples, weights=algorithm.weights(samples, {}), num_ranks=world_size, max_tokens=40)
    return [trainer.update(batch.rows[rank])["loss/nll"] for _ in range(num)]


def test_trainer_does_supervised_fine_tuning(ranks, models):
    losses = ranks[2].run(run_sft, config(lr=1e-2), models.policy, 8)[0]
    model = AutoModelForCausalLM.from_pretrained(models.policy).double()
    nll = []
    for completion in COMPLETIONS:
        ids = torch.tensor([completion.prompt + completion.ids])
        with torch.no_grad():
            log = model(ids).logits[0].log_softmax(-1)
        first = len(completion.prompt)
        nll += [-float(log[first + t - 1, token]) for t, token in enumerate(completion.ids)]
    assert losses[0] == pytest.approx(np.mean(nll), abs=1e-5)
    assert losses[-1] < 0.7 * losses[0]


def test_deepspeed_options_are_passed_on_unless_they_conflict():
    from r1ray.model.deepspeed import deepspeed_config

    theirs = {"wall_clock_breakdown": True, "zero_optimization": {"reduce_bucket_size": 1000}}
    merged = deepspeed_config(config(zero_stage=2, deepspeed=theirs).trainer, device="cpu")
    assert merged["wall_clock_breakdown"] is True
    assert merged["zero_optimization"] == {"reduce_bucket_size": 1000, "stage": 2}
    with pytest.raises(ValueError, match=r"trainer.deepspeed sets optimizer, zero_optimization.stage"):
        deepspeed_config(config(deepspeed={"optimizer": {}, "zero_optimization": {"stage": 3}}).trainer, device="cpu")

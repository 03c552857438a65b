"""A trainer with adapters against LoRA implemented here: plain PyTorch, float64, weights W + s B A in a plain model.

Ranks are plain processes that are started once.
"""

import re
from dataclasses import replace

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch.func import functional_call
from trainer_cases import COMPLETIONS, Together, config, groups_of, grpo, make_trainer, weights_of
from transformers import AutoModelForCausalLM

from r1ray.actors.reference import ReferenceWorker
from r1ray.algo.sft import Sft
from r1ray.annotate import sample_outputs
from r1ray.config import LoraConfig
from r1ray.data.pack import pack
from r1ray.data.samples import to_samples

pytestmark = pytest.mark.integration
RANK, ALPHA = 4, 6.0
LORA = LoraConfig(rank=RANK, alpha=ALPHA, targets="all-linear")
UPDATES, LR, ADAM_EPS, CLIP = 4, 3e-3, 1e-5, 0.1
SEQUENCES = [np.int32([5, 9, 12, 1]), np.int32([30, 31, 2])]
SETTINGS = {"lr": LR, "adam_eps": ADAM_EPS, "grad_clip": CLIP}


def parameters_of(trainer):
    """Every parameter gathered, adapters included, by the model's name for it."""
    import deepspeed

    found = {}
    for name, p in trainer._lm.named_parameters():
        with deepspeed.zero.GatheredParameters([p], enabled=hasattr(p, "ds_id")):
            found[name] = p.detach().float().numpy().copy()
    return found


def sft_rows(rank, world_size, max_tokens):
    algorithm = Sft()
    samples = to_samples(groups_of([replace(completion, usable=True) for completion in COMPLETIONS]), truncated="score")
    samples = [replace(sample, score=None, temperature=1.0) for sample in samples]
    return pack(samples, weights=algorithm.weights(samples, {}), num_ranks=world_size, max_tokens=max_tokens).rows[rank]


def run_sft(rank, world_size, port, cfg, policy, num, *, load=None, save=None, export=None):
    """`num` updates, saved and exported before the last one; returns everything that the tests compare."""
    trainer = make_trainer(rank, world_size, port, cfg, policy, Sft())
    if load:
        trainer.load(load)
    rows = sft_rows(rank, world_size, 40)
    first, first_pushed, metrics, out = parameters_of(trainer), weights_of(trainer), [], {}
    for k in range(num):
        if k == num - 1 and save:
            trainer.save(save)
        if k == num - 1 and export:
            trainer.export_hf(export)
            out |= {"scores": trainer.logprobs_of(SEQUENCES), "exported": weights_of(trainer)}
        metrics.append(trainer.update(rows))
    return out | {
        "first": first,
        "first_pushed": first_pushed,
        "last": parameters_of(trainer),
        "pushed": weights_of(trainer),
        "metrics": metrics,
        "metadata": trainer.weight_metadata(),
        "optimized": sum(state["exp_avg"].numel() for state in trainer._engine._optimizer.state.values()),
    }


def run_all(rank, world_size, port, cfg, policy, num, more):
    return run_sft(rank, world_size, port, cfg, policy, num, **more)


class PlainLora:
    """The reference: the mean negative log-likelihood of the completions, its gradient in A and B, clipping, AdamW."""

    def __init__(self, path, parameters):
        self.model = AutoModelForCausalLM.from_pretrained(path, attn_implementation="eager").double()
        self.base = {name: p.detach() for name, p in self.model.named_parameters()}
        self.adapters = {
            name: torch.tensor(value, dtype=torch.float64, requires_grad=True)
            for name, value in parameters.items()
            if ".lora_" in name
        }
        self.optimizer = torch.optim.AdamW(
            self.adapters.values(), lr=LR, betas=(0.9, 0.95), eps=ADAM_EPS, weight_decay=0.0
        )

    def merged(self):
        out = dict(self.base)
        for name in self.adapters:
            if name.endswith(".lora_a"):
                layer = name.removesuffix(".lora_a")
                change = self.adapters[f"{layer}.lora_b"] @ self.adapters[name]
                out[f"{layer}.weight"] = self.base[f"{layer}.weight"] + ALPHA / RANK * change
        return out

    def loss(self):
        merged, nll = self.merged(), []
        for completion in COMPLETIONS:
            ids = torch.tensor([completion.prompt + completion.ids])
            log = functional_call(self.model, merged, (ids,)).logits[0].log_softmax(-1)
            first = len(completion.prompt)
            nll += [-log[first + t - 1, token] for t, token in enumerate(completion.ids)]
        return torch.stack(nll).mean()

    def update(self):
        """Returns (loss, norm of the gradient before clipping)."""
        self.optimizer.zero_grad()
        loss = self.loss()
        loss.backward()
        norm = torch.nn.utils.clip_grad_norm_(self.adapters.values(), CLIP)
        self.optimizer.step()
        return loss.item(), norm.item()


@pytest.mark.parametrize(
    ("world_size", "trainer"),
    [
        (1, {}),
        (2, {"activation_checkpointing": True}),
        (2, {"zero_stage": 1}),
        (2, {"zero_stage": 2, "cpu_offload": True}),
        (2, {"zero_stage": 3, "activation_checkpointing": True}),
    ],
    ids=str,
)
def test_updates_equal_plain_lora(ranks, models, world_size, trainer):
    cfg = config(lora=LORA, **SETTINGS, **trainer)
    results = ranks[world_size].run(run_all, cfg, models.policy, UPDATES, {})
    result = results[0]
    first, last, pushed = (result[key] for key in ("first", "last", "pushed"))
    base = dict(AutoModelForCausalLM.from_pretrained(models.policy).named_parameters())
    adapters = {name for name in first if ".lora_" in name}
    assert len(adapters) == 2 * 2 * 7
    assert set(first) - adapters == set(base)
    sharded = trainer.get("zero_stage", 0) > 0
    optimized = sum(one["optimized"] for one in (results if sharded else results[:1]))
    num = sum(first[name].size for name in adapters)
    assert num <= optimized < 1.05 * num, "optimizer state covers the adapters and, sharded, a little padding"

    # Before training it is the base model; afterwards only adapters have changed.
    assert [entry[0] for entry in result["metadata"]] == list(base) == list(pushed)
    for name, p in base.items():
        np.testing.assert_array_equal(result["first_pushed"][name], p.detach())
        np.testing.assert_array_equal(last[name], p.detach())
    assert all((last[name] != first[name]).any() for name in adapters)

    plain = PlainLora(models.policy, first)
    for metrics in result["metrics"]:
        loss, norm = plain.update()
        assert metrics["loss/nll"] == pytest.approx(loss, abs=1e-5)
        assert metrics["grad_norm"] == pytest.approx(norm, rel=1e-4)
        assert norm > CLIP
    for name, wanted in plain.adapters.items():
        np.testing.assert_allclose(last[name], wanted.detach(), atol=1e-5, rtol=0, err_msg=name)
    for name, wanted in plain.merged().items():
        np.testing.assert_allclose(pushed[name], wanted.detach(), atol=1e-5, rtol=0, err_msg=name)


@pytest.mark.parametrize("name", ["policy", "untied"])
@pytest.mark.parametrize("zero_stage", [0, 3])
def test_exported_model_has_merged_weights_only(ranks, models, tmp_path, zero_stage, name):
    path = getattr(models, name)
    cfg = config(lora=LORA, **SETTINGS, zero_stage=zero_stage)
    result = ranks[2].run(run_all, cfg, path, 3, {"export": str(tmp_path)})[0]
    stored, original = load_file(tmp_path / "model.safetensors"), load_file(f"{path}/model.safetensors")
    assert stored.keys() == original.keys() == result["exported"].keys()
    for key, value in stored.items():
        np.testing.assert_array_equal(value, result["exported"][key])
    moved = {key for key, value in stored.items() if not torch.equal(value, original[key])}
    assert moved == {key for key in stored if re.search(r"_proj\.weight", key)}
    model = AutoModelForCausalLM.from_pretrained(str(tmp_path))
    for ids, got in zip(SEQUENCES, result["scores"], strict=True):
        ids = torch.tensor(ids, dtype=torch.long)
        with torch.no_grad():
            log = model(ids[None]).logits[0].log_softmax(-1)
        np.testing.assert_allclose(got[1:], log[:-1].gather(-1, ids[1:, None])[:, 0], atol=1e-5)


@pytest.mark.parametrize(
    "trainer",
    [
        {"zero_stage": 0},
        {"zero_stage": 1, "precision": "bf16"},
        {"zero_stage": 2},
        {"zero_stage": 3},
        {"zero_stage": 3, "precision": "bf16"},
    ],
    ids=str,
)
def test_saved_adapters_are_restored_exactly(ranks, models, tmp_path, trainer):
    cfg = config(lora=LORA, **SETTINGS, **trainer)
    saved = ranks[2].run(run_all, cfg, models.policy, 3, {"save": str(tmp_path)})
    cfg.seed = 1  # other initial adapters, which loading must replace
    loaded = ranks[2].run(run_all, cfg, models.policy, 1, {"load": str(tmp_path)})
    for before, after in zip(saved, loaded, strict=True):
        assert before["metrics"][-1] == after["metrics"][-1]
        for name, value in before["last"].items():
            np.testing.assert_array_equal(value, after["last"][name])
    for file in tmp_path.rglob("*_model_states.pt"):
        state = torch.load(file, weights_only=False)
        kept = {name for name, value in state["module"].items() if value.numel()}
        assert not state["frozen_param_fragments"]
        assert all(".lora_" in name for name in kept - {"lm.lm_head.weight"}), (
            "the tied head is exported under its own name"
        )


def refusal(rank, world_size, port, cfg, policy, path):
    with pytest.raises(ValueError) as error:
        run_sft(rank, world_size, port, cfg, policy, 1, load=path)
    return str(error.value)


def test_adapters_of_another_rank_are_refused(ranks, models, tmp_path):
    cfg = config(lora=LORA, **SETTINGS)
    ranks[1].run(run_all, cfg, models.policy, 1, {"save": str(tmp_path)})
    for lora in (None, LORA.model_copy(update={"rank": 2}), LORA.model_copy(update={"targets": ["q_proj"]})):
        (message,) = ranks[1].run(refusal, config(lora=lora, **SETTINGS), models.policy, str(tmp_path))
        assert re.search(r"holds trainer state of .*'rank': 4.* this run has ", message)


@pytest.mark.parametrize("zero_stage", [0, 3])
def test_adapters_of_another_base_model_are_refused(ranks, models, tmp_path, zero_stage):
    cfg = config(lora=LORA, zero_stage=zero_stage, **SETTINGS)
    ranks[1].run(run_all, cfg, models.policy, 1, {"save": str(tmp_path)})
    (message,) = ranks[1].run(refusal, cfg, models.reference, str(tmp_path))
    assert re.search(r"holds trainer state of .*'base': \d+.* this run has ", message)


@pytest.mark.parametrize(
    "trainer",
    [{"precision": "bf16_autocast"}, {"precision": "bf16", "zero_stage": 1}, {"precision": "bf16", "zero_stage": 3}],
    ids=str,
)
def test_lower_precisions_are_close_to_float32(ranks, models, trainer):
    exact = ranks[2].run(run_all, config(lora=LORA, **SETTINGS), models.policy, UPDATES, {})[0]["metrics"]
    close = ranks[2].run(run_all, config(lora=LORA, **SETTINGS, **trainer), models.policy, UPDATES, {})[0]["metrics"]
    assert exact[-1]["loss/nll"] < exact[0]["loss/nll"] - 0.1
    assert close[-1]["loss/nll"] == pytest.approx(exact[-1]["loss/nll"], abs=0.02)
    assert close[-1]["grad_norm"] == pytest.approx(exact[-1]["grad_norm"], rel=0.05)


def run_grpo(rank, world_size, port, cfg, policy):
    """The metrics of a step's first update, whose reference is the base model."""
    algorithm = grpo(num_minibatches=1)
    trainer = make_trainer(rank, world_size, port, cfg, policy, algorithm)
    reference = ReferenceWorker(
        rank=rank, world_size=world_size, master_addr="127.0.0.1", master_port=port, cfg=cfg, model_path=policy
    )
    samples = to_samples(groups_of(COMPLETIONS), truncated="mask")
    for name, worker in (("old_logprobs_T", trainer), ("ref_logprobs_T", reference)):
        column = sample_outputs(samples, Together(worker, rank, world_size, 40))
        samples = [replace(sample, **{name: column[i]}) for i, sample in enumerate(samples)]
    samples = algorithm.minibatches(algorithm.advantages(samples, {}), {}, np.random.default_rng(0))[0]
    batch = pack(samples, weights=algorithm.weights(samples, {}), num_ranks=world_size, max_tokens=40)
    return trainer.update(batch.rows[rank])


@pytest.mark.parametrize("trainer", [{}, {"zero_stage": 3}, {"zero_stage": 1, "precision": "bf16"}], ids=str)
def test_first_update_has_ratio_one_and_no_kl(ranks, models, trainer):
    metrics = ranks[2].run(run_grpo, config(lora=LORA, **trainer), models.policy)[0]
    assert metrics["ratio/max"] == pytest.approx(1.0, abs=1e-5)
    assert metrics["clip_fraction"] == 0
    assert metrics["kl_ref"] == pytest.approx(0.0, abs=1e-9)
    assert metrics["grad_norm"] > 0

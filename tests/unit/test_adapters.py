"""Adapters on a small model, compared with the formula of the paper implemented here."""

import pytest
import torch
from test_forward import CPU, make_lm, make_samples, one_row, packed_logprobs

from r1ray.config import LoraConfig
from r1ray.model.forward import Policy, row_tensors
from r1ray.model.lora import LoraLinear, add_adapters, merged_weights

LINEAR = {"q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"}


def adapted(*, targets="all-linear", seed=0, rank=4, alpha=6.0, **model):
    lm = make_lm(**model)
    add_adapters(lm, LoraConfig(rank=rank, alpha=alpha, targets=targets), seed=seed)
    return lm


def trained(lm):
    return {name: p for name, p in lm.named_parameters() if p.requires_grad}


def move_adapters(lm, scale=0.1):
    torch.manual_seed(1)
    with torch.no_grad():
        for p in trained(lm).values():
            p.add_(torch.randn_like(p) * scale)


def layers(lm):
    return {name: module for name, module in lm.named_modules() if isinstance(module, LoraLinear)}


def exported(lm):
    return {weight.name: weight.merged() for weight in merged_weights(lm)}


@pytest.mark.parametrize("family", ["qwen2", "llama"])
@pytest.mark.parametrize("tied", [True, False])
def test_new_adapters_change_nothing_and_only_they_are_trained(family, tied):
    plain, lm = make_lm(family, tied=tied), adapted(family=family, tied=tied)
    assert {name.rpartition(".")[2] for name in layers(lm)} == LINEAR
    assert len(layers(lm)) == 2 * len(LINEAR)
    assert all(name.endswith((".lora_a", ".lora_b")) for name in trained(lm)) and trained(lm)
    base = dict(plain.named_parameters())
    weights = exported(lm)
    assert list(weights) == list(base)
    for name, weight in weights.items():
        assert torch.equal(weight, base[name])
    samples = make_samples()
    for mine, theirs in zip(packed_logprobs(Policy(lm), samples), packed_logprobs(Policy(plain), samples), strict=True):
        assert (mine == theirs).all()


def test_forward_equals_the_merged_weights():
    lm = adapted(family="qwen2")
    move_adapters(lm)
    base = dict(make_lm().named_parameters())
    for name, module in layers(lm).items():
        wanted = base[f"{name}.weight"].double() + 6.0 / 4 * module.lora_b.double() @ module.lora_a.double()
        torch.testing.assert_close(exported(lm)[f"{name}.weight"].double(), wanted, atol=1e-6, rtol=0)
    merged = make_lm()
    merged.load_state_dict(exported(lm), strict=False)
    assert not torch.equal(merged.model.layers[1].mlp.up_proj.weight, base["model.layers.1.mlp.up_proj.weight"])
    samples = make_samples(temperature=0.7)
    for mine, theirs in zip(
        packed_logprobs(Policy(lm), samples), packed_logprobs(Policy(merged), samples), strict=True
    ):
        torch.testing.assert_close(torch.tensor(mine), torch.tensor(theirs), atol=1e-5, rtol=0)


@pytest.mark.parametrize("checkpointing", [False, True])
def test_only_adapters_get_gradients(checkpointing):
    lm = adapted()
    move_adapters(lm)
    if checkpointing:
        lm.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
    policy = Policy(lm).train()
    _, row = one_row(make_samples())
    policy(row_tensors(row, device=CPU))[0].sum().backward()
    for name, p in policy.named_parameters():
        assert (p.grad is not None and bool(p.grad.any())) == p.requires_grad, name


def test_bfloat16_weights_are_merged_in_float32():
    lm = adapted(dtype=torch.bfloat16)
    move_adapters(lm)
    base = dict(make_lm(dtype=torch.bfloat16).named_parameters())
    different = 0
    for name, module in layers(lm).items():
        weight = exported(lm)[f"{name}.weight"]
        exact = base[f"{name}.weight"].float() + 6.0 / 4 * module.lora_b.float() @ module.lora_a.float()
        assert torch.equal(weight, exact.to(torch.bfloat16))
        different += int((weight != base[f"{name}.weight"] + 6.0 / 4 * module.lora_b @ module.lora_a).sum())
    assert different > 100, "bfloat16 sums would have given the same"


def test_adapters_depend_on_the_seed():
    one, same, other = (trained(adapted(seed=seed)) for seed in (0, 0, 1))
    drawn = [name for name in one if name.endswith("lora_a")]
    assert all(torch.equal(one[name], same[name]) for name in one)
    assert not any(torch.equal(one[name], other[name]) for name in drawn)
    assert len({one[name][0, 0].item() for name in drawn}) == len(drawn), "every layer has its own values"
    assert all(one[name].abs().max() <= one[name].shape[1] ** -0.5 for name in drawn)


def test_targets_select_layers():
    assert {name.rpartition(".")[2] for name in layers(adapted(targets=["q_proj", "down_proj"]))} == {
        *("q_proj", "down_proj")
    }
    assert len(trained(adapted(targets="v_proj"))) == 2 * 2


@pytest.mark.parametrize("target", ["q_prj", "lm_head", "embed_tokens", "mlp", "input_layernorm"])
def test_target_that_is_not_a_linear_layer_is_refused(target):
    with pytest.raises(
        ValueError, match=rf"model.lora.targets names {target}, but .* no such linear layer: choose from down_proj, "
    ):
        adapted(targets=["q_proj", target])

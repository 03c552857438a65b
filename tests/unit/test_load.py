"""Loading a model: errors for a missing model, and for one that differs from the checked configuration."""

from types import SimpleNamespace

import pytest
import torch
from transformers import AutoModelForCausalLM, Gemma2Config, GraniteConfig, Qwen2Config

from r1ray.config import ModelProperties
from r1ray.model.load import load_critic, load_lm, load_policy
from r1ray.model.lr_schedule import lr_at
from r1ray.model.reserved import reserved_deepspeed_keys


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("model")
    config = Qwen2Config(
        vocab_size=40,
        hidden_size=16,
        intermediate_size=16,
        num_hidden_layers=1,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=64,
        tie_word_embeddings=True,
        attention_dropout=0.5,
    )
    torch.manual_seed(7)
    AutoModelForCausalLM.from_config(config).save_pretrained(path)
    return str(path)


PROPERTIES = {
    "context_length": 64,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "vocab_size": 40,
    "tie_word_embeddings": True,
}


def test_model_loads_in_the_configured_dtype_without_dropout(folder):
    lm = load_lm(folder, dtype=torch.bfloat16, properties=ModelProperties(**PROPERTIES))
    assert {p.dtype for p in lm.parameters()} == {torch.bfloat16}
    assert lm.model.layers[0].self_attn.attention_dropout == 0


def test_random_weights_depend_on_the_seed(folder):
    stored, one, same, other = (
        load_lm(folder, dtype=torch.float32, init=init, seed=seed).model.embed_tokens.weight
        for init, seed in (("pretrained", 0), ("random", 0), ("random", 0), ("random", 1))
    )
    assert torch.equal(one, same)
    assert not torch.equal(one, other)
    assert not torch.equal(one, stored)


def test_all_wrong_facts_are_listed(folder):
    properties = ModelProperties(**PROPERTIES | {"context_length": 128, "tie_word_embeddings": False})
    with pytest.raises(
        ValueError,
        match=r"context_length=128, the model has 64; model.properties.tie_word_embeddings=False, the model has True",
    ):
        load_lm(folder, dtype=torch.float32, properties=properties)


def test_missing_folder_is_named(tmp_path):
    with pytest.raises(
        ValueError, match=r"model.path=.*nowhere cannot be loaded: it must be a folder with config.json"
    ):
        load_lm(str(tmp_path / "nowhere"), dtype=torch.float32)


def others(**paths):
    """The sections of a Config that loading reads, for a model whose properties differ from the policy's."""
    properties = ModelProperties(**PROPERTIES | {"vocab_size": 41})
    critic = SimpleNamespace(path=paths.get("critic"), head_init="zero")
    return SimpleNamespace(model=SimpleNamespace(properties=properties), critic=critic, seed=0)


def test_facts_apply_only_to_the_policy_model(folder):
    with pytest.raises(ValueError, match=r"model.path=.* contradicts model.properties"):
        load_policy(folder, cfg=others(), precision="fp32")
    assert load_policy(folder, cfg=others(), precision="fp32", key="prm.path").lm.config.vocab_size == 40
    assert load_critic(folder, cfg=others(critic=folder), precision="fp32").head.weight.shape == (1, 16)


def test_critic_that_cannot_be_exported_is_refused_at_the_start(tmp_path):
    """Transformers has Granite as a language model but not as a classifier."""
    GraniteConfig().save_pretrained(tmp_path)
    with pytest.raises(
        ValueError, match=r"^critic.path=.* has none for granite: set critic.path to .* of another family"
    ):
        load_critic(str(tmp_path), cfg=others(critic=str(tmp_path)), precision="fp32")


def test_model_that_cannot_be_loaded_is_reported_with_its_key(folder, tmp_path):
    nowhere, wanted = str(tmp_path / "nowhere"), r"cannot be loaded: it must be a folder with config.json"
    with pytest.raises(ValueError, match=rf"^critic.path=.*nowhere {wanted}"):
        load_critic(nowhere, cfg=others(critic=nowhere), precision="fp32")
    with pytest.raises(ValueError, match=rf"^model.path=.*nowhere {wanted}"):
        load_critic(nowhere, cfg=others(), precision="fp32")
    with pytest.raises(ValueError, match=rf"^prm.path=.*nowhere {wanted}"):
        load_policy(nowhere, cfg=others(), precision="fp32", key="prm.path")
    empty = tmp_path / "classifier"
    Qwen2Config(architectures=["Qwen2ForSequenceClassification"], num_labels=1).save_pretrained(empty)
    with pytest.raises(ValueError, match=rf"^critic.path=.*classifier {wanted}"):
        load_critic(str(empty), cfg=others(critic=str(empty)), precision="fp32")


def test_model_that_changes_its_logits_is_refused(tmp_path):
    Gemma2Config(final_logit_softcapping=30.0).save_pretrained(tmp_path)
    with pytest.raises(ValueError, match="final_logit_softcapping"):
        load_lm(str(tmp_path), dtype=torch.float32)


def test_reserved_deepspeed_keys_are_found_at_any_depth():
    mine = {"fp16": {}, "zero_optimization": {"stage": 1, "overlap_comm": True}, "wall_clock_breakdown": True}
    assert reserved_deepspeed_keys(mine) == ["fp16", "zero_optimization.stage"]
    assert reserved_deepspeed_keys({"zero_optimization": {"overlap_comm": True}}) == []


def test_learning_rate_warms_up_and_ends_at_its_minimum():
    def lrs(schedule):
        return [lr_at(u, lr=1.0, schedule=schedule, warmup_updates=2, total_updates=7, min_ratio=0.1) for u in range(8)]

    assert lrs("constant") == [0.5] + [1.0] * 7
    assert lrs("linear") == pytest.approx([0.5, 1.0, 1.0, 0.775, 0.55, 0.325, 0.1, 0.1])
    cosine = lrs("cosine")
    assert cosine[2] == 1.0
    assert cosine[4] == pytest.approx(0.55)
    assert cosine[6:] == pytest.approx([0.1, 0.1])

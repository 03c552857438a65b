"""Mixture-of-experts models are distinguished from dense models, by name and by config, as published."""

from types import SimpleNamespace
from typing import Any

import pytest

from r1ray.model.experts import NAMES, experts_of


@pytest.mark.parametrize(
    "name",
    [
        *(
            "DeepSeek-V3-Base",
            "DeepSeek-V3.1",
            "DeepSeek-V2-Lite",
            "DeepSeek-R1",
            "DeepSeek-R1-Zero",
            "DeepSeek-R1-0528",
        ),
        *(
            "Qwen3-30B-A3B",
            "Qwen3-235B-A22B-Instruct-2507",
            "Qwen1.5-MoE-A2.7B",
            "Mixtral-8x7B-v0.1",
            "OLMoE-1B-7B-0924",
        ),
        *("gpt-oss-20b", "Kimi-K2-Instruct", "GLM-4.5-Air", "Llama-4-Scout-17B-16E", "Phi-3.5-MoE-instruct"),
    ],
)
def test_mixture_of_experts_is_recognised_by_name(name: str) -> None:
    assert NAMES.search(name)


@pytest.mark.parametrize(
    "name",
    [
        *(
            "DeepSeek-R1-Distill-Qwen-32B",
            "DeepSeek-R1-Distill-Llama-70B",
            "DeepSeek-R1-0528-Qwen3-8B",
            "deepseek-math-7b-base",
        ),
        *("Qwen2.5-32B", "Qwen3-8B-Base", "Qwen2.5-Math-7B", "MiMo-7B-Base", "Llama-3.1-8B-Instruct", "Eurus-2-7B-SFT"),
        *("Light-R1-14B-DS", "Skywork-OR1-7B", "OpenReasoner-Zero-32B", "Mistral-7B-v0.1", "GLM-4-9B", "Llama-3.2-1B"),
    ],
)
def test_dense_model_is_not_recognised_as_mixture_of_experts(name: str) -> None:
    assert not NAMES.search(name)


@pytest.mark.parametrize(
    ("config", "number"),
    [
        ({"hidden_size": 8}, 0),
        ({"num_experts": None, "n_routed_experts": 256, "num_experts_per_tok": 8}, 256),
        ({"num_local_experts": 8}, 8),
        ({"text_config": {"num_experts": 128}}, 128),
        ({"text_config": {"hidden_size": 8}, "vision_config": {}}, 0),
    ],
)
def test_experts_are_counted_from_the_config(config: dict[str, Any], number: int) -> None:
    assert experts_of(config) == number


def test_mixture_of_experts_with_another_name_is_refused_on_loading(monkeypatch: pytest.MonkeyPatch) -> None:
    from r1ray.model import load

    config = SimpleNamespace(to_dict=lambda: {"num_experts": 64}, num_experts=64)
    monkeypatch.setattr(load.AutoConfig, "from_pretrained", lambda path: config)
    with pytest.raises(ValueError, match=r"model\.path=org/secret is a mixture of experts \(64 a layer\)"):
        load.load_lm("org/secret", dtype=load.torch.float32)

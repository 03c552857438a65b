"""Loads a causal language model from a folder or the hub, ready for packed rows, and saves it to a folder for other tools."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from copy import deepcopy
from pathlib import Path
from typing import Any, Literal

import torch
from huggingface_hub import save_torch_state_dict
from torch import Tensor
from transformers import (
    MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING,
    AttentionInterface,
    AutoConfig,
    AutoModelForCausalLM,
    AutoModelForSequenceClassification,
    AutoTokenizer,
    GenerationConfig,
    PreTrainedModel,
)

from r1ray.config import Config, LoraConfig, ModelProperties
from r1ray.data.chat_template import exported_chat_template
from r1ray.model import attention
from r1ray.model.experts import REASON, experts_of
from r1ray.model.forward import Policy
from r1ray.model.lora import add_adapters
from r1ray.model.value import ValueModel, value_head

AttentionInterface.register(attention.NAME, attention.packed_attention)

Init = Literal["pretrained", "random"]

_OTHER_LOGITS = ("final_logit_softcapping", "logit_scale", "logits_scaling")
"""Config keys of models that change logits after lm_head, which r1ray's head does not support."""


def load_policy(
    path: str,
    *,
    cfg: Config,
    init: Init = "pretrained",
    precision: str | None = None,
    key: str = "model.path",
    lora: LoraConfig | None = None,
) -> Policy:
    """The model in `precision` (default cfg.trainer.precision). Trainer and reference load it alike, so that their first KL is 0.

    Args:
        key: the configuration key of the path; model.properties describe model.path only.
        lora: freezes the model and adds adapters, which change no output yet.
    """
    precision = precision or cfg.trainer.precision
    dtype = torch.bfloat16 if precision == "bf16" else torch.float32
    properties = cfg.model.properties if key == "model.path" else None
    lm = load_lm(path, dtype=dtype, properties=properties, init=init, seed=cfg.seed, key=key)
    if lora is not None:
        add_adapters(lm, lora, seed=cfg.seed)
    return Policy(lm, autocast=precision == "bf16_autocast")


def load_critic(path: str, *, cfg: Config, precision: str) -> ValueModel:
    """A critic from a language model, with a new head, or from a reward model, with its head.

    Raises:
        ValueError: as in `load_lm`; a reward model with more than one output.
    """
    dtype = torch.bfloat16 if precision == "bf16" else torch.float32
    autocast = precision == "bf16_autocast"
    key = "model.path" if cfg.critic.path is None else "critic.path"
    with _named(key, path):
        config = AutoConfig.from_pretrained(path)
    if not any(name.endswith("ForSequenceClassification") for name in config.architectures or []):
        if type(config) not in MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING:
            raise ValueError(
                f"{key}={path}: a critic is exported as a sequence classifier, and transformers has none for {config.model_type}: "
                "set critic.path to a model of another family, or choose an algorithm without a critic (algo=grpo)"
            )
        lm = load_lm(path, dtype=dtype, seed=cfg.seed, key=key)
        head = value_head(lm.config.hidden_size, init=cfg.critic.head_init, seed=cfg.seed)
        return ValueModel(lm.model, head.to(dtype), autocast=autocast)
    _check(config, name=f"{key}={path}", properties=None)
    if config.num_labels != 1:
        raise ValueError(f"{key}={path} has {config.num_labels} outputs: a reward model has one")
    config.attention_dropout = 0.0
    with _named(key, path):
        model: Any = AutoModelForSequenceClassification.from_pretrained(
            path, config=config, dtype=dtype, attn_implementation=attention.NAME
        )
    return ValueModel(model.model, model.score, autocast=autocast)


def load_lm(
    path: str,
    *,
    dtype: torch.dtype,
    properties: ModelProperties | None = None,
    init: Init = "pretrained",
    seed: int = 0,
    key: str = "model.path",
) -> PreTrainedModel:
    """The model on the CPU, with r1ray's packed attention and without dropout.

    `init="random"` draws new weights from the folder's config and the seed. Raises ValueError when the model cannot be loaded,
    contradicts `properties` (which the configuration check used), or changes its logits in a way that r1ray does not support.
    """
    with _named(key, path):
        config = AutoConfig.from_pretrained(path)
        _check(config, name=f"{key}={path}", properties=properties)
        if hasattr(config, "attention_dropout"):
            config.attention_dropout = 0.0  # a ratio of two passes over the same tokens must be 1
        if init == "random":
            torch.manual_seed(seed)
            return AutoModelForCausalLM.from_config(config, dtype=dtype, attn_implementation=attention.NAME)
        return AutoModelForCausalLM.from_pretrained(
            path, config=config, dtype=dtype, attn_implementation=attention.NAME
        )


@contextmanager
def _named(key: str, path: str) -> Iterator[None]:
    """Turns a failed load into a ValueError that names the configuration key."""
    try:
        yield
    except OSError as error:
        local = Path(path).exists() or path.startswith((".", "/", "~"))
        remedy = (
            "it must be a folder with config.json and weights"
            if local
            else "check the hub name, and that the hub can be reached"
        )
        raise ValueError(f"{key}={path} cannot be loaded: {remedy}\n{error}") from error


def save_lm(weights: Mapping[str, Tensor], path: str, *, lm: PreTrainedModel, source: str, template: str) -> None:
    """Write config, safetensors, tokenizer and generation settings.

    Args:
        weights: all weights, unsharded, on the CPU.
        lm: the model, for its config.
        source: the model folder or hub name from which tokenizer and generation settings are copied.
        template: `model.template`, which becomes the chat template of the tokenizer.
    """
    save_weights(weights, path, config=lm.config)
    folder = Path(path)
    tokenizer = AutoTokenizer.from_pretrained(source)
    tokenizer.chat_template = exported_chat_template(template, tokenizer)
    tokenizer.save_pretrained(folder)
    generation = _generation_settings(source)
    generation.eos_token_id = _eos_ids(lm, tokenizer.eos_token_id)
    for name in ("bos_token_id", "pad_token_id"):
        if getattr(generation, name) is None:
            setattr(generation, name, getattr(tokenizer, name))
    generation.save_pretrained(folder)


def _generation_settings(source: str) -> GenerationConfig:
    """Those of the model from which training started. Where they say nothing of sampling (transformers writes such a file for every
    model), DeepSeek-R1's (model card), against endless repetition.
    """
    try:
        settings = GenerationConfig.from_pretrained(source)
    except OSError:
        settings = GenerationConfig()
    if (settings.do_sample, settings.temperature, settings.top_p) == (None, None, None):
        settings.update(do_sample=True, temperature=0.6, top_p=0.95)
    return settings


def save_weights(weights: Mapping[str, Tensor], path: str, *, config: Any) -> None:
    """Write config and safetensors, without a tokenizer: for a model that is only used with a policy, which has one."""
    folder = Path(path)
    folder.mkdir(parents=True, exist_ok=True)
    save_torch_state_dict(dict(weights), folder)
    config.dtype = next(iter(weights.values())).dtype
    config.save_pretrained(folder)


def save_critic(weights: Mapping[str, Tensor], head_1E: Tensor, path: str, *, body: PreTrainedModel) -> None:
    """Write a critic as a reward model, which `load_critic` and transformers load: sequence classification with one label.

    Its score of a sequence is the value after the last token. It is written without a tokenizer.

    Args:
        weights: the weights of the body.
    """
    config = deepcopy(body.config)
    config.num_labels = 1
    with torch.device("meta"):
        config.architectures = [type(AutoModelForSequenceClassification.from_config(config)).__name__]
    named = {f"model.{name}": weight for name, weight in weights.items()}
    save_weights({**named, "score.weight": head_1E}, path, config=config)


def _eos_ids(lm: PreTrainedModel, tokenizer_eos: int | None) -> int | list[int] | None:
    """All ids that end a completion: the model's generation config may have more than the tokenizer."""
    known = lm.generation_config.eos_token_id if lm.generation_config is not None else None
    ids = known if isinstance(known, list) else [known]
    ids = list(dict.fromkeys(i for i in (tokenizer_eos, *ids) if i is not None))
    return ids[0] if len(ids) == 1 else ids or None


def _check(config: Any, *, name: str, properties: ModelProperties | None) -> None:
    if (number := experts_of(config.to_dict())) > 1:
        raise ValueError(f"{name} is a mixture of experts ({number} a layer). {REASON}")
    for changed in _OTHER_LOGITS:
        if getattr(config, changed, None) not in (None, 1.0):
            raise ValueError(f"{name}: the model changes its logits by {changed}, which r1ray does not support")
    if properties is None:
        return
    real = {
        "context_length": config.max_position_embeddings,
        "num_attention_heads": config.num_attention_heads,
        "num_key_value_heads": config.num_key_value_heads,
        "vocab_size": config.vocab_size,
        "tie_word_embeddings": config.tie_word_embeddings,
    }
    wrong = [
        f"model.properties.{name}={getattr(properties, name)}, the model has {value}"
        for name, value in real.items()
        if getattr(properties, name) != value
    ]
    if wrong:
        raise ValueError(f"{name} contradicts model.properties: {'; '.join(wrong)}")

"""A causal language model from a folder or the hub, ready for packed rows; and back into a folder that others load."""

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

from r1ray.config import Config, LoraConfig, ModelFacts
from r1ray.model import attention
from r1ray.model.experts import REASON, experts_of
from r1ray.model.forward import Policy
from r1ray.model.lora import add_adapters
from r1ray.model.value import ValueModel, value_head

AttentionInterface.register(attention.NAME, attention.packed_attention)

Init = Literal["pretrained", "random"]

_OTHER_LOGITS = ("final_logit_softcapping", "logit_scale", "logits_scaling")
"""What some models do to logits after lm_head, which r1ray's head does not."""


def load_policy(
    path: str,
    *,
    cfg: Config,
    init: Init = "pretrained",
    precision: str | None = None,
    key: str = "model.path",
    lora: LoraConfig | None = None,
) -> Policy:
    """The model as `cfg.trainer.precision` wants it, or another; trainer and reference load alike, so that their first KL is 0.

    Args:
        key: which key names the model: model.facts are of model.path alone.
        lora: freezes it but for adapters, which change nothing yet.
    """
    precision = precision or cfg.trainer.precision
    dtype = torch.bfloat16 if precision == "bf16" else torch.float32
    facts = cfg.model.facts if key == "model.path" else None
    lm = load_lm(path, dtype=dtype, facts=facts, init=init, seed=cfg.seed, key=key)
    if lora is not None:
        add_adapters(lm, lora, seed=cfg.seed)
    return Policy(lm, autocast=precision == "bf16_autocast")


def load_critic(path: str, *, cfg: Config, precision: str) -> ValueModel:
    """A critic from a language model, with a head of its own, or from a reward model, whose head it takes over.

    Raises:
        ValueError: as `load_lm`; a reward model with more than one output.
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
                "set critic.path to a model of another family, or take an algorithm without a critic (algo=grpo)"
            )
        lm = load_lm(path, dtype=dtype, seed=cfg.seed, key=key)
        head = value_head(lm.config.hidden_size, init=cfg.critic.head_init, seed=cfg.seed)
        return ValueModel(lm.model, head.to(dtype), autocast=autocast)
    _check(config, name=f"{key}={path}", facts=None)
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
    facts: ModelFacts | None = None,
    init: Init = "pretrained",
    seed: int = 0,
    key: str = "model.path",
) -> PreTrainedModel:
    """The model on the CPU, with r1ray's packed attention and without dropout.

    `init="random"` draws the weights anew from the folder's config and the seed. Raises ValueError when the model cannot be had,
    contradicts `facts` (what the configuration was checked against), or does something to its logits that r1ray does not know.
    """
    with _named(key, path):
        config = AutoConfig.from_pretrained(path)
        _check(config, name=f"{key}={path}", facts=facts)
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
    """What cannot be had is said with the key that names it."""
    try:
        yield
    except OSError as error:
        local = Path(path).exists() or path.startswith((".", "/", "~"))
        remedy = (
            "it must be a folder with config.json and weights"
            if local
            else "is the hub name right, and the hub in reach?"
        )
        raise ValueError(f"{key}={path} cannot be loaded: {remedy}\n{error}") from error


def save_lm(weights: Mapping[str, Tensor], path: str, *, lm: PreTrainedModel, source: str) -> None:
    """Write config, safetensors, tokenizer with its chat template, and generation settings.

    Args:
        weights: all of them, whole, on the CPU.
        lm: whose config this is.
        source: the model folder or hub name whose tokenizer goes along.
    """
    save_weights(weights, path, config=lm.config)
    folder = Path(path)
    tokenizer = AutoTokenizer.from_pretrained(source)
    tokenizer.save_pretrained(folder)
    generation = GenerationConfig(
        do_sample=True,
        temperature=0.6,  # DeepSeek-R1's model card: 0.6 and 0.95 against endless repetition
        top_p=0.95,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=_eos_ids(lm, tokenizer.eos_token_id),
        pad_token_id=tokenizer.pad_token_id,
    )
    generation.save_pretrained(folder)


def save_weights(weights: Mapping[str, Tensor], path: str, *, config: Any) -> None:
    """Write config and safetensors, and no tokenizer: for a model that is never asked but beside a policy, which has one."""
    folder = Path(path)
    folder.mkdir(parents=True, exist_ok=True)
    save_torch_state_dict(dict(weights), folder)
    config.dtype = next(iter(weights.values())).dtype
    config.save_pretrained(folder)


def save_critic(weights: Mapping[str, Tensor], head_1E: Tensor, path: str, *, body: PreTrainedModel) -> None:
    """Write a critic as reward models are, which `load_critic` and transformers load: sequence classification of one label.

    Its score of a sequence is the value of what comes after the last token. There is no tokenizer beside it.

    Args:
        weights: the body's.
    """
    config = deepcopy(body.config)
    config.num_labels = 1
    with torch.device("meta"):
        config.architectures = [type(AutoModelForSequenceClassification.from_config(config)).__name__]
    named = {f"model.{name}": weight for name, weight in weights.items()}
    save_weights({**named, "score.weight": head_1E}, path, config=config)


def _eos_ids(lm: PreTrainedModel, tokenizer_eos: int | None) -> int | list[int] | None:
    """All ids that end a completion: the model's own generation settings may name more than the tokenizer does."""
    known = lm.generation_config.eos_token_id if lm.generation_config is not None else None
    ids = known if isinstance(known, list) else [known]
    ids = list(dict.fromkeys(i for i in (tokenizer_eos, *ids) if i is not None))
    return ids[0] if len(ids) == 1 else ids or None


def _check(config: Any, *, name: str, facts: ModelFacts | None) -> None:
    if (number := experts_of(config.to_dict())) > 1:
        raise ValueError(f"{name} is a mixture of experts ({number} a layer). {REASON}")
    for changed in _OTHER_LOGITS:
        if getattr(config, changed, None) not in (None, 1.0):
            raise ValueError(f"{name}: its logits are changed by {changed}, which r1ray does not support")
    if facts is None:
        return
    real = {
        "context_length": config.max_position_embeddings,
        "num_attention_heads": config.num_attention_heads,
        "num_key_value_heads": config.num_key_value_heads,
        "vocab_size": config.vocab_size,
        "tied": config.tie_word_embeddings,
    }
    wrong = [
        f"model.facts.{fact}={getattr(facts, fact)}, the model has {value}"
        for fact, value in real.items()
        if getattr(facts, fact) != value
    ]
    if wrong:
        raise ValueError(f"{name} is not what model.facts says: {'; '.join(wrong)}")

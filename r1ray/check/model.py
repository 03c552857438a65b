"""What can be known of a model without loading it: config.json, the chat template, or model.facts for a hub name."""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import r1ray.builtin
from r1ray.mistakes import NOT_CHECKED, Mistake, closest, did_you_mean
from r1ray.config import (
    AuxiliaryTrainerConfig,
    CriticConfig,
    ModelConfig,
    ModelFacts,
    RewardConfig,
    SftConfig,
)
from r1ray.data.templates import OF_CHAT, TELL_TAGS, TEMPLATES
from r1ray.plugin import resolve
from r1ray.model.experts import NAMES, REASON, experts_of

HUB_NAME = re.compile(r"[\w.-]+/[\w.-]+")
FACT_NAMES = {
    "context_length": ("max_position_embeddings", "n_positions"),
    "num_attention_heads": ("num_attention_heads", "n_head"),
    "num_key_value_heads": ("num_key_value_heads", "num_attention_heads", "n_head"),
    "vocab_size": ("vocab_size",),
    "tied": ("tie_word_embeddings",),
}
"""{our fact: where a config.json has it, the first that is there}."""




def local_folder(path: str) -> Path | None:
    """The folder of a model on this disk; None for a hub name."""
    if path == "builtin":
        return r1ray.builtin.path()
    folder = Path(path).expanduser()
    return folder if folder.is_dir() or path.startswith(("/", ".", "~")) else None


def facts_of(model: ModelConfig) -> tuple[ModelFacts | None, list[Finding]]:
    """What the other checks need of the model, and what is wrong or unknown about it."""
    folder = local_folder(model.path)
    if folder is None:
        return model.facts, list(_hub(model))
    try:
        found = read_facts(folder)
    except FileNotFoundError:
        rule = f"{folder} has no config.json" if folder.is_dir() else f"{folder} is not a folder"
        remedy = "give a folder as transformers saves it, a hub name (org/name), or model=builtin"
        return model.facts, [Mistake(key="model.path", value=model.path, rule=rule, remedy=remedy)]
    except ValueError as error:
        return model.facts, [
            Mistake(key="model.path", value=model.path, rule=str(error), remedy="repair or replace the file")
        ]
    return found, list(_contradictions(model, found))


def read_facts(folder: Path) -> ModelFacts:
    """From a folder's config.json.

    Raises:
        FileNotFoundError: there is none.
        ValueError: it lacks something.
    """
    file = folder / "config.json"
    try:
        config: dict[str, Any] = json.loads(file.read_text())
    except ValueError as error:
        raise ValueError(f"{file} is not JSON ({error})") from error
    config = config.get("text_config", config)
    values: dict[str, Any] = {"tied": False}
    for fact, names in FACT_NAMES.items():
        given = [config[name] for name in names if config.get(name) is not None]
        values |= {fact: given[0]} if given else {}
    missing = FACT_NAMES.keys() - values.keys()
    if missing:
        raise ValueError(f"{file} does not say {', '.join(FACT_NAMES[fact][0] for fact in sorted(missing))}")
    return ModelFacts(**values)


def token_count(path: str) -> int | None:
    """One more than the highest id of a local model's tokenizer; None where no tokenizer.json says it."""
    folder = local_folder(path)
    try:
        tokenizer: dict[str, Any] = json.loads((folder / "tokenizer.json").read_text()) if folder else {}
        vocab: dict[str, int] | list[Any] = tokenizer["model"]["vocab"]
        added: list[dict[str, Any]] = tokenizer.get("added_tokens", [])
    except (OSError, ValueError, KeyError, TypeError):
        return None
    known = vocab.values() if isinstance(vocab, dict) else range(len(vocab))
    return 1 + max(-1, *known, *(token["id"] for token in added))


def dense(view: StageView) -> Iterator[Mistake]:
    """No model that is trained is a mixture of experts; one that is only served (an eval stage, a judge) may be."""
    model, critic, prm, needed = view.model, view.critic, view.prm, view.roles
    paths = {"model.path": model.path} | {
        f"{role}.path": section.path for role, section in (("critic", critic), ("prm", prm)) if role in needed
    }
    for key, path in paths.items():
        if path is not None and (words := _mixture(path)):
            remedy = f"{key}=a dense model; R1's distilled models are (deepseek-ai/DeepSeek-R1-Distill-Qwen-32B)"
            yield Mistake(key=key, value=path, rule=f"is a mixture of experts ({words}). {REASON}", remedy=remedy)


def _mixture(path: str) -> str | None:
    """How one can tell that it is one."""
    folder = local_folder(path)
    if folder is None:
        found = NAMES.search(path.rpartition("/")[2])
        return f"by its name, {found[0]}" if found else None
    try:
        number = experts_of(json.loads((folder / "config.json").read_text()))
    except (OSError, ValueError):
        return None  # told by facts_of
    return f"{number} experts a layer by its config.json" if number > 1 else None


def trained_files(view: StageView) -> Iterator[Mistake]:
    """As `files`, but for weights that are drawn anew."""
    model, sft = view.model, view.sft
    yield from files(model, weights=not (not view.kind.generates and sft.init == "random"))


def files(model: ModelConfig, *, weights: bool = True, tokenizer: bool = True) -> Iterator[Mistake]:
    """A local model has its weights and its tokenizer, where they are needed."""
    folder = local_folder(model.path)
    if folder is None or not (folder / "config.json").exists():
        return
    needed = {"tokenizer*": "tokenizer"} if tokenizer else {}
    needed |= {"*.safetensors": "weights"} if weights else {}
    for pattern, what in needed.items():
        if not any(folder.glob(pattern)):
            rule = f"{folder} has no {what} ({pattern})"
            remedy = "give a folder that transformers' save_pretrained wrote, for both model and tokenizer"
            yield Mistake(key="model.path", value=model.path, rule=rule, remedy=remedy)


def think_tags(view: StageView) -> Iterator[Finding]:
    """The format reward asks for <think> and <answer>: the prompt has to say so."""
    model, reward = view.model, view.reward
    name = model.template
    if name not in TEMPLATES:
        yield from _custom_template(model)
        return
    of_hub = local_folder(model.path) is None
    if name in OF_CHAT and not of_hub and (missing := list(has_chat_template(model))):
        yield from missing
        return
    if name in TELL_TAGS:
        return
    if name in OF_CHAT and of_hub:
        yield f"{NOT_CHECKED}whether the chat template of {model.path} has think tags (it is on the hub)"
        return
    chat = (chat_template(model.path) if name in OF_CHAT else None) or ""
    parts = [key for key, part in reward.components.items() if (part.name or key) == "format" and part.weighs]
    if parts and "<think>" not in chat:
        yield Mistake(
            key="model.template",
            value=name,
            rule=f"reward.components.{parts[0]} asks for <think> and <answer> tags, and this template never mentions them",
            remedy=f"model.template=r1_zero, or reward.components.{parts[0]}.weight=0",
        )


def has_chat_template(model: ModelConfig) -> Iterator[Mistake]:
    """Of a local model."""
    folder = local_folder(model.path)
    if folder is not None and folder.is_dir() and chat_template(model.path) is None:
        rule = f"the tokenizer in {folder} has no chat template"
        yield Mistake(key="model.template", value=model.template, rule=rule, remedy="model.template=r1_zero")


def _hub(model: ModelConfig) -> Iterator[Finding]:
    path = model.path
    if not HUB_NAME.fullmatch(path):
        guess = closest(path, ["builtin"])
        rule = "is neither a folder that exists, nor a hub name (org/name), nor builtin"
        remedy = f"did you mean {guess}?" if guess else "check the spelling; a local folder is best given as ./folder"
        yield Mistake(key="model.path", value=path, rule=rule, remedy=remedy)
        return
    parent = Path(path).parent
    if parent.is_dir():
        rule = f"is not a folder, though ./{parent} is one: a local path or a hub name?"
        folders = [entry.name for entry in parent.iterdir() if entry.is_dir()]
        remedy = did_you_mean(Path(path).name, folders, prefix=f"{parent}/")
        yield Mistake(key="model.path", value=path, rule=rule, remedy=remedy)
    elif model.facts is None:
        keys = ", ".join(f"{fact}: ..." for fact in ModelFacts.model_fields)
        yield (
            f"{NOT_CHECKED}{path} is a hub name and model.facts is null: context length, heads and vocabulary are unknown until "
            f"it is loaded. To have them checked now: 'model.facts={{{keys}}}'"
        )
    else:
        yield f"{NOT_CHECKED}{path} is a hub name: model.facts is compared with the real model when it is loaded"


def _contradictions(model: ModelConfig, found: ModelFacts) -> Iterator[Mistake]:
    for fact in ModelFacts.model_fields if model.facts else ():
        said, real = getattr(model.facts, fact), getattr(found, fact)
        if said != real:
            rule = f"the model's config.json says {str(real).lower()}"
            yield Mistake(
                key=f"model.facts.{fact}", value=said, rule=rule, remedy="model.facts=null: a local model needs none"
            )


def _custom_template(model: ModelConfig) -> Iterator[Finding]:
    name = model.template
    try:
        resolve(name, TEMPLATES, what="template")
    except ValueError as error:
        remedy = "put its package on PYTHONPATH" if ":" in name else did_you_mean(name, TEMPLATES)
        rule = str(error) if ":" in name else "is neither a template's name nor package.module:function"
        yield Mistake(key="model.template", value=name, rule=rule, remedy=remedy)
    else:
        yield f"{NOT_CHECKED}whether the template {name} has think tags (it is your own code)"


def chat_template(path: str) -> str | None:
    """Its text, from the tokenizer's files; several templates are joined."""
    folder = local_folder(path)
    if folder is None:
        return None
    jinja, config = folder / "chat_template.jinja", folder / "tokenizer_config.json"
    if jinja.exists():
        return jinja.read_text()
    template: Any = json.loads(config.read_text()).get("chat_template") if config.exists() else None
    if not isinstance(template, list):
        return template
    return "\n".join(entry["template"] for entry in cast("list[dict[str, str]]", template))

"""The model: does it exist, is it one that can be trained, and does its template say what rewards need?"""

import json
import re
from collections.abc import Iterator
from pathlib import Path

from r1ray.config import ModelConfig, ModelFacts
from r1ray.config.view import StageView
from r1ray.data.templates import OF_CHAT, OWN_TEXT, TEMPLATES
from r1ray.mistakes import NOT_CHECKED, Finding, Mistake, closest, did_you_mean
from r1ray.model.experts import NAMES, REASON, experts_of
from r1ray.model.files import chat_template, local_folder, read_facts
from r1ray.plugin import resolve

HUB_NAME = re.compile(r"[\w.-]+/[\w.-]+")


def facts_of(model: ModelConfig) -> tuple[ModelFacts | None, list[Finding]]:
    """The facts that other rules need of the model, and its mistakes and notes."""
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


def dense(view: StageView) -> Iterator[Mistake]:
    """No model that is trained is a mixture of experts; one that is only served (an eval stage, a judge) may be."""
    model, critic, prm, needed = view.model, view.critic, view.prm, view.roles
    paths = {"model.path": model.path} | {
        f"{role}.path": section.path for role, section in (("critic", critic), ("prm", prm)) if role in needed
    }
    for key, path in paths.items():
        if path is not None and (words := _mixture(path)):
            remedy = f"{key}=a dense model; R1's distilled models are (deepseek-ai/DeepSeek-R1-Distill-Qwen-32B)"
            yield view.mistake(key, f"is a mixture of experts ({words}). {REASON}", remedy)


def _mixture(path: str) -> str | None:
    """Why it is taken for a mixture of experts; None where it is not."""
    folder = local_folder(path)
    if folder is None:
        found = NAMES.search(path.rpartition("/")[2])
        return f"by its name, {found[0]}" if found else None
    try:
        number = experts_of(json.loads((folder / "config.json").read_text()))
    except (OSError, ValueError):
        return None  # reported by facts_of
    return f"{number} experts a layer by its config.json" if number > 1 else None


def trained_files(view: StageView) -> Iterator[Mistake]:
    """As `files`, without weights where they are initialised at random."""
    model, sft = view.model, view.sft
    yield from files(model, weights=view.kind.generates or sft.init != "random")


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


def template(view: StageView) -> Iterator[Finding]:
    """It exists, and so does the model's chat template where it is used."""
    model = view.model
    if model.template not in TEMPLATES:
        yield from _custom_template(model)
    elif model.template in OF_CHAT and local_folder(model.path) is None:
        yield f"{NOT_CHECKED}what the chat template of {model.path} says (it is on the hub)"
    elif model.template in OF_CHAT:
        yield from has_chat_template(model)


def template_text(model: ModelConfig) -> str | None:
    """Text that every prompt of this model contains; None where it is unknown (a user's template, a chat template on the hub)."""
    if model.template not in OWN_TEXT or (model.template in OF_CHAT and local_folder(model.path) is None):
        return None
    chat = chat_template(model.path) if model.template in OF_CHAT else None
    return OWN_TEXT[model.template] + (chat or "")


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
        given, real = getattr(model.facts, fact), getattr(found, fact)
        if given != real:
            rule = f"the model's config.json has {str(real).lower()}"
            remedy = "model.facts=null: a local model needs none"
            yield Mistake(key=f"model.facts.{fact}", value=given, rule=rule, remedy=remedy)


def _custom_template(model: ModelConfig) -> Iterator[Finding]:
    name = model.template
    try:
        resolve(name, TEMPLATES, what="template")
    except ValueError as error:
        remedy = "put its package on PYTHONPATH" if ":" in name else did_you_mean(name, TEMPLATES)
        rule = str(error) if ":" in name else "is neither a template's name nor package.module:function"
        yield Mistake(key="model.template", value=name, rule=rule, remedy=remedy)
    else:
        yield f"{NOT_CHECKED}what the template {name} asks for: it is not one of r1ray's"

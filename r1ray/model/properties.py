"""Checks of a model before it is loaded: its properties (context length, heads, vocabulary), its files and its name on the hub."""

import re
from collections.abc import Iterator
from pathlib import Path

from r1ray.config import ModelConfig, ModelProperties
from r1ray.mistakes import NOT_CHECKED, Finding, Mistake, closest, did_you_mean
from r1ray.model.files import chat_template, local_folder, read_properties

HUB_NAME = re.compile(r"[\w.-]+/[\w.-]+")


def properties_of(model: ModelConfig) -> tuple[ModelProperties | None, list[Finding]]:
    """The model's properties, which other rules need, and the mistakes and notes that were found."""
    folder = local_folder(model.path)
    if folder is None:
        return model.properties, list(_hub(model))
    try:
        found = read_properties(folder)
    except FileNotFoundError:
        rule = f"{folder} has no config.json" if folder.is_dir() else f"{folder} is not a folder"
        remedy = "give a folder as transformers saves it, a hub name (org/name), or model=builtin"
        return model.properties, [Mistake(key="model.path", value=model.path, rule=rule, remedy=remedy)]
    except ValueError as error:
        return model.properties, [
            Mistake(key="model.path", value=model.path, rule=str(error), remedy="repair or replace the file")
        ]
    return found, list(_contradictions(model, found))


def missing_files(model: ModelConfig, *, weights: bool = True, tokenizer: bool = True) -> Iterator[Mistake]:
    """A mistake for each of weights and tokenizer that a local model needs and lacks."""
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


def has_chat_template(model: ModelConfig) -> Iterator[Mistake]:
    """A mistake when a local model's tokenizer has no chat template."""
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
    elif model.properties is None:
        keys = ", ".join(f"{name}: ..." for name in ModelProperties.model_fields)
        yield (
            f"{NOT_CHECKED}{path} is a hub name and model.properties is null: context length, heads and vocabulary are unknown "
            f"until it is loaded. To have them checked now: 'model.properties={{{keys}}}'"
        )
    else:
        yield f"{NOT_CHECKED}{path} is a hub name: model.properties is compared with the real model when it is loaded"


def _contradictions(model: ModelConfig, found: ModelProperties) -> Iterator[Mistake]:
    for name in ModelProperties.model_fields if model.properties else ():
        given, real = getattr(model.properties, name), getattr(found, name)
        if given != real:
            rule = f"the model's config.json has {str(real).lower()}"
            remedy = "model.properties=null: a local model needs none"
            yield Mistake(key=f"model.properties.{name}", value=given, rule=rule, remedy=remedy)

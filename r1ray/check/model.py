"""The model: can it be trained, and does its template exist?"""

import json
from collections.abc import Iterator
from typing import Any

from r1ray.config import ModelConfig
from r1ray.config.tree import value_of
from r1ray.config.view import StageView
from r1ray.data.end_of_turn import not_stopped, unstopped_turn_end
from r1ray.data.templates import ADDED_TEXT, CHAT_TEMPLATES, TEMPLATES
from r1ray.engine import ENGINES
from r1ray.engine.reserved import CPU_HEAD_SIZES
from r1ray.mistakes import NOT_CHECKED, WARNING, Finding, Mistake, did_you_mean
from r1ray.model.experts import NAMES, REASON, experts_of
from r1ray.model.files import chat_template, end_tokens, local_folder
from r1ray.model.files import head_size as head_size_of
from r1ray.model.light_tokenizer import light_tokenizer
from r1ray.model.properties import has_chat_template, missing_files
from r1ray.plugin import resolve
from r1ray.run.directory import CONFIG, mapping_in


def dense(view: StageView) -> Iterator[Mistake]:
    """A model that is trained must not be a mixture of experts; one that is only served (an eval stage, a judge) may be."""
    model, critic, prm, needed = view.model, view.critic, view.prm, view.roles
    paths = {"model.path": model.path} | {
        f"{role}.path": section.path for role, section in (("critic", critic), ("prm", prm)) if role in needed
    }
    for key, path in paths.items():
        if path is not None and (words := _mixture(path)):
            remedy = f"{key}=a dense model; R1's distilled models are (deepseek-ai/DeepSeek-R1-Distill-Qwen-32B)"
            yield view.mistake(key, f"is a mixture of experts ({words}). {REASON}", remedy)


def _mixture(path: str) -> str | None:
    """Why the model counts as a mixture of experts; None if it does not."""
    folder = local_folder(path)
    if folder is None:
        found = NAMES.search(path.rpartition("/")[2])
        return f"by its name, {found[0]}" if found else None
    try:
        number = experts_of(json.loads((folder / "config.json").read_text()))
    except (OSError, ValueError):
        return None  # reported by properties_of
    return f"{number} experts a layer by its config.json" if number > 1 else None


def model_files(view: StageView) -> Iterator[Mistake]:
    """As `files`, without weights where they are initialised at random."""
    model, sft = view.model, view.sft
    yield from missing_files(model, weights=view.kind.generates or sft.init != "random")


def template(view: StageView) -> Iterator[Finding]:
    """It exists, and so does the model's chat template where it is used."""
    model = view.model
    yield from _other_template(model)
    if model.template not in TEMPLATES:
        yield from _custom_template(model)
    elif model.template in CHAT_TEMPLATES and local_folder(model.path) is None:
        yield f"{NOT_CHECKED}what the chat template of {model.path} says (it is on the hub)"
    elif model.template in CHAT_TEMPLATES:
        yield from has_chat_template(model)


def _other_template(model: ModelConfig) -> Iterator[str]:
    """A note when a checkpoint of a run was trained with another template."""
    folder = local_folder(model.path)
    saved = mapping_in(folder.parent / CONFIG) if folder else None
    before = value_of(saved or {}, "model.template")
    if before not in (None, model.template):
        yield f"{model.path} was trained with model.template={before}; its prompts now have model.template={model.template}"


def head_size(view: StageView) -> Iterator[Mistake]:
    """vLLM on CPU computes attention for some head sizes only."""
    if view.device != "cpu":
        return
    paths = {"model.path": view.model.path if view.rollout.engine in ENGINES else None, "judge.path": view.judge.path}
    for key, path in paths.items():
        folder = local_folder(path) if path else None
        size = head_size_of(folder) if folder else None
        if size is not None and size not in CPU_HEAD_SIZES:
            possible = ", ".join(map(str, CPU_HEAD_SIZES))
            rule = f"its attention heads have {size} dimensions, and vLLM on CPU computes only those of {possible}"
            yield view.mistake(key, rule, f"{key}=a model with one of these head sizes, or device=cuda")


def end_of_turn(view: StageView) -> Iterator[str]:
    """Does the token with which the chat template ends a turn end a completion too?"""
    model, folder = view.model, local_folder(view.model.path)
    tokenizer: Any = light_tokenizer(model.path) if model.template in CHAT_TEMPLATES else None
    if folder is None or tokenizer is None:
        return
    ends = end_tokens(folder, eos_id=tokenizer.eos_token_id)
    try:
        token = unstopped_turn_end(tokenizer, ends=ends, stop=view.rollout.stop)
    except Exception:  # a template that the light tokenizer cannot render
        return
    if token:
        yield WARNING + not_stopped(token, known=[str(tokenizer.decode([end])) for end in sorted(ends)])


def template_text(model: ModelConfig) -> str | None:
    """Text that every prompt of this model contains; None where it is unknown (a user's template, a chat template on the hub)."""
    if model.template not in ADDED_TEXT or (model.template in CHAT_TEMPLATES and local_folder(model.path) is None):
        return None
    chat = chat_template(model.path) if model.template in CHAT_TEMPLATES else None
    return ADDED_TEXT[model.template] + (chat or "")


def _custom_template(model: ModelConfig) -> Iterator[Finding]:
    name = model.template
    try:
        resolve(name, TEMPLATES, what="template")
    except ValueError as error:
        remedy = "put its package on PYTHONPATH" if ":" in name else did_you_mean(name, TEMPLATES)
        rule = (
            str(error) if ":" in name else "is not the name of a template, and not of the form package.module:function"
        )
        yield Mistake(key="model.template", value=name, rule=rule, remedy=remedy)
    else:
        yield f"{NOT_CHECKED}which answer format the template {name} requests: it is not part of r1ray"

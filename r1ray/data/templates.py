"""Chat messages -> prompt text -> token ids, once, by us. Engines and trainers only ever see the ids.

A template is a function (messages, tokenizer) -> text, named in TEMPLATES or given as `package.module:function`. When the text
ends in an opened `<think>`, that tag already belongs to the reply: it is the problem's prefill, and rewards judge prefill + reply.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from r1ray.lookup import resolve
from r1ray.types import Ints, Message

Template = Callable[..., str]

R1_ZERO = (
    "A conversation between User and Assistant. The Assistant first thinks, then answers: "
    "<think> reasoning </think> <answer> answer </answer>\n"
)
"""What the base model is told: the content of R1-Zero's template (arXiv 2501.12948, table 1) in a few words of our own."""


def r1_zero(messages: Sequence[Message], tokenizer: Any) -> str:
    """Plain text for a base model. Nothing is prefilled: the model has to learn to open `<think>` itself.

    Example: one user message "2 + 2?" becomes `R1_ZERO + "User: 2 + 2?\\nAssistant:"`.
    """
    turns = "".join(
        f"{message.content}\n" if message.role == "system" else f"{message.role.capitalize()}: {message.content}\n"
        for message in messages
    )
    return f"{R1_ZERO}{turns}Assistant:"


def chat(messages: Sequence[Message], tokenizer: Any, **settings: Any) -> str:
    """The tokenizer's own chat template, up to where the assistant speaks; `settings` are what that template takes."""
    if not tokenizer.chat_template:
        raise ValueError(
            "model.template=chat needs a tokenizer with a chat template, and this one has none; "
            "for a base model use model.template=r1_zero"
        )
    turns = [{"role": message.role, "content": message.content} for message in messages]
    return tokenizer.apply_chat_template(turns, tokenize=False, add_generation_prompt=True, **settings)


def none(messages: Sequence[Message], tokenizer: Any) -> str:
    """The messages' text as it is, one below the other."""
    return "\n".join(message.content for message in messages)


TEMPLATES: Mapping[str, Template] = {"r1_zero": r1_zero, "chat": chat, "none": none}


def render(messages: Sequence[Message], template: str, tokenizer: Any, **settings: Any) -> tuple[Ints, str]:
    """(prompt_ids_T, prefill). Exactly one BOS at the start if the tokenizer prepends one by itself, and none elsewhere.

    `settings` are the template's own.
    Whether a template prints the BOS (Llama-3's chat does, r1_zero does not) and whether a question spells it out makes no
    difference: BOS is taken out of the messages, the text is encoded bare, and one is put in front.
    """
    has_bos = prepends_bos(tokenizer)
    if has_bos:
        messages = [Message(role=m.role, content=m.content.replace(tokenizer.bos_token, "")) for m in messages]
    text = resolve(template, TEMPLATES, what="template")(messages, tokenizer, **settings)
    ids = list(tokenizer.encode(text, add_special_tokens=False))
    if has_bos:
        start = next((t for t, token in enumerate(ids) if token != tokenizer.bos_token_id), len(ids))
        ids = [tokenizer.bos_token_id, *ids[start:]]
    opened = re.search(r"<think>\s*\Z", text)
    return np.array(ids, np.int32), opened.group() if opened else ""


def prepends_bos(tokenizer: Any) -> bool:
    """Whether this tokenizer starts a text with BOS. Naming a bos_token is not enough: Qwen and GPT-2 name one or none and
    were trained without."""
    return tokenizer.bos_token_id is not None and tokenizer.encode("x")[:1] == [tokenizer.bos_token_id]

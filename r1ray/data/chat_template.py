"""The chat template of an exported model: the prompt that the model was trained on, as Jinja.

A served model gets chat messages. With the base model's own chat template it would be asked in a form that it has never seen in
training, so the exported tokenizer has the training template as its default. The base model's template is kept as well, under the
name `base`: a later stage or run of r1ray starts from that one.

A template of r1ray is a Python function, so its Jinja form is found by rendering: the text between marked messages is constant.
"""

import re
from collections.abc import Mapping, Sequence
from typing import Any, Literal

from r1ray.data.templates import BASE, TEMPLATES, base_chat_template, prepends_bos
from r1ray.plugin import resolve
from r1ray.types import Message

Role = Literal["system", "user", "assistant"]
MARK = "\ue000{}\ue001"
"""A message in a rendered text: characters for private use, which no template contains."""
JINJA = """\
{{%- set own_system = messages[0].role == 'system' -%}}
{{%- set turns = messages[1:] if own_system else messages -%}}
{{{{- {bos} -}}}}
{{%- if own_system %}}{{{{- {before_system} + messages[0].content -}}}}{{% endif -%}}
{{%- for turn in turns -%}}
    {{%- if turn.role == 'assistant' -%}}
        {{{{- {before_assistant} + turn.content -}}}}
        {{%- if loop.last and eos_token %}}{{{{- eos_token -}}}}{{% endif -%}}
    {{%- elif loop.first -%}}
        {{{{- (({system_to_only} if loop.last else {system_to_first}) if own_system else
              ({only} if loop.last else {first})) + turn.content -}}}}
    {{%- else -%}}
        {{{{- ({before_last} if loop.last else {between}) + turn.content -}}}}
    {{%- endif -%}}
{{%- endfor -%}}
{{%- if add_generation_prompt %}}{{{{- {end} -}}}}{{% endif -%}}
"""


def exported_chat_template(template: str, tokenizer: Any) -> str | dict[str, str] | None:
    """The value of `chat_template` for the tokenizer of an exported model; unchanged where `template` has no Jinja form.

    Args:
        template: `model.template`, a name or an import path.
    """
    known: str | dict[str, str] | None = tokenizer.chat_template
    base, training = base_chat_template(tokenizer), training_template(template, tokenizer)
    if training is None or training == base:
        return known
    named = known if isinstance(known, dict) else {}
    return {**named, "default": training} | ({BASE: base} if base else {})


def training_template(template: str, tokenizer: Any) -> str | None:
    """A Jinja template that renders conversations as `template` does; None when there is none.

    There is none when the text around a message depends on its content. The template `chat` is the base model's own. For
    the others, a chat template that removes the reasoning of earlier turns is replaced by one that keeps it.
    """
    if template == "chat":
        return base_chat_template(tokenizer)
    render = resolve(template, TEMPLATES, what="template")
    conversations = [_marked("uauau"), _marked("u"), _marked("su"), _marked("suau")]
    try:
        long, single, system, system_long = (
            _between(render(messages, tokenizer), num=len(messages)) for messages in conversations
        )
    except ValueError:  # a message is missing or repeated, or a template that accepts one turn only
        return None
    if not (long[1] == long[3] == system_long[2] and long[-1] == single[-1] == system[-1] == system_long[-1]):
        return None
    adds_bos = prepends_bos(tokenizer) and not single[0].startswith(tokenizer.bos_token)
    return JINJA.format(
        bos=_literal(tokenizer.bos_token if adds_bos else ""),
        only=_literal(single[0]),
        first=_literal(long[0]),
        before_assistant=_literal(long[1]),
        between=_literal(long[2]),
        before_last=_literal(long[4]),
        before_system=_literal(system[0]),
        system_to_only=_literal(system[1]),
        system_to_first=_literal(system_long[1]),
        end=_literal(single[-1]),
    )


def _marked(roles: str) -> list[Message]:
    names: Mapping[str, Role] = {"s": "system", "u": "user", "a": "assistant"}
    return [Message(role=names[role], content=MARK.format(index)) for index, role in enumerate(roles)]


def _between(text: str, *, num: int) -> Sequence[str]:
    """The num + 1 texts around the marked messages. Raises ValueError unless each occurs once and in order."""
    pieces = re.split("\ue000([0-9]+)\ue001", text)
    if pieces[1::2] != [str(index) for index in range(num)]:
        raise ValueError("the template does not show every message once and in order")
    return pieces[::2]


def _literal(text: str) -> str:
    """A Jinja string."""
    escaped = (
        text.replace("\\", "\\\\").replace("'", "\\'").replace("\n", "\\n").replace("\r", "\\r").replace("\t", "\\t")
    )
    return f"'{escaped}'"

"""The chat template of an exported model renders conversations as the training template does."""

from pathlib import Path
from typing import Any

import pytest
from tokenizers import Tokenizer, models, processors
from transformers import AutoTokenizer, PreTrainedTokenizerFast

import r1ray.builtin
from r1ray.data.chat_template import exported_chat_template, training_template
from r1ray.data.templates import TEMPLATES, base_chat_template, render
from r1ray.model.files import chat_template
from r1ray.types import Message

CONVERSATIONS = {
    "one question": [("user", "What is 'two' + 2?\n{{ braces }} \\boxed{4} é 日本")],
    "an own system message": [("system", "Answer in verse."), ("user", "2 + 2?")],
    "a second question": [("user", "2 + 2?"), ("assistant", "4"), ("user", "And 3?")],
    "a third one after a system message": [
        *[("system", "Be brief."), ("user", "a"), ("assistant", "b"), ("user", "c"), ("assistant", "d"), ("user", "e")]
    ],
}


@pytest.fixture(scope="module")
def tokenizer() -> Any:
    return AutoTokenizer.from_pretrained(r1ray.builtin.path())


def messages_of(name: str) -> list[Message]:
    return [Message(role=role, content=content) for role, content in CONVERSATIONS[name]]  # type: ignore[arg-type]


def chat_text(jinja: str, messages: list[Message], tokenizer: Any) -> str:
    turns = [{"role": message.role, "content": message.content} for message in messages]
    return tokenizer.apply_chat_template(turns, chat_template=jinja, tokenize=False, add_generation_prompt=True)


@pytest.mark.parametrize("conversation", CONVERSATIONS)
@pytest.mark.parametrize("template", TEMPLATES)
def test_served_prompt_is_the_training_prompt(template: str, conversation: str, tokenizer: Any) -> None:
    jinja, messages = training_template(template, tokenizer), messages_of(conversation)
    assert jinja is not None
    assert chat_text(jinja, messages, tokenizer) == TEMPLATES[template](messages, tokenizer)


def bos_tokenizer() -> Any:
    tokens = {chr(code): code for code in range(32, 127)} | {"<s>": 0, "\n": 1}
    made = Tokenizer(models.BPE(vocab=tokens, merges=[]))
    made.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 0)])
    return PreTrainedTokenizerFast(tokenizer_object=made, bos_token="<s>")


def test_bos_that_the_tokenizer_prepends_is_in_the_chat_template() -> None:
    """Servers encode a rendered chat without special tokens."""
    tokenizer, messages = bos_tokenizer(), messages_of("a second question")
    jinja = training_template("r1_zero", tokenizer)
    assert jinja is not None
    ids = tokenizer.encode(chat_text(jinja, messages, tokenizer), add_special_tokens=False)
    assert ids == render(messages, "r1_zero", tokenizer)[0].tolist() and ids.count(0) == 1


def shouting(messages: list[Message], tokenizer: Any) -> str:
    return "".join(message.content.upper() for message in messages)


def last_only(messages: list[Message], tokenizer: Any) -> str:
    return messages[-1].content


def test_template_without_a_jinja_form_keeps_the_model_s_own(tokenizer: Any) -> None:
    assert training_template(f"{__name__}:last_only", tokenizer) is None
    assert exported_chat_template(f"{__name__}:last_only", tokenizer) == tokenizer.chat_template


def test_exported_tokenizer_trains_as_before(tokenizer: Any, tmp_path: Path) -> None:
    """A later stage renders its prompts with the base model's template, not with one that has them already."""
    exported = AutoTokenizer.from_pretrained(r1ray.builtin.path())
    exported.chat_template = exported_chat_template("dapo", tokenizer)
    exported.save_pretrained(tmp_path)
    loaded, messages = AutoTokenizer.from_pretrained(tmp_path), messages_of("one question")
    assert base_chat_template(loaded) == tokenizer.chat_template == chat_template_of(tmp_path)
    assert render(messages, "dapo", loaded)[0].tolist() == render(messages, "dapo", tokenizer)[0].tolist()
    assert exported_chat_template("dapo", loaded) == exported.chat_template, "a second export changes nothing"
    turns = [{"role": "user", "content": messages[0].content}]
    served = loaded.apply_chat_template(turns, tokenize=False, add_generation_prompt=True)
    assert served == TEMPLATES["dapo"](messages, tokenizer)


def chat_template_of(folder: Path) -> str | None:
    (folder / "config.json").write_text("{}")
    return chat_template(str(folder))


def test_template_chat_changes_nothing(tokenizer: Any) -> None:
    assert exported_chat_template("chat", tokenizer) == tokenizer.chat_template

"""The model folder that ships with r1ray."""

import json
import unicodedata

import pytest
from safetensors import safe_open
from transformers import AutoConfig, AutoTokenizer

from r1ray import builtin
from r1ray.builtin import tokenizer as recipe
from r1ray.data.generators import traces
from r1ray.data.generators.base import GeneratorArgs
from r1ray.data.generators.countdown import MAX_VALUE, question
from r1ray.data.templates import render
from r1ray.types import Message

TEXTS = [
    "",
    " ",
    "plain words, 12345 and 007",
    "二十四点 🧮👩‍🚀 ½ → naïve",
    unicodedata.normalize("NFD", "déjà vu"),
    "\ufeffa\u202eb\u200b\xa0c",
    "tabs\tand\r\nlines\n\n\n  trailing  ",
    "".join(map(chr, range(32))) + "\x7f\x80\x9f",
    "<think> <think>a</think> <answer>b</answer> <|im_start|>user<|im_end|>",
    "A conversation between User and Assistant. User:\nAssistant:\nAssistant:",
    "```python\nprint(int(input()) * 3 + 4)\n```",
]


@pytest.fixture(scope="module")
def tokenizer():
    return AutoTokenizer.from_pretrained(builtin.path())


@pytest.mark.parametrize("text", TEXTS, ids=range(len(TEXTS)))
def test_text_round_trips(tokenizer, text):
    assert tokenizer.decode(tokenizer.encode(text), clean_up_tokenization_spaces=False) == text


def test_all_unicode_text_round_trips(tokenizer):
    text = "".join(chr(point) for point in range(0x0, 0x3000, 7)) + "".join(map(chr, range(0x1F300, 0x1F700)))
    assert tokenizer.decode(tokenizer.encode(text)) == text


@pytest.mark.parametrize("token", ["<|im_start|>", "<|im_end|>", *recipe.TAGS])
def test_chat_and_think_tokens_are_single_ids(tokenizer, token):
    assert len(tokenizer.encode(token)) == 1
    assert len(tokenizer.encode(f"a{token}b")) == 3


def test_tags_remain_when_special_tokens_are_skipped(tokenizer):
    text = "<think>a</think> <answer>b</answer>"
    assert tokenizer.decode([*tokenizer.encode(text), tokenizer.eos_token_id], skip_special_tokens=True) == text


def test_numbers_are_single_ids(tokenizer):
    assert all(len(tokenizer.encode(str(number))) == 1 for number in range(MAX_VALUE + 1))


def test_eos_differs_from_pad_and_no_bos_is_added(tokenizer):
    assert tokenizer.eos_token == "<|im_end|>" and tokenizer.pad_token == "<|endoftext|>"
    assert tokenizer.eos_token_id != tokenizer.pad_token_id
    assert tokenizer.encode("a") == tokenizer.encode("a", add_special_tokens=False)
    files = [json.loads((builtin.path() / name).read_text()) for name in ("config.json", "generation_config.json")]
    assert all(file["eos_token_id"] == tokenizer.eos_token_id for file in files)
    assert all(file["pad_token_id"] == tokenizer.pad_token_id for file in files)


def test_countdown_prompt_has_few_tokens(tokenizer):
    ids, prefill = render([Message(role="user", content=question([5, 12, 3], 24))], "r1_zero", tokenizer)
    assert len(ids) <= 24 and prefill == ""


def test_one_attempt_has_twelve_tokens(tokenizer):
    assert len(tokenizer.encode("9 - 5 = 4, 4 * 6 = 24 no\n")) == 12


def test_tokenizer_can_be_saved_and_loaded(tokenizer, tmp_path):
    tokenizer.save_pretrained(tmp_path)
    AutoConfig.from_pretrained(builtin.path()).save_pretrained(tmp_path)
    again = AutoTokenizer.from_pretrained(tmp_path)
    text = TEXTS[3] + TEXTS[4] + "199"
    assert again.encode(text) == tokenizer.encode(text) and again.decode(again.encode(text)) == text
    assert again.chat_template == tokenizer.chat_template


def test_chat_template_drops_earlier_reasoning(tokenizer):
    turns = [
        {"role": "user", "content": "a"},
        {"role": "assistant", "content": "<think>b</think> c"},
        {"role": "user", "content": "d"},
    ]
    text = tokenizer.apply_chat_template(turns, tokenize=False, add_generation_prompt=True)
    assert text == (
        "<|im_start|>user\na<|im_end|>\n<|im_start|>assistant\nc<|im_end|>\n"
        "<|im_start|>user\nd<|im_end|>\n<|im_start|>assistant\n"
    )
    text = tokenizer.apply_chat_template(turns[:2], tokenize=False)
    assert text.endswith("<|im_start|>assistant\n<think>b</think> c<|im_end|>\n")


def test_build_script_reproduces_tokenizer_and_configuration(tmp_path):
    recipe.main(tmp_path)
    for name in (
        "tokenizer.json",
        "tokenizer_config.json",
        "chat_template.jinja",
        "config.json",
        "generation_config.json",
    ):
        assert (tmp_path / name).read_text() == (builtin.path() / name).read_text(), name


def test_weights_are_a_small_tied_qwen2_in_bf16():
    config = AutoConfig.from_pretrained(builtin.path())
    assert config.model_type == "qwen2" and config.tie_word_embeddings
    assert config.num_key_value_heads < config.num_attention_heads
    file = builtin.path() / "model.safetensors"
    assert file.stat().st_size < 3_000_000
    with safe_open(file, "pt") as weights:
        shapes = {name: weights.get_slice(name).get_shape() for name in weights.keys()}  # noqa: SIM118
        assert {weights.get_slice(name).get_dtype() for name in shapes} == {"BF16"}
    assert "lm_head.weight" not in shapes
    num_parameters = sum(shape[0] * (shape[1] if len(shape) > 1 else 1) for shape in shapes.values())
    assert 800_000 < num_parameters < 1_300_000


def test_traces_are_far_below_the_length_limit_of_the_demonstration(tokenizer):
    longest = max(
        len(tokenizer.encode(row["response"])) for row in traces.generate(GeneratorArgs(num_problems=2000, seed=1))
    )
    assert 100 < longest < 180

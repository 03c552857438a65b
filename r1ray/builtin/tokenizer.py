"""Builds the built-in model's tokenizer and its configuration files: `python -m r1ray.builtin.tokenizer FOLDER`.

A byte-level BPE, so any text decodes exactly. Numbers from 0 to 99 are one token each, because a model with a million parameters
learns arithmetic by number and not by digit. The other merges may cross spaces ("superwords"), since the traces repeat phrases.
The text around every prompt is one token each; otherwise most training tokens of such a small model would be prompts.
"""

import json
import re
import sys
from pathlib import Path

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import GenerationConfig, PreTrainedTokenizerFast, Qwen2Config

from r1ray.data.generators import traces
from r1ray.data.generators.base import GeneratorArgs
from r1ray.data.generators.countdown import MAX_VALUE
from r1ray.data.templates import R1_ZERO

VOCAB_SIZE = 640
MAX_LENGTH = 1024
NUM_TRACES = 20000
"""Traces on which the merges are trained."""

PAD, EOS = "<|endoftext|>", "<|im_end|>"
SPECIAL = (PAD, "<|im_start|>", EOS)
# Not "special" in the tokenizer's sense: decoding with skip_special_tokens=True, as servers do, must keep them.
TAGS = ("<think>", "</think>", "<answer>", "</answer>")
FRAME = (f"{R1_ZERO}User: ", "\nAssistant:")

# transformers 5 builds the tokenizer of every Qwen2 model by Qwen's own rules (single digits, NFC), whatever the files say,
# unless the files name other code; that code does not exist and is never loaded without trust_remote_code.
AUTO_MAP = {"AutoTokenizer": [None, "tokenizers.TokenizersBackend"]}

CHAT_TEMPLATE = """\
{%- for message in messages -%}
    {%- set content = message.content -%}
    {%- if message.role == 'assistant' and not loop.last -%}
        {%- set content = content.split('</think>')[-1].lstrip() -%}
    {%- endif -%}
    {{- '<|im_start|>' + message.role + '\\n' + content + '<|im_end|>\\n' -}}
{%- endfor -%}
{%- if add_generation_prompt -%}
    {{- '<|im_start|>assistant\\n' -}}
{%- endif -%}
"""
"""Reasoning of earlier turns is dropped, as R1's own template does."""


def build_tokenizer() -> PreTrainedTokenizerFast:
    added = [AddedToken(token, special=True, normalized=False) for token in SPECIAL]
    added += [AddedToken(token, special=False, normalized=False) for token in (*TAGS, *FRAME)]
    number_merges = [(str(number)[0], str(number)[1]) for number in range(10, MAX_VALUE + 1)]
    phrase_merges = _phrase_merges(VOCAB_SIZE - len(added) - 256 - len(number_merges))
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokens = [*alphabet, *("".join(pair) for pair in number_merges), *("".join(pair) for pair in phrase_merges)]
    vocab = {token: index for index, token in enumerate(tokens)}
    tokenizer = _bare(models.BPE(vocab=vocab, merges=[*number_merges, *phrase_merges]))
    tokenizer.add_tokens(added)
    wrapped = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token=PAD, eos_token=EOS, model_max_length=MAX_LENGTH, auto_map=AUTO_MAP
    )
    wrapped.chat_template = CHAT_TEMPLATE
    return wrapped


def _bare(model: models.BPE) -> Tokenizer:
    tokenizer = Tokenizer(model)
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(r"[0-9]{1,2}"), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    return tokenizer


def _phrase_merges(count: int) -> list[tuple[str, str]]:
    """The most useful `count` merges within the text between numbers and tags."""
    tokenizer = _bare(models.BPE())
    trainer = trainers.BpeTrainer(
        vocab_size=256 + count,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    between = re.compile("|".join([r"[0-9]+", *map(re.escape, TAGS)]))
    rows = traces.generate(GeneratorArgs(num_problems=NUM_TRACES, seed=0))
    texts = (text for row in rows for text in (row["question"], row["response"]))
    tokenizer.train_from_iterator((piece for text in texts for piece in between.split(text) if piece), trainer=trainer)
    merges = json.loads(tokenizer.to_str())["model"]["merges"]
    return [(left, right) for left, right in merges]


def main(folder: Path) -> None:
    tokenizer = build_tokenizer()
    tokenizer.save_pretrained(folder)
    vocab = tokenizer.get_vocab()
    eos, pad = vocab[EOS], vocab[PAD]
    Qwen2Config(
        architectures=["Qwen2ForCausalLM"],
        vocab_size=VOCAB_SIZE,
        hidden_size=128,
        intermediate_size=448,
        num_hidden_layers=4,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=MAX_LENGTH,
        tie_word_embeddings=True,
        dtype="bfloat16",
        eos_token_id=eos,
        pad_token_id=pad,
    ).save_pretrained(folder)
    # R1's recommended sampling (README of deepseek-ai/DeepSeek-R1).
    GenerationConfig(do_sample=True, temperature=0.6, top_p=0.95, eos_token_id=eos, pad_token_id=pad).save_pretrained(
        folder
    )


if __name__ == "__main__":
    main(Path(sys.argv[1]))

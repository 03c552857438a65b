"""Tiny random models with a byte-level tokenizer, for tests that need real weights in a real folder."""

from pathlib import Path

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import (
    AutoModelForCausalLM,
    LlamaConfig,
    PreTrainedModel,
    PreTrainedTokenizerFast,
    Qwen2Config,
    Qwen3Config,
)

SPECIAL_TOKENS = ("<pad>", "<eos>", "<think>", "</think>", "<answer>", "</answer>")
PAD_ID, EOS_ID = 0, 1
VOCAB_SIZE = 264
"""256 bytes, the special tokens and two unused rows, as in large models."""

SHAPES = {"qwen2": Qwen2Config, "qwen3": Qwen3Config, "llama": LlamaConfig}


def make_tiny_model(
    folder: str | Path, *, family: str = "qwen2", tied: bool = True, seed: int = 0, scale: float = 0.2
) -> Path:
    """Write a random two-layer model of `family` (a key of SHAPES) and its tokenizer; returns the folder.

    `scale` is the standard deviation of the weights: 0.2 gives distributions far from uniform, so that an incorrect weight is
    noticed; 0.03 nearly uniform ones.
    """
    folder = Path(folder)
    config = SHAPES[family](
        vocab_size=VOCAB_SIZE,
        hidden_size=128,
        intermediate_size=192,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=32,
        max_position_embeddings=512,
        initializer_range=scale,
        tie_word_embeddings=tied,
        bos_token_id=None,
        eos_token_id=EOS_ID,
        pad_token_id=PAD_ID,
        dtype="float32",
    )
    torch.manual_seed(seed)
    model = AutoModelForCausalLM.from_config(config)
    move_weights(model, seed=seed, scale=scale / 2)
    model.save_pretrained(folder)
    make_tokenizer().save_pretrained(folder)
    return folder


def make_tokenizer() -> PreTrainedTokenizerFast:
    """Every byte is a token, special tokens are single ids, any text survives encoding and decoding."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocab = {token: index for index, token in enumerate([*SPECIAL_TOKENS, *alphabet])}
    tokenizer = Tokenizer(models.BPE(vocab=vocab, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.decoder = decoders.ByteLevel()
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token="<pad>",
        eos_token="<eos>",
        additional_special_tokens=[token for token in SPECIAL_TOKENS if token not in ("<pad>", "<eos>")],
    )


def move_weights(model: PreTrainedModel, *, seed: int, scale: float = 0.1) -> None:
    """Add noise to every parameter, norms and biases included."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=generator) * scale)

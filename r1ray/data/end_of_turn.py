"""Does a completion end where the chat template ends a turn?

It does not with Qwen2.5's base models: their chat template ends turns with `<|im_end|>`, their EOS is `<|endoftext|>`. A model that
has learned the former goes on after it, to the length limit, unless that token is a stop text.
"""

from collections.abc import Collection, Sequence
from typing import Any

from r1ray.data.templates import base_chat_template

MARK = "\ue000"
"""The content of the assistant's turn: a character for private use, which no template contains."""


def unstopped_turn_end(tokenizer: Any, *, ends: Collection[int], stop: Sequence[str]) -> str | None:
    """The special token that ends a turn of the assistant, if it ends no completion; None if it does, or if there is no such token.

    Args:
        ends: the tokens at which the engine stops.
        stop: the stop texts of the configuration.
    """
    turns = [
        {"role": "user", "content": "1 + 1?"},
        {"role": "assistant", "content": MARK},
        {"role": "user", "content": MARK},
    ]
    template = base_chat_template(tokenizer)
    text: str = tokenizer.apply_chat_template(
        turns, chat_template=template, tokenize=False, add_generation_prompt=False
    )
    _, mark, after = text.partition(MARK)
    special = {number: str(token.content) for number, token in tokenizer.added_tokens_decoder.items() if token.special}
    after = after.partition(MARK)[0]
    found = [(after.find(token), -len(token), number) for number, token in special.items() if token in after]
    if not mark or not found:
        return None
    _, _, number = min(found)
    token = special[number]
    stopped = number in ends or any(text in token or token in text for text in stop)
    return None if stopped else token


def not_stopped(token: str, *, known: Sequence[str]) -> str:
    """The warning for a user."""
    ends = " and ".join(map(repr, known)) or "nothing"
    return (
        f"the chat template ends the assistant's turns with {token!r}, but completions end only at {ends}: a model that has "
        f"learned this template goes on to the length limit. Remedy: 'rollout.stop=[\"{token}\"]', or add the token to "
        "eos_token_id in the model's generation_config.json"
    )

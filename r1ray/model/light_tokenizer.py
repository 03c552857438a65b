"""A local model's tokenizer for the check: encoding and chat template, without transformers, whose import takes seconds.

It reads the same files. Where they need more than the packages tokenizers and jinja2 (a tokenizer in Python code, a template with
tags of its own), there is none, and what depends on it is checked when the run starts.
"""

import json
from collections.abc import Mapping, Sequence
from datetime import datetime
from functools import lru_cache
from pathlib import Path
from typing import Any, NoReturn

from r1ray.model.files import chat_template, local_folder


def light_tokenizer(path: str) -> "LightTokenizer | None":
    """The tokenizer of the model at `path`; None for a hub name and where it cannot be read."""
    folder = local_folder(path)
    files = [folder / name for name in ("tokenizer.json", "tokenizer_config.json")] if folder else []
    if not files or not all(file.is_file() for file in files):
        return None
    try:
        changed = tuple(file.stat().st_mtime_ns for file in files)
        return _read(files[0].parent, chat_template(path), changed)
    except Exception:  # tokenizers raises plain Exceptions
        return None


@lru_cache(maxsize=8)
def _read(folder: Path, template: str | None, changed: tuple[int, ...]) -> "LightTokenizer":
    """`changed`: when its files were written, so that the cache notices new ones."""
    return LightTokenizer(folder, template=template)


class LightTokenizer:
    """What `r1ray.data` uses of a tokenizer of transformers."""

    def __init__(self, folder: Path, *, template: str | None) -> None:
        from tokenizers import Tokenizer

        self._tokenizer: Any = Tokenizer.from_file(str(folder / "tokenizer.json"))
        self.chat_template = template
        config: dict[str, Any] = json.loads((folder / "tokenizer_config.json").read_text())
        self.special_tokens = {
            name: value["content"] if isinstance(value, dict) else str(value)
            for name, value in config.items()
            if name.endswith("_token") and isinstance(value, str | dict)
        }
        self.bos_token, self.eos_token = self.special_tokens.get("bos_token"), self.special_tokens.get("eos_token")
        self.bos_token_id, self.eos_token_id = self._id(self.bos_token), self._id(self.eos_token)
        self.added_tokens_decoder: Mapping[int, Any] = self._tokenizer.get_added_tokens_decoder()

    def _id(self, token: str | None) -> int | None:
        return None if token is None else self._tokenizer.token_to_id(token)

    def encode(self, text: str, *, add_special_tokens: bool = True, split_special_tokens: bool = False) -> list[int]:
        self._tokenizer.encode_special_tokens = split_special_tokens
        return self._tokenizer.encode(text, add_special_tokens=add_special_tokens).ids

    def decode(self, ids: Sequence[int]) -> str:
        return self._tokenizer.decode([int(token) for token in ids], skip_special_tokens=False)

    def apply_chat_template(
        self,
        turns: Sequence[Mapping[str, str]],
        *,
        chat_template: str,
        tokenize: bool,
        add_generation_prompt: bool,
        **settings: Any,
    ) -> str:
        assert not tokenize
        return _compiled(chat_template).render(
            messages=turns, add_generation_prompt=add_generation_prompt, **self.special_tokens, **settings
        )


@lru_cache(maxsize=8)
def _compiled(template: str) -> Any:
    from jinja2.ext import loopcontrols
    from jinja2.sandbox import ImmutableSandboxedEnvironment

    def to_json(value: Any, **options: Any) -> str:
        return json.dumps(value, ensure_ascii=False, **options)

    def refuse(message: str) -> NoReturn:
        raise ValueError(message)

    environment = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True, extensions=[loopcontrols])
    environment.filters["tojson"] = to_json
    environment.globals["raise_exception"] = refuse
    environment.globals["strftime_now"] = lambda form: datetime.now().strftime(form)
    return environment.from_string(template)

"""Reads the files of a local model without loading it: config.json, tokenizer, chat template, names of weights."""

import json
import re
from pathlib import Path
from typing import Any, cast

import r1ray.builtin
from r1ray.config import ModelProperties
from r1ray.data.templates import BASE

PROPERTY_NAMES = {
    "context_length": ("max_position_embeddings", "n_positions"),
    "num_attention_heads": ("num_attention_heads", "n_head"),
    "num_key_value_heads": ("num_key_value_heads", "num_attention_heads", "n_head"),
    "vocab_size": ("vocab_size",),
    "tie_word_embeddings": ("tie_word_embeddings",),
}
"""{property: keys of a config.json; the first one that is present counts}."""
WIDTHS, HEADS = ("hidden_size", "n_embd"), ("num_attention_heads", "n_head")
IN_A_BLOCK = re.compile(r"\.\d+\.(?:.*\.)?(?P<kind>\w+)\.weight")
"""A weight of a layer in a numbered block, with the names of transformers: model.layers.0.mlp.up_proj.weight."""


def local_folder(path: str) -> Path | None:
    """The folder of a local model, also when `path` is the directory of a run; None for a hub name."""
    if path == "builtin":
        return r1ray.builtin.path()
    folder = Path(path).expanduser()
    return _model_in(folder) if folder.is_dir() or path.startswith(("/", ".", "~")) else None


def folder_of(path: str) -> str:
    """What to load for `model.path`: a local folder, or the hub name unchanged."""
    folder = local_folder(path)
    return path if folder is None else str(folder)


def _model_in(folder: Path) -> Path:
    """The model that a run, a stage or a checkpoint left: of the last stage, the best where there is one, else the latest.

    Any other folder is returned unchanged.
    """
    if (folder / "config.json").exists():
        return folder
    found = list[Path]()
    for pattern in (
        "hf",
        *(f"{stage}checkpoints/{link}/hf" for link in ("latest", "best") for stage in ("", "stages/*/")),
    ):
        found += [model for model in folder.glob(pattern) if (model / "config.json").exists()]
    if not found:
        return folder
    last = max(found, key=lambda model: model.resolve().parent.stat().st_mtime)
    return next((model for model in found if model.parts[:-2] == last.parts[:-2] and model.parent.name == "best"), last)


def read_properties(folder: Path) -> ModelProperties:
    """The properties in the config.json of a folder.

    Raises:
        FileNotFoundError: there is no config.json.
        ValueError: it lacks a property, or is not JSON.
    """
    file = folder / "config.json"
    try:
        config: dict[str, Any] = json.loads(file.read_text())
    except ValueError as error:
        raise ValueError(f"{file} is not JSON ({error})") from error
    config = config.get("text_config", config)
    values: dict[str, Any] = {"tie_word_embeddings": False}
    for key, names in PROPERTY_NAMES.items():
        given = [config[name] for name in names if config.get(name) is not None]
        values |= {key: given[0]} if given else {}
    missing = PROPERTY_NAMES.keys() - values.keys()
    if missing:
        raise ValueError(f"{file} does not say {', '.join(PROPERTY_NAMES[name][0] for name in sorted(missing))}")
    return ModelProperties(**values)


def head_size(folder: Path) -> int | None:
    """Dimensions of one attention head, by the config.json of a folder; None where it does not say."""
    try:
        config: dict[str, Any] = json.loads((folder / "config.json").read_text())
    except (OSError, ValueError):
        return None
    config = config.get("text_config", config)
    width, heads = (next((config[n] for n in names if config.get(n)), None) for names in (WIDTHS, HEADS))
    given = config.get("head_dim")
    return given or (width // heads if isinstance(width, int) and isinstance(heads, int) else None)


def end_tokens(folder: Path, *, eos_id: int | None) -> set[int]:
    """Every token with which a local model ends a completion: those of its generation and model config, and `eos_id`."""
    found = {eos_id} - {None}
    for name in ("generation_config.json", "config.json"):
        try:
            ids = json.loads((folder / name).read_text()).get("eos_token_id")
        except (OSError, ValueError, AttributeError):
            continue
        found |= {ids} if isinstance(ids, int) else set(ids or ())
    return cast("set[int]", found)


def token_count(path: str) -> int | None:
    """The highest token id of a local model plus one; None without a readable tokenizer.json."""
    folder = local_folder(path)
    try:
        tokenizer: dict[str, Any] = json.loads((folder / "tokenizer.json").read_text()) if folder else {}
        vocab: dict[str, int] | list[Any] = tokenizer["model"]["vocab"]
        added: list[dict[str, Any]] = tokenizer.get("added_tokens", [])
    except (OSError, ValueError, KeyError, TypeError):
        return None
    known = vocab.values() if isinstance(vocab, dict) else range(len(vocab))
    return 1 + max(-1, *known, *(token["id"] for token in added))


def chat_template(path: str) -> str | None:
    """The chat template of a local model, from the files of its tokenizer; several templates are joined.

    A model that r1ray exported has two, and trains with the one of its base model (`r1ray.data.chat_template`).
    """
    folder = local_folder(path)
    if folder is None:
        return None
    config = folder / "tokenizer_config.json"
    for jinja in (folder / "additional_chat_templates" / f"{BASE}.jinja", folder / "chat_template.jinja"):
        if jinja.exists():
            return jinja.read_text()
    template: Any = json.loads(config.read_text()).get("chat_template") if config.exists() else None
    if not isinstance(template, list):
        return template
    return "\n".join(entry["template"] for entry in cast("list[dict[str, str]]", template))


def linear_layers(folder: Path) -> set[str]:
    """Names of the linear layers in a model's blocks, from the headers of its weight files; empty when they cannot be read."""
    found: set[str] = set()
    for file in folder.glob("*.safetensors"):
        for name, about in _header(file).items():
            layer = IN_A_BLOCK.search(name)
            if layer and len(about.get("shape", ())) == 2:
                found.add(layer["kind"])
    return found


def _header(file: Path) -> dict[str, dict[str, Any]]:
    """{name: dtype, shape, offsets} of a safetensors file: 8 bytes of length, little-endian, then JSON of that length."""
    try:
        with file.open("rb") as opened:
            head = json.loads(opened.read(int.from_bytes(opened.read(8), "little")))
    except (OSError, ValueError, OverflowError, MemoryError):
        return {}
    return cast("dict[str, dict[str, Any]]", head) if isinstance(head, dict) else {}

"""Adapters: do the layers exist that are to get them, and is there anything to adapt?"""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

from r1ray.mistakes import NOT_CHECKED, Mistake, closest
from r1ray.check.model import local_folder
from r1ray.config import ModelConfig, SftConfig
from r1ray.config.model import ALL_LINEAR

IN_A_BLOCK = re.compile(r"\.\d+\.(?:.*\.)?(?P<kind>\w+)\.weight")
"""A weight of a layer of one of the numbered blocks, as transformers names them: model.layers.0.mlp.up_proj.weight."""


def targets(view: StageView) -> Iterator[Mistake | str]:
    """`model.lora.targets` against the layers of a model on this disk."""
    model = view.model
    if model.lora is None:
        return
    key, named = "model.lora.targets", model.lora.targets
    if not named:
        yield Mistake(key=key, value=[], rule="names no layer, so nothing would learn", remedy=f"{key}={ALL_LINEAR}")
        return
    folder = local_folder(model.path)
    there = linear_layers(folder) if folder is not None else set[str]()
    if not there:
        yield f"{NOT_CHECKED}whether {model.path} has the layers that {key} names"
        return
    for target in named:
        if target in there or target == ALL_LINEAR:
            continue
        rule = f"no linear layer of the model's blocks is called that; there are {', '.join(sorted(there))}"
        guess = closest(target, there)
        remedy = f"did you mean {guess}?" if guess else f"some of these, or {ALL_LINEAR} for every one"
        yield Mistake(key=key, value=target, rule=rule, remedy=remedy)


def something_to_adapt(view: StageView) -> Iterator[Mistake]:
    model, sft = view.model, view.sft
    if not view.kind.generates and sft.init == "random" and model.lora is not None:
        rule = "weights drawn anew would stay as they were drawn, for only adapters learn"
        yield Mistake(key="model.lora", value=model.lora, rule=rule, remedy="model.lora=null, or sft.init=pretrained")


def linear_layers(folder: Path) -> set[str]:
    """What the linear layers of a model's blocks are called, from the heads of its weight files; empty when they cannot be read."""
    found: set[str] = set()
    for file in folder.glob("*.safetensors"):
        for name, about in _head(file).items():
            layer = IN_A_BLOCK.search(name)
            if layer and len(about.get("shape", ())) == 2:
                found.add(layer["kind"])
    return found


def _head(file: Path) -> dict[str, dict[str, Any]]:
    """{name: dtype, shape and place} of a safetensors file: 8 bytes of length, little-endian, then JSON of that length."""
    try:
        with file.open("rb") as opened:
            head = json.loads(opened.read(int.from_bytes(opened.read(8), "little")))
    except (OSError, ValueError, OverflowError, MemoryError):
        return {}
    return cast("dict[str, dict[str, Any]]", head) if isinstance(head, dict) else {}

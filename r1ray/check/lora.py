"""Adapters (LoRA): do their layers exist, and does the stage train pretrained weights?"""

from collections.abc import Iterator

from r1ray.config.model import ALL_LINEAR
from r1ray.config.view import StageView
from r1ray.mistakes import NOT_CHECKED, Mistake, closest
from r1ray.model.files import linear_layers, local_folder


def targets(view: StageView) -> Iterator[Mistake | str]:
    """`model.lora.targets` against the layers of a model on this disk."""
    model = view.model
    if model.lora is None:
        return
    key, named = "model.lora.targets", model.lora.targets
    if not named:
        yield view.mistake(key, "names no layer, so nothing would learn", f"{key}={ALL_LINEAR}")
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
        yield view.mistake(key, rule, remedy)


def something_to_adapt(view: StageView) -> Iterator[Mistake]:
    model, sft = view.model, view.sft
    if not view.kind.generates and sft.init == "random" and model.lora is not None:
        rule = "random weights would never be trained, because only the adapters are"
        yield view.mistake("model.lora", rule, "model.lora=null, or sft.init=pretrained")

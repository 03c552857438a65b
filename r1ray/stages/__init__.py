"""What a run is made of: named stages, each of one kind. To add a kind: a file with `run(context)` and a line in KINDS."""

from importlib import import_module

KINDS = {
    "rl": "r1ray.stages.rl",
    "sft": "r1ray.stages.sft",
    "eval": "r1ray.stages.eval",
}
"""Imported when a stage of the kind begins: they import torch and Ray."""


def module_of(kind: str):  # noqa: ANN201 - a module with `run(context: StageContext) -> None`
    return import_module(KINDS[kind])

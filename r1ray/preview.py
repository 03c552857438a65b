"""What `check=true` prints below the configuration: the first prompt of each dataset, as the model will read it.

No prompt is shown of a dataset or a tokenizer that is on the hub, or of a dataset that an earlier stage writes.
"""

from collections.abc import Iterator
from typing import Any

from r1ray.check import CheckedRun, CheckedStage
from r1ray.config import Config, SourceConfig
from r1ray.data.answer_marks import HEAD
from r1ray.data.base import Item
from r1ray.data.sft import sample_of
from r1ray.data.sources import load_source, needs_network, written_by_a_run
from r1ray.data.templates import render
from r1ray.mistakes import NOT_CHECKED
from r1ray.model.files import local_folder
from r1ray.run.card import visible
from r1ray.stage_kinds import kind_of

SHOWN = 600
"""Characters of a prompt that are shown, half of them from its end."""


def prompt_preview(run: CheckedRun) -> str:
    """The section; a prompt that several stages have is shown once."""
    lines = dict.fromkeys(block for checked in run.stages for block in _stage(checked))
    return "\n".join(["", "  first prompts (special tokens included)", *lines])


def _stage(checked: CheckedStage) -> Iterator[str]:
    cfg, kind = checked.config, kind_of(checked.stage.kind)
    sets = {f"data.train.{name}": source for name, source in cfg.data.train.items()} if kind.trains else {}
    sets |= {f"eval.sets.{name}": source for name, source in cfg.eval.sets.items()} if kind.generates else {}
    try:
        tokenizer = _tokenizer(cfg)
    except Exception as error:  # transformers raises many kinds
        yield f"    none: the tokenizer of {cfg.model.path} cannot be loaded ({type(error).__name__}: {error})"
        return
    for key, source in sets.items():
        try:
            yield f"    {key}: {_shown(key, source, cfg, tokenizer)}"
        except Exception as error:  # a template or a source of the user's own may raise anything
            yield f"    {key}: no prompt can be shown ({type(error).__name__}: {error})"


def _tokenizer(cfg: Config) -> Any:
    """None where it cannot be loaded from this disk."""
    folder = local_folder(cfg.model.path)
    if folder is None or not any(folder.glob("tokenizer*")):
        return None
    from transformers import AutoTokenizer  # takes a second

    return AutoTokenizer.from_pretrained(folder, local_files_only=True)


def _shown(key: str, source: SourceConfig, cfg: Config, tokenizer: Any) -> str:
    """Example: `23 of at most 64 tokens`, and the prompt below it."""
    if tokenizer is None:
        return f"{NOT_CHECKED}the tokenizer of {cfg.model.path} is not on this disk"
    if needs_network(source):
        return f"{NOT_CHECKED}{source.path} is on the hub"
    if written_by_a_run(source):
        return f"{NOT_CHECKED}an earlier stage writes {source.path}"
    item = _first(key.rpartition(".")[2], source)
    if item.response is None:
        ids, _ = render(item.messages, cfg.model.template, tokenizer)
        limit, over = cfg.data.max_prompt_length, f"data.overlong_prompt={cfg.data.overlong_prompt}"
    else:
        ids = sample_of(item, cfg, tokenizer, name=key).token_ids_T
        limit, over = cfg.sft.max_length, "dropped"
    prompt = [f"      | {line}" for line in visible(tokenizer.decode(ids), limit=SHOWN).split("\n")]
    too_long = f", too long: {over}" if len(ids) > limit else ""
    return "\n".join([f"{len(ids)} of at most {limit} tokens{too_long}", *prompt])


def _first(name: str, source: SourceConfig) -> Item:
    try:
        return load_source(name, source, head=1).items[0]
    except ValueError:  # its first row cannot be used
        return load_source(name, source, head=HEAD).items[0]

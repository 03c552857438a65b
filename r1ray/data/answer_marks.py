"""Do prompts ask for the marks from which answers are read? Where only `<answer>` is read and no prompt asks for it, every answer
is incorrect."""

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from r1ray.config import SourceConfig
from r1ray.config.view import StageView
from r1ray.data.sources import load_source, needs_network, written_by_a_run
from r1ray.reward.accuracy import mark_of
from r1ray.types import Problem

HEAD = 64
"""Problems that are examined: their questions differ, and one that asks for the mark is enough."""


def missing_mark(problems: Sequence[Problem], tokenizer: Any) -> str | None:
    """A mark from which answers are read although neither the prompts nor the chat template mention it; None where there is none.

    Example: problems with `extract="answer"` rendered with the template `none` give "<answer>".
    """
    marks = {mark for problem in problems[:HEAD] if (mark := mark_of(problem.verifier, problem.extract))}
    prompts = [tokenizer.decode(problem.prompt_ids_T) for problem in problems[:HEAD]] if marks else []
    return next(iter(unmentioned(marks, [str(tokenizer.chat_template or ""), *prompts])), None)


def unmentioned(marks: Iterable[str], texts: Sequence[str]) -> list[str]:
    """The marks that none of the texts contains, sorted."""
    return [
        mark for mark in sorted(marks) if not any(mark in (text.lower() if mark.islower() else text) for text in texts)
    ]


def marks_not_in_prompts(view: StageView) -> Iterator[str]:
    """A note, not a mistake: the model may have learned these marks from examples.

    Prompts and chat templates on the hub are examined when they have been loaded (`missing_mark`).
    """
    data, eval, model = view.data, view.eval, view.model
    words = view.template_text
    sources = {f"data.train.{name}": source for name, source in data.train.items()} if view.kind.reinforcement else {}
    sources |= {f"eval.sets.{name}": source for name, source in eval.sets.items()}
    for key, source in sources.items():
        for mark in _not_in_questions(key, source, words):
            yield (
                f"answers of {key} are read from {mark!r}, which neither model.template={model.template} nor the questions "
                f"mention: a model that has not learned it from examples earns little. Ask for it (another model.template, or "
                f"{key}.args.instruction='...'), or read answers another way ({key}.extract=boxed)"
            )


def _not_in_questions(key: str, source: SourceConfig, words: str) -> Iterator[str]:
    if written_by_a_run(source) or needs_network(source):
        return
    try:
        items = load_source(key.rpartition(".")[2], source, head=HEAD).items
    except (TypeError, ValueError):
        return  # reported by datasets.datasets
    marks = {mark for item in items if (mark := mark_of(item.verifier, item.extract or source.extract))}
    yield from unmentioned(marks, [words, *(message.content for item in items for message in item.messages)])

"""Do prompts ask for the marks (a box, answer tags) from which answers are read?"""

from collections.abc import Iterator

from r1ray.config import SourceConfig
from r1ray.config.view import StageView
from r1ray.data.answer_marks import HEAD, unmentioned
from r1ray.data.sources import load_source, needs_network, written_by_a_run
from r1ray.reward.accuracy import mark_of


def asked_for(view: StageView) -> Iterator[str]:
    """A note, not a mistake: the model may have learned these marks from examples.

    Prompts and chat templates on the hub are examined when they have been loaded (`r1ray.data.answer_marks`).
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

"""Curricula: do they fit the problems?"""

from collections.abc import Iterator

import numpy as np

from r1ray.check.plugins import curriculum
from r1ray.config import SourceConfig
from r1ray.config.view import StageView
from r1ray.data.curriculum import CURRICULA, make
from r1ray.data.sources import load_source, needs_network, written_by_a_run
from r1ray.data.stream import PLAIN, ProblemStream
from r1ray.mistakes import NOT_CHECKED, Finding, Mistake
from r1ray.types import Problem

HEAD = 64
"""Rows of a source that are read: generators cycle through their levels."""


def problems_fit(view: StageView) -> Iterator[Finding]:
    """A curriculum of r1ray's is made from the first problems, as the run makes it from all; a user's only when the run starts."""
    cfg, train = view.data.curriculum, view.data.train
    if cfg.name == PLAIN or cfg.name not in CURRICULA or not train:
        return
    if any(isinstance(found, Mistake) for found in curriculum(view)):
        return
    later = [name for name, source in train.items() if needs_network(source) or written_by_a_run(source)]
    if later:
        yield f"{NOT_CHECKED}data.curriculum.name={cfg.name} with the problems of {', '.join(later)}"
        return
    try:
        problems = {name: _first_problems(name, source) for name, source in train.items()}
    except (TypeError, ValueError):
        return  # reported by datasets.datasets
    stream = ProblemStream(problems, weights=dict.fromkeys(problems, 1.0), seed=0, shuffle=False)
    try:
        make(cfg, stream)
    except ValueError as error:
        remedy = "correct data.curriculum.args or the data, or data.curriculum.name=none"
        yield view.mistake("data.curriculum", str(error), remedy)


def _first_problems(name: str, cfg: SourceConfig) -> list[Problem]:
    """As a curriculum sees them; they are not rendered."""
    return [
        Problem(
            id=str(item.id),
            source=name,
            messages=item.messages,
            prompt_ids_T=np.zeros(1, np.int32),
            verifier=item.verifier,
            payload=item.payload,
            meta=item.meta,
        )
        for item in load_source(name, cfg, head=HEAD).items
    ]

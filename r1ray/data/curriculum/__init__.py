"""Curricula by name: which problems come next, by what the model did with earlier ones.

A curriculum is called with the stream (`r1ray.data.stream.ProblemStream`) and `data.curriculum.args`, and gives what the
collector draws from (`r1ray.data.stream.Problems`): next, observe, state_dict, load_state_dict. What it remembers is in its
state, so a run that goes on from a checkpoint draws the same problems as one that was never interrupted. To add one: a file
(`base.Curriculum` does most of it), a line in CURRICULA, a YAML in conf/curriculum and a test; or `package.module:function` as
its name.
"""

import inspect
from collections.abc import Callable, Mapping

from r1ray.config import CurriculumConfig
from r1ray.data.curriculum.difficulty import Difficulty
from r1ray.data.curriculum.easy_pool import EasyPool
from r1ray.data.curriculum.history import History
from r1ray.data.stream import Problems, ProblemStream
from r1ray.plugin import resolve

PLAIN = "none"
"""The stream as it is, without a curriculum; such a stream's state names none."""


def none(stream: ProblemStream) -> Problems:
    return stream


CURRICULA: Mapping[str, Callable[..., Problems]] = {
    PLAIN: none,
    "easy_pool": EasyPool,
    "history": History,
    "difficulty": Difficulty,
}


def make(cfg: CurriculumConfig, stream: ProblemStream) -> Problems:
    """The stream with the curriculum that the configuration names.

    Raises:
        ValueError: a curriculum that is not known, arguments that it does not take, problems that it can do nothing with.
    """
    factory: Callable[..., Problems] = resolve(cfg.name, CURRICULA, what="data.curriculum.name")
    try:
        inspect.signature(factory).bind(stream, **cfg.args)
    except TypeError as error:
        raise ValueError(f"data.curriculum.args: {cfg.name} cannot be called with them ({error})") from error
    return factory(stream, **cfg.args)

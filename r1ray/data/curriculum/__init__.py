"""Curricula by name: which problems come next, depending on what the model did with earlier ones.

A curriculum is called with the stream (`r1ray.data.stream.ProblemStream`) and its arguments (`r1ray.plugin.Args`, or the subclass
that it declares), and returns what the collector draws from (`r1ray.data.stream.Problems`): next, observe, state_dict,
load_state_dict. Whatever later draws depend on is in its state, so a run that resumes from a checkpoint draws the same problems as
one that was never interrupted. To add one: a file (`base.Curriculum` does most of it), a line in CURRICULA, a YAML in
conf/curriculum and a test; or `package.module:function` as its name.
"""

from collections.abc import Callable, Mapping

from r1ray.config import CurriculumConfig
from r1ray.data.curriculum.difficulty import Difficulty
from r1ray.data.curriculum.easy_pool import EasyPool
from r1ray.data.curriculum.history import History
from r1ray.data.stream import NO_CURRICULUM, Problems, ProblemStream
from r1ray.plugin import Args, args_of, resolve


def none(stream: ProblemStream, args: Args) -> Problems:
    return stream


CURRICULA: Mapping[str, Callable[..., Problems]] = {
    NO_CURRICULUM: none,
    "easy_pool": EasyPool,
    "history": History,
    "difficulty": Difficulty,
}


def make(cfg: CurriculumConfig, stream: ProblemStream) -> Problems:
    """The stream with the curriculum that the configuration names.

    Raises:
        ValueError: an unknown curriculum, invalid arguments, or problems that it cannot use.
    """
    factory: Callable[..., Problems] = resolve(cfg.name, CURRICULA, what="data.curriculum.name")
    return factory(stream, args_of(factory).model_validate(cfg.args))

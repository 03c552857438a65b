"""Algorithms by name. One file an algorithm; a new one adds its file, a line in ALGORITHMS, a YAML in conf/algo and a test.

Importing this loads no torch, so that the configuration check can read the names.
"""

from collections.abc import Mapping
from typing import TYPE_CHECKING

from r1ray.config import AlgoConfig, TrainerRole
from r1ray.lookup import resolve

if TYPE_CHECKING:
    from r1ray.algo.base import Algorithm

ALGORITHMS = {"grpo": "r1ray.algo.grpo:Grpo"}

OTHER_TRAINERS: Mapping[str, TrainerRole] = {}
"""{algorithm: the trainer that it needs besides the policy's}, for checks, which load no torch; a test
compares it with `learners`."""


def make(cfg: AlgoConfig, *, max_response_length: int) -> "Algorithm":
    """The algorithm that `cfg.name` names: a key of ALGORITHMS or `package.module:attr`, called with these two arguments.

    Raises ValueError when there is no such name or module.
    """
    factory = resolve(ALGORITHMS.get(cfg.name, cfg.name), ALGORITHMS, what="algo.name")
    return factory(cfg=cfg, max_response_length=max_response_length)

"""Algorithms by name. One file an algorithm; a new one adds its file, a line in ALGORITHMS, a YAML in conf/algo and a test.

Neither importing this nor importing an algorithm loads torch: the configuration check reads the names, and from each algorithm's
signature the arguments that `algo.args` may hold.
"""

from collections.abc import Callable
from typing import TYPE_CHECKING

from r1ray.config import AlgoConfig
from r1ray.plugin import resolve

if TYPE_CHECKING:
    from r1ray.algo.base import Algorithm

ALGORITHMS = {
    "cispo": "r1ray.algo.cispo:Cispo",
    "dapo": "r1ray.algo.dapo:Dapo",
    "dr_grpo": "r1ray.algo.dr_grpo:DrGrpo",
    "gpg": "r1ray.algo.gpg:Gpg",
    "grpo": "r1ray.algo.grpo:Grpo",
    "gspo": "r1ray.algo.gspo:Gspo",
    "ppo": "r1ray.algo.ppo:Ppo",
    "prime": "r1ray.algo.prime:Prime",
    "reinforce_pp": "r1ray.algo.reinforce_pp:ReinforcePP",
    "reinforce_pp_baseline": "r1ray.algo.reinforce_pp:ReinforcePPBaseline",
    "rloo": "r1ray.algo.rloo:Rloo",
    "skywork_or1": "r1ray.algo.skywork_or1:SkyworkOr1",
    "vapo": "r1ray.algo.vapo:Vapo",
}


def make(cfg: AlgoConfig, *, max_response_length: int) -> "Algorithm":
    """The algorithm that `cfg.name` names: a key of ALGORITHMS or `package.module:attr`, called with these two and cfg.args.

    Raises ValueError when there is no such name or module.
    """
    return factory_of(cfg.name)(cfg=cfg, max_response_length=max_response_length, **cfg.args)


def factory_of(name: str) -> Callable[..., "Algorithm"]:
    """What `make` calls. Raises ValueError when there is no such name or module."""
    return resolve(ALGORITHMS.get(name, name), ALGORITHMS, what="algo.name")


def training_roles(algo: "Algorithm") -> list[str]:
    """Whose actors an algorithm needs besides those that make and score completions."""
    return ["policy", *algo.objectives, *(["reference"] if "ref_logprobs" in algo.needs else [])]


def roles_of(cfg: AlgoConfig) -> list[str]:
    """The same for checks, which say elsewhere what is wrong with an algorithm that cannot be made or lacks something."""
    return roles_of_made(attempt(cfg))


def roles_of_made(made: "Algorithm | Exception") -> list[str]:
    try:
        return ["policy"] if isinstance(made, Exception) else training_roles(made)
    except (TypeError, AttributeError):
        return ["policy"]


def attempt(cfg: AlgoConfig) -> "Algorithm | Exception":
    """The algorithm, or why there is none: it may be anybody's code."""
    try:
        return make(cfg, max_response_length=1)
    except Exception as error:
        return error


def policy_steps(cfg: AlgoConfig, steps: int) -> int:
    """In how many of the steps the policy makes updates; all of them for an algorithm that cannot be made."""
    return steps - getattr(attempt(cfg), "frozen_steps", 0)

"""Algorithms by name. One file an algorithm; a new one adds its file, a line in ALGORITHMS, a YAML in conf/algo and a test.

Neither importing this nor importing an algorithm loads torch: the check reads names and arguments (`Args`).
"""

from typing import TYPE_CHECKING

from r1ray.config import AlgoConfig
from r1ray.plugin import args_of, resolve

if TYPE_CHECKING:
    from r1ray.algo.base import Algorithm

ALGORITHMS = {
    "cispo": "r1ray.algo.cispo:Cispo",
    "dapo": "r1ray.algo.dapo:Dapo",
    "dr_grpo": "r1ray.algo.dr_grpo:DrGrpo",
    "gpg": "r1ray.algo.gpg:Gpg",
    "grpo": "r1ray.algo.grpo:Grpo",
    "gspo": "r1ray.algo.gspo:Gspo",
    "opo": "r1ray.algo.opo:Opo",
    "ppo": "r1ray.algo.ppo:Ppo",
    "prime": "r1ray.algo.prime:Prime",
    "reinforce_pp": "r1ray.algo.reinforce_pp:ReinforcePP",
    "reinforce_pp_baseline": "r1ray.algo.reinforce_pp:ReinforcePPBaseline",
    "rloo": "r1ray.algo.rloo:Rloo",
    "skywork_or1": "r1ray.algo.skywork_or1:SkyworkOr1",
    "vapo": "r1ray.algo.vapo:Vapo",
}


def make(cfg: AlgoConfig, *, max_response_length: int) -> "Algorithm":
    """The algorithm that `cfg.name` names: a key of ALGORITHMS or `package.module:Class`.

    Raises ValueError when there is no such name or module, or `cfg.args` does not fit what the class declares as `Args`.
    """
    algorithm = resolve(cfg.name, ALGORITHMS, what="algo.name")
    return algorithm(cfg=cfg, args=args_of(algorithm).model_validate(cfg.args), max_response_length=max_response_length)


def try_make(cfg: AlgoConfig) -> "Algorithm | Exception":
    """The algorithm, or why it cannot be made: it may be a user's code that raises anything or lacks a method."""
    from r1ray.algo.base import Algorithm

    try:
        made = make(cfg, max_response_length=1)
    except Exception as error:
        return error
    missing = [name for name in dir(Algorithm) if not name.startswith("_") and not hasattr(made, name)]
    return made if not missing else TypeError(f"it has no {', '.join(missing)} (r1ray.algo.base.Algorithm)")


def training_roles(algo: "Algorithm") -> list[str]:
    """The roles that an algorithm needs besides engines and reward workers."""
    return ["policy", *algo.objectives, *(["reference"] if "ref_logprobs" in algo.needs else [])]


def roles_of(cfg: AlgoConfig) -> list[str]:
    """`training_roles` from the configuration. If the algorithm cannot be made, only the policy: the check reports the error."""
    made = try_make(cfg)
    return ["policy"] if isinstance(made, Exception) else training_roles(made)


def policy_steps(cfg: AlgoConfig, steps: int) -> int:
    """In how many of the steps the policy makes updates; all of them for an algorithm that cannot be made."""
    made = try_make(cfg)
    return steps if isinstance(made, Exception) else steps - made.frozen_steps

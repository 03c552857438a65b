"""Rewards, and the sandbox that runs programs."""

from typing import Any, Literal

from r1ray.config.base import NonNegativeFloat, NotEmpty, PositiveFloat, PositiveInt, StrictModel


class RewardComponentConfig(StrictModel):
    name: str | None = None
    """A name in r1ray.reward.REWARDS or `package.module:function`; null: the component's key."""
    weight: float = 1.0
    """0: computed and logged, not trained on."""
    schedule: dict[int, float] = {}
    """{first step: weight from there on}: {100: 0.5}."""
    sources: list[str] | None = None
    """The datasets (names in data.train and eval.sets) to whose problems it applies; null: all."""
    args: dict[str, Any] = {}
    """Arguments of the reward; it declares them next to its code."""

    @property
    def has_weight(self) -> bool:
        """Whether its weight is ever other than 0."""
        return any((self.weight, *self.schedule.values()))


class RewardConfig(StrictModel):
    components: dict[str, RewardComponentConfig]
    num_workers: PositiveInt
    cpus_per_worker: NonNegativeFloat
    timeout_s: PositiveFloat
    """A worker that has something to score and finishes nothing for so long counts as hung and is restarted."""
    local: bool
    """Only for `r1ray.grade`: score in processes on this machine, without Ray."""
    outage_timeout_s: NonNegativeFloat
    """How long a step waits while nothing can be scored (a judge or a sandbox is down) before the run ends; 0: it does not wait and
    its problems are dropped."""
    truncated: Literal["zero", "score", "mask"]
    """What a completion cut at the limit earns: 0, its score, or nothing (it is left out of the loss)."""


class SandboxConfig(StrictModel):
    """Where model-written programs run. Started only in runs whose data asks for programs."""

    url: str | None
    """A service with SandboxFusion's /run_code API (`r1ray.sandbox.remote`); null: this machine, in the tiers below."""
    min_tier: Literal["T1", "T1-noproc", "T2"]
    """The weakest tier that is accepted (`r1ray.sandbox.base.Tier`); the strongest that works is used."""
    python: NotEmpty
    """The interpreter that runs them; every user must be able to read it."""
    packages: list[str]
    """Packages that are installed there and that programs may import besides the standard library: [numpy, sympy]."""

"""This process's sandbox: used by every reward in it, opened at the first program, or before that."""

import atexit

from r1ray.config import SandboxConfig
from r1ray.sandbox.base import SandboxUnavailable
from r1ray.sandbox.choose import choose, unprivileged_uid
from r1ray.sandbox.pool import Sandbox
from r1ray.sandbox.supervisor import ZygoteSpec

_wanted: list[SandboxConfig] = []
_open: list[Sandbox] = []


def spec_of(cfg: SandboxConfig) -> ZygoteSpec:
    """The strongest sandbox that works here. Raises SandboxUnavailable when none of cfg.min_tier or stronger does."""
    return choose(ZygoteSpec(python=cfg.python, uid=unprivileged_uid()), min_tier=cfg.min_tier)


def allow_programs(cfg: SandboxConfig) -> None:
    """From now on this process may run programs, in such a sandbox."""
    _wanted[:] = [cfg]


def sandbox() -> Sandbox:
    """Raises SandboxUnavailable with what is missing and what would help, and where nobody has allowed programs."""
    if not _open:
        if not _wanted:
            raise SandboxUnavailable("this process was given no sandbox, and programs run nowhere else")
        _open.append(Sandbox(spec_of(_wanted[0]), slots=1))
        atexit.register(_open[0].close)
    return _open[0]


def num_runs() -> int:
    return _open[0].num_runs if _open else 0

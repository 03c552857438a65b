"""This process's sandbox: opened once, when a worker that runs programs starts, and used by every reward in it."""

import atexit

from r1ray.config import SandboxConfig
from r1ray.sandbox.base import SandboxUnavailable
from r1ray.sandbox.choose import choose, unprivileged_uid
from r1ray.sandbox.pool import Sandbox
from r1ray.sandbox.supervisor import ZygoteSpec

_open: list[Sandbox] = []


def spec_of(cfg: SandboxConfig) -> ZygoteSpec:
    """The strongest sandbox that works here. Raises SandboxUnavailable when none of cfg.min_tier or stronger does."""
    return choose(ZygoteSpec(python=cfg.python, uid=unprivileged_uid()), min_tier=cfg.min_tier)


def open_sandbox(cfg: SandboxConfig) -> None:
    """Raises SandboxUnavailable with what is missing and what would help."""
    if not _open:
        _open.append(Sandbox(spec_of(cfg), slots=1))
        atexit.register(_open[0].close)


def sandbox() -> Sandbox:
    """Raises SandboxUnavailable where none was opened."""
    if not _open:
        raise SandboxUnavailable("no sandbox was opened in this process, and programs run nowhere else")
    return _open[0]

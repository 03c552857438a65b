"""This process's sandbox: used by every reward in it, opened at the first program, or before that."""

import atexit
from collections.abc import Collection

from r1ray.config import SandboxConfig
from r1ray.sandbox.base import Language, SandboxUnavailable
from r1ray.sandbox.choose import choose, unprivileged_uid
from r1ray.sandbox.pool import Sandbox
from r1ray.sandbox.supervisor import ZygoteSpec

_wanted: list[tuple[SandboxConfig, Collection[Language]]] = []
_open: list[Sandbox] = []


def spec_of(cfg: SandboxConfig, languages: Collection[Language]) -> ZygoteSpec:
    """The strongest sandbox that works here, for programs in `languages`.

    Raises SandboxUnavailable when none of cfg.min_tier or stronger does, or no compiler.
    """
    spec = ZygoteSpec(python=cfg.python, uid=unprivileged_uid())
    return choose(spec, min_tier=cfg.min_tier, languages=languages)


def allow_programs(cfg: SandboxConfig, languages: Collection[Language]) -> None:
    """From now on this process may run programs, in such a sandbox; those in `languages` are tried when it is opened."""
    _wanted[:] = [(cfg, languages)]


def sandbox() -> Sandbox:
    """Raises SandboxUnavailable with what is missing and what would help, and where nobody has allowed programs."""
    if not _open:
        if not _wanted:
            raise SandboxUnavailable("this process was given no sandbox, and programs run nowhere else")
        _open.append(Sandbox(spec_of(*_wanted[0]), slots=1))
        atexit.register(_open[0].close)
    return _open[0]


def num_runs() -> int:
    return _open[0].num_runs if _open else 0

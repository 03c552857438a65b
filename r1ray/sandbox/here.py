"""This process's sandbox: used by every reward in it, opened at the first program, or before that."""

import atexit
from collections.abc import Collection
from pathlib import Path
from typing import TYPE_CHECKING, Any

from r1ray.sandbox.base import Language, SandboxUnavailable, Settings
from r1ray.sandbox.choose import check_python, choose, folders_of, unprivileged_uid
from r1ray.sandbox.pool import Sandbox
from r1ray.sandbox.supervisor import STDLIB, ZygoteSpec

if TYPE_CHECKING:
    from r1ray.sandbox.remote import RemoteSandbox

_wanted: list[tuple[Settings, Collection[Language]]] = []
_services: "list[RemoteSandbox]" = []
_of_this_machine: list[Sandbox] = []


def spec_of(cfg: Settings, languages: Collection[Language]) -> ZygoteSpec:
    """The strongest sandbox of this machine that works, for programs in `languages`.

    Raises SandboxUnavailable when none of cfg.min_tier or stronger does, or an interpreter, package or compiler is missing.
    """
    check_python(cfg.python)
    spec = ZygoteSpec(
        python=str(Path(cfg.python).resolve()),
        preload=(*STDLIB, *cfg.packages),
        path=folders_of(cfg.packages, cfg.python),
        uid=unprivileged_uid(),
    )
    return choose(spec, min_tier=cfg.min_tier, languages=languages)


def check(cfg: Settings, languages: Collection[Language]) -> dict[str, Any]:
    """What programs would be run in: its tier and why no stronger one is, or its address.

    Raises SandboxUnavailable where `sandbox` would.
    """
    if cfg.url is None:
        spec = spec_of(cfg, languages)
        return {"tier": spec.tier, "refused": list(spec.refused)}
    _remote(cfg.url, languages).close()
    return {"url": cfg.url}


def allow_programs(cfg: Settings, languages: Collection[Language]) -> None:
    """From now on this process may run programs, in such a sandbox; those in `languages` are tried when it is opened."""
    _wanted[:] = [(cfg, languages)]


def sandbox() -> "Sandbox | RemoteSandbox":
    """Raises SandboxUnavailable with what is missing and what would help, and where nobody has allowed programs."""
    cfg, languages = _allowed()
    if cfg.url is None:
        return local_sandbox()
    if not _services:
        _services.append(_remote(cfg.url, languages))
        atexit.register(_services[0].close)
    return _services[0]


def local_sandbox() -> Sandbox:
    """For what no service may see: this machine's, whatever `sandbox.url` is. Raises as `sandbox` does."""
    cfg, languages = _allowed()
    if not _of_this_machine:
        _of_this_machine.append(Sandbox(spec_of(cfg, languages if cfg.url is None else ()), slots=1))
        atexit.register(_of_this_machine[0].close)
    return _of_this_machine[0]


def num_runs() -> int:
    return sum(opened.num_runs for opened in (*_services, *_of_this_machine))


def _allowed() -> tuple[Settings, Collection[Language]]:
    if not _wanted:
        raise SandboxUnavailable("this process was given no sandbox, and programs run nowhere else")
    return _wanted[0]


def _remote(url: str, languages: Collection[Language]) -> "RemoteSandbox":
    from r1ray.sandbox.remote import RemoteSandbox  # its HTTP client takes a while, and the check loads this module

    return RemoteSandbox(url, languages)

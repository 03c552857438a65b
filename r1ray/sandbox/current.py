"""The sandbox of this process, shared by all its rewards; it is started when it is first used."""

import atexit
from collections.abc import Collection
from pathlib import Path
from typing import TYPE_CHECKING, Any

from r1ray.sandbox.base import Language, SandboxUnavailable, Settings
from r1ray.sandbox.choose import check_python, choose, folders_of, installed, unprivileged_uid
from r1ray.sandbox.pool import Sandbox
from r1ray.sandbox.spec import STDLIB, ZygoteSpec
from r1ray.sandbox.supplied import OPTIONAL

if TYPE_CHECKING:
    from r1ray.sandbox.remote import RemoteSandbox

_allowed: list[tuple[Settings, Collection[Language]]] = []
_remotes: "list[RemoteSandbox]" = []
_local: list[Sandbox] = []


def spec_of(cfg: Settings, languages: Collection[Language]) -> ZygoteSpec:
    """The strongest sandbox that works on this machine, for programs in `languages`.

    Raises SandboxUnavailable when none of cfg.min_tier or stronger works, or an interpreter, package or compiler is missing.
    """
    check_python(cfg.python)
    spec = ZygoteSpec(
        python=str(Path(cfg.python).resolve()),
        preload=(*STDLIB, *cfg.packages),
        path=folders_of([*cfg.packages, *installed(OPTIONAL, cfg.python)], cfg.python),
        uid=unprivileged_uid(),
    )
    return choose(spec, min_tier=cfg.min_tier, languages=languages)


def check(cfg: Settings, languages: Collection[Language]) -> dict[str, Any]:
    """The sandbox that programs would run in: its tier and why stronger ones do not work, or its address.

    Raises SandboxUnavailable where `sandbox` would.
    """
    if cfg.url is None:
        spec = spec_of(cfg, languages)
        return {"tier": spec.tier, "refused": list(spec.refused)}
    _remote(cfg.url, languages).close()
    return {"url": cfg.url}


def allow_programs(cfg: Settings, languages: Collection[Language]) -> None:
    """Allow this process to run programs in such a sandbox, which is tested with `languages` when it starts."""
    _allowed[:] = [(cfg, languages)]


def sandbox() -> "Sandbox | RemoteSandbox":
    """Raises SandboxUnavailable with what is missing and the remedy, or when `allow_programs` was not called."""
    cfg, languages = _settings()
    if cfg.url is None:
        return local_sandbox()
    if not _remotes:
        _remotes.append(_remote(cfg.url, languages))
        atexit.register(_remotes[0].close)
    return _remotes[0]


def local_sandbox() -> Sandbox:
    """This machine's sandbox, whatever `sandbox.url` is: for data that no service may get. Raises as `sandbox` does."""
    cfg, languages = _settings()
    if not _local:
        _local.append(Sandbox(spec_of(cfg, languages if cfg.url is None else ()), slots=1))
        atexit.register(_local[0].close)
    return _local[0]


def num_runs() -> int:
    return sum(opened.num_runs for opened in (*_remotes, *_local))


def _settings() -> tuple[Settings, Collection[Language]]:
    if not _allowed:
        raise SandboxUnavailable("this process was given no sandbox, and programs never run outside of one")
    return _allowed[0]


def _remote(url: str, languages: Collection[Language]) -> "RemoteSandbox":
    # Not at the top: importing its HTTP client is slow, and the check imports this module.
    from r1ray.sandbox.remote import RemoteSandbox

    return RemoteSandbox(url, languages)

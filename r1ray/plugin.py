"""Plug-ins: parts that a configuration chooses by name and gives arguments.

Algorithms, reward components, sources, verifiers, curricula and stage kinds are plug-ins. A name is a key of the plug-in's
registry or an import path, `package.module:attribute`. A plug-in declares its arguments as a subclass of `Args`
with defaults, bounds and cross-field rules, as the attribute `Args` of the class or, for a function, with `arguments`::

    class OverlongArgs(Args):
        cache: PositiveInt

    @arguments(OverlongArgs)
    def overlong(problem, completions_G, context, args: OverlongArgs): ...

The check (`r1ray.check`) reads these declarations, so it reports a misspelt or unfitting argument of any plug-in, r1ray's or not,
before a run starts.
"""

import importlib
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, TypeVar

from pydantic import ConfigDict
from pydantic_core import PydanticCustomError

from r1ray.config.base import StrictModel
from r1ray.mistakes import Finding, did_you_mean

if TYPE_CHECKING:
    from r1ray.config.view import StageView

T = TypeVar("T")
Registry = Mapping[str, Any]
"""{name: plug-in, or its import path}."""


class Args(StrictModel):
    """Arguments of a plug-in; this class itself is for plug-ins that take none. Values are not converted: "3" is no number."""

    model_config = ConfigDict(strict=True)

    def check(self, view: "StageView", key: str, owner: Any) -> Iterator[Finding]:
        """Mistakes and notes about arguments that depend on other parts of the configuration.

        Args:
            view: the stage; reading a section that is invalid ends this check without a message.
            key: of these arguments, for messages: `reward.components.overlong.args`.
            owner: the section that holds them, for instance its `RewardComponentConfig`.
        """
        yield from ()


def arguments(args: type[Args]) -> Callable[[T], T]:
    """Declare the arguments of a function."""

    def declare(plugin: T) -> T:
        plugin.Args = args  # type: ignore[attr-defined]
        return plugin

    return declare


def args_of(plugin: Any) -> type[Args]:
    """The arguments that a plug-in declares."""
    return getattr(plugin, "Args", Args)


def invalid(argument: str, rule: str, remedy: str) -> PydanticCustomError:
    """What a validator of an `Args` raises: the argument at fault, the rule that it breaks, and the remedy."""
    return PydanticCustomError("argument", "{rule}", {"argument": argument, "rule": rule, "remedy": remedy})


def resolve(name: str, known: Registry, *, what: str) -> Any:
    """`known[name]`, or the attribute at the import path `name`; an entry of `known` may itself be an import path.

    `what` names the kind of plug-in in the message. Raises ValueError with the remedy when there is none.
    """
    found = known.get(name, name)
    if not isinstance(found, str):
        return found
    if ":" not in found:
        raise ValueError(f"unknown {what} {name!r}; {did_you_mean(name, known)}, or package.module:name")
    module, _, attribute = found.partition(":")
    try:
        return getattr(importlib.import_module(module), attribute)
    except (ImportError, AttributeError) as error:
        raise ValueError(
            f"{what} {name!r} cannot be imported ({error}); write it as package.module:function and put the package on PYTHONPATH"
        ) from error


def resolve_or_none(name: Any, known: Registry) -> Any:
    """The plug-in of this name; None where there is none that can be imported."""
    try:
        return resolve(name, known, what="plug-in") if isinstance(name, str) else None
    except Exception:  # a module of the user's own may raise anything
        return None

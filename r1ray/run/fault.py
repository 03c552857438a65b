"""The syntax of `fault=`: `rollout:kill@3`, or a list: `[rollout-1:kill@3,policy-1:stop@5+0.4]`.

`<role>[-<index>]:<action>@<step>[+<seconds>]`: the action on one worker of the role, seconds after the step has begun.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass

ACTIONS: Mapping[str, tuple[str, ...]] = {
    "rollout": ("kill", "stop", "fail", "kill_in_sync"),
    "reward": ("kill", "stop"),
    "judge": ("kill", "stop"),
    "reference": ("kill", "stop"),
    "policy": ("kill", "stop"),
    "critic": ("kill", "stop"),
    "prm": ("kill", "stop"),
    "driver": ("kill", "term"),
}
"""{role: its actions}. kill: SIGKILL. stop: SIGSTOP. fail: the engine fails and its process stays alive. kill_in_sync: SIGKILL
during a weight sync. term: SIGTERM."""
_SYNTAX = re.compile(
    r"(?P<role>[a-z]+)(-(?P<index>\d+))?:(?P<action>[a-z_]+)@(?P<step>[1-9]\d*)(\+(?P<seconds>\d+(\.\d+)?))?"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    """Example: `parse("policy-1:stop@5+0.4") == Fault(role="policy", index=1, action="stop", step=5, seconds=0.4)`."""

    role: str
    index: int
    action: str
    step: int
    seconds: float

    def __str__(self) -> str:
        return f"{self.role}-{self.index}:{self.action}@{self.step}+{self.seconds:g}"


def parse(text: str) -> Fault:
    """Raises ValueError, which names what is allowed."""
    found = _SYNTAX.fullmatch(text)
    if not found:
        raise ValueError(f"{text!r} is not <role>[-<index>]:<action>@<step>[+<seconds>], for example rollout-1:kill@3")
    role, action = found["role"], found["action"]
    if role not in ACTIONS:
        raise ValueError(f"{text!r}: no role is called {role!r}; roles: {', '.join(ACTIONS)}")
    if action not in ACTIONS[role]:
        raise ValueError(f"{text!r}: {role} has no action {action!r}; actions: {', '.join(ACTIONS[role])}")
    return Fault(
        role=role,
        index=int(found["index"] or 0),
        action=action,
        step=int(found["step"]),
        seconds=float(found["seconds"] or 0),
    )

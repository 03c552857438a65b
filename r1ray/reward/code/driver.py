"""Runs the assertions of a dataset in the sandbox, in a process without the program: standard library only.

The function under test is a stand-in. It knows the outcomes of some calls; any other call is noted and returns an Unknown, and the
trusted side then lets the program answer it in a process of its own (`r1ray.reward.code.assertions`). So no text of the model runs
where a test is decided.

An Unknown ends the test when it is used, except in an assertion: that has no effect on what follows, so it is taken as passed for
now. Thus most tests note all their calls in the first round.
"""

import ast
import builtins
import json
import math
import re
import sys
import types
from collections.abc import Callable, Mapping
from typing import Any

from r1ray.reward.code.wire import decoded, encoded


class Pending(BaseException):
    """The test goes on when more outcomes are known. No Exception, so that tests do not catch it."""


class Calls:
    """The stand-in, and what happened to it in one test."""

    def __init__(self, known: Mapping[str, str]) -> None:
        self._known = known
        self.asserting = False
        self.asked: list[str] = []
        self.num_known = 0

    def __call__(self, *args: Any, **named: Any) -> Any:
        call = json.dumps([encoded(list(args), strict=True), encoded(named, strict=True)])
        if call not in self._known:
            self.asked.append(call)
            return Unknown(self)
        self.num_known += 1
        outcome = json.loads(json.loads(self._known[call]))
        if "raised" in outcome:
            kinds, text = outcome["raised"]
            raise exception(kinds)(text)
        for given, left in zip(args, decoded(outcome["args"]), strict=True):
            leave(given, left)
        return decoded(outcome["value"])


def exception(kinds: list[str]) -> type[Exception]:
    """The nearest builtin class, as a program may define its own."""
    found = (getattr(builtins, str(kind), None) for kind in kinds)
    return next((kind for kind in found if isinstance(kind, type) and issubclass(kind, Exception)), Exception)


def leave(given: Any, left: Any) -> None:
    """Change an argument as the function has changed its copy."""
    if type(given) is not type(left):
        return
    if type(given) is list:
        given[:] = left
    elif type(given) in (dict, set):
        given.clear()
        given.update(left)


class Unknown:
    """A result that is not known yet."""

    def __init__(self, calls: Calls) -> None:
        self.__dict__["calls"] = calls

    def __eq__(self, other: object) -> bool:
        if not self.__dict__["calls"].asserting:
            raise Pending
        return True

    def __ne__(self, other: object) -> bool:
        return self == other


def _used(*_: Any, **__: Any) -> Any:
    raise Pending


for _name in (
    *(
        "hash",
        "repr",
        "str",
        "format",
        "bool",
        "len",
        "iter",
        "next",
        "getitem",
        "setitem",
        "contains",
        "call",
        "getattr",
        "int",
    ),
    *(
        "lt",
        "le",
        "gt",
        "ge",
        "add",
        "radd",
        "sub",
        "rsub",
        "mul",
        "rmul",
        "truediv",
        "rtruediv",
        "floordiv",
        "rfloordiv",
        "mod",
    ),
    *(
        "rmod",
        "pow",
        "rpow",
        "neg",
        "pos",
        "abs",
        "invert",
        "and",
        "rand",
        "or",
        "ror",
        "xor",
        "rxor",
        "lshift",
        "rshift",
    ),
    *(
        "float",
        "index",
        "round",
        "reversed",
        "enter",
        "exit",
        "complex",
        "bytes",
        "divmod",
        "matmul",
        "trunc",
        "floor",
        "ceil",
    ),
):
    setattr(Unknown, f"__{_name}__", _used)


class Raises:
    """pytest.raises."""

    def __init__(
        self, kinds: Any, call: Callable[..., Any] | None = None, *args: Any, match: str | None = None
    ) -> None:
        self._kinds, self._match = kinds, match
        self.value: BaseException | None = None
        if call is not None:
            with self:
                call(*args)

    def __enter__(self) -> "Raises":
        return self

    def __exit__(self, kind: Any, error: BaseException | None, trace: Any) -> bool:
        assert error is not None, f"no {self._kinds} was raised"
        self.value, self.type = error, kind
        if not isinstance(error, self._kinds):
            return False
        assert self._match is None or re.search(self._match, str(error)), f"{error} does not match {self._match}"
        return True


class Approx:
    """pytest.approx."""

    __hash__ = None  # type: ignore[assignment]

    def __init__(self, expected: Any, rel: float | None = None, abs: float | None = None, nan_ok: bool = False) -> None:
        self._expected, self._nan_ok = expected, nan_ok
        self._relative = rel if rel is not None else 1e-6 if abs is None else 0.0
        self._absolute = 1e-12 if abs is None else abs

    def __eq__(self, other: object) -> bool:
        return self._same(other, self._expected)

    def _same(self, ours: Any, theirs: Any) -> bool:
        if type(theirs) is dict:
            return ours.keys() == theirs.keys() and all(self._same(ours[key], theirs[key]) for key in ours)
        if type(theirs) in (list, tuple):
            return len(ours) == len(theirs) and all(map(self._same, ours, theirs))
        if ours == theirs or not isinstance(theirs, float | int):
            return ours == theirs
        if self._nan_ok and math.isnan(theirs):
            return math.isnan(ours)
        return abs(ours - theirs) <= max(self._relative * abs(theirs), self._absolute)


def parametrize(names: Any, values: Any, **_: Any) -> Callable[[Any], Any]:
    """pytest.mark.parametrize: all values in one test."""
    every = [name.strip() for name in names.split(",")] if isinstance(names, str) else list(names)

    def decorated(test: Callable[..., None]) -> Callable[..., None]:
        def run(**more: Any) -> None:
            for value in values:
                test(**dict(zip(every, value if len(every) > 1 else (value,), strict=True)), **more)

        return run

    return decorated


class Asserting(ast.NodeTransformer):
    """Each assertion as: try: begin(); assert ...; except Pending: pass; finally: end()."""

    def visit_Assert(self, node: ast.Assert) -> ast.AST:
        around = ast.parse("try:\n r1ray.begin()\nexcept r1ray.Pending:\n pass\nfinally:\n r1ray.end()").body[0]
        assert isinstance(around, ast.Try)
        around.body.append(node)
        return ast.copy_location(around, node)


def compiled(text: str) -> types.CodeType:
    return compile(ast.fix_missing_locations(Asserting().visit(ast.parse(text))), "tests.py", "exec", dont_inherit=True)


def judge(request: Mapping[str, Any]) -> list[Any]:
    """For every test: "passed", "failed", ["broken", why] if the test itself does not work, or the calls whose outcomes it needs.

    Args:
        request: {"setup": text that runs before each test, "tests": their texts, "name": of the function, "known": {call: outcome}}
    """
    setup, tests = compiled(request["setup"]), [compiled(test) for test in request["tests"]]
    return [judged(setup, test, request["name"], request["known"]) for test in tests]


def judged(setup: types.CodeType, test: types.CodeType, name: str, known: Mapping[str, str]) -> Any:
    calls = Calls(known)
    with_modules(calls, name)

    def asserting(value: bool) -> None:
        calls.asserting = value

    own = types.SimpleNamespace(begin=lambda: asserting(True), end=lambda: asserting(False), Pending=Pending)
    solution = type("Solution", (), {name: staticmethod(calls)})
    space: dict[str, Any] = {"__name__": "tests", "__builtins__": __builtins__}
    space |= {name: calls, "candidate": calls, "Solution": solution, "r1ray": own}
    failure: BaseException | None = None
    try:
        exec(setup, space)
        exec(test, space)
    except (Exception, SystemExit, Pending) as error:
        failure = error
    if calls.asked:
        return calls.asked
    if not calls.num_known:
        why = "it does not call the function" if failure is None else f"{type(failure).__name__}: {failure}"
        return ["broken", why[:300]]
    return "passed" if failure is None else "failed"


def with_modules(calls: Calls, name: str) -> None:
    """The modules that tests import: `solution`, and of pytest what needs no runner."""
    mark = types.SimpleNamespace(parametrize=parametrize)
    found = {"solution": {name: calls}, "pytest": {"raises": Raises, "approx": Approx, "mark": mark}}
    for module, names in found.items():
        made = sys.modules[module] = types.ModuleType(module)
        vars(made).update(names)

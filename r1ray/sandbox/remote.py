"""Programs run by a service with SandboxFusion's `POST /run_code`, instead of this machine's sandbox.

The service decides what a program can do there. Guaranteed by r1ray: expected outputs are never sent (checkers and packed tests,
which contain them, run on this machine), outputs are compared here, an exit code alone never passes a test, and a failing service
makes completions unusable, not incorrect.

    Finished, exit code 0     ok                    TimeLimitExceeded     timeout
    another exit code         runtime_error         killed (137, -9)      memory
    compilation not finished  compile_error         SandboxError, HTTP    sandbox_error, after retries
"""

import base64
import json
import time
from collections.abc import Collection
from pathlib import Path
from typing import Any, cast

import httpx

from r1ray.sandbox import cpp, supplied
from r1ray.sandbox.base import (
    STDERR_BYTES,
    STDERR_KEPT,
    Language,
    Limits,
    Program,
    RunResult,
    SandboxUnavailable,
    Status,
)

RETRIES = 3
WAIT_S = 0.5
"""Before the first retry; then twice as long each time."""
MARGIN_S = 30.0
"""Added to the wall limit: the program may have to wait in a queue."""
JSON_EXPANSION = 6
"""Maximum bytes of JSON per byte of output."""
KILLED = (137, -9)
CALL = """
import base64, io, json, os, sys, types
made = types.ModuleType("supplied")
exec(base64.b64decode("{supplied}"), made.__dict__)
getattr(sys, "set_int_max_str_digits", int)(0)
out, quiet = os.dup(1), os.open(os.devnull, os.O_RDWR)
os.dup2(quiet, 1), os.dup2(quiet, 2)
cases = [json.loads(line) for line in sys.stdin.buffer]
sys.stdin = sys.__stdin__ = io.StringIO()
if {integer_keys}:
    for case in cases:
        if case and type(case[0]) is dict and all(key.lstrip("-").isdigit() for key in case[0]):
            case[0] = {{int(key): item for key, item in case[0].items()}}
space = {{"__name__": "solution", "__builtins__": made.supplied()}}
sys.setrecursionlimit(made.RECURSION_LIMIT)
exec(compile(base64.b64decode("{code}"), "solution.py", "exec"), space)
function = space["{name}"] if "{name}" in space else getattr(space["Solution"](), "{name}")
for case in cases:
    line = (json.dumps(function(*case)) + "\\n").encode()
    while line:
        line = line[os.write(out, line):]
"""
"""Calls a function as the zygote does: its prints go nowhere, and each result is a line of JSON."""
_SUPPLIED = Path(supplied.__file__).read_bytes()
SELF_TESTS = (
    (Program(code=b"print(sum(map(int, input().split())))", stdin=b"1 2\n"), ("ok", b"3\n")),
    (
        Program(code=b"def f(x):\n    print(x)\n    return [x]", stdin=b"[1]\n[2]\n", function="f"),
        ("ok", b"[1]\n[2]\n"),
    ),
    (Program(code=b"raise SystemExit(3)"), ("runtime_error", b"")),
    (
        Program(code=b"#include <bits/stdc++.h>\nint main() { std::cout << 3 << std::endl; }", language="cpp"),
        ("ok", b"3\n"),
    ),
)
"""(program, required status and output). Those in C++ are used only where the run needs C++."""


class RemoteSandbox:
    """`RemoteSandbox("http://sandbox:8080").run(program)`, from any thread.

    Raises:
        SandboxUnavailable: the service cannot be reached, or runs one of the self-tests incorrectly.
    """

    def __init__(self, url: str, languages: Collection[Language] = (), *, wait_s: float = WAIT_S) -> None:
        self._url, self._wait_s = url.rstrip("/") + "/run_code", wait_s
        self._client = httpx.Client()
        self.num_runs = 0
        for program, wanted in SELF_TESTS:
            if program.language == "cpp" and "cpp" not in languages:
                continue
            result = self.run(program)
            if (result.status, result.stdout) != wanted:
                output = result.reason or ascii(result.stdout[:80])
                raise SandboxUnavailable(
                    f"sandbox.url={url} does not run programs: a self-test ended with {result.status} {output}, not {wanted[0]} "
                    "(remedy: start SandboxFusion there, or sandbox.url=null for this machine's sandbox)"
                )

    def run(self, program: Program) -> RunResult:
        """One run, repeated while the service fails."""
        request = request_of(program)
        for attempt in range(RETRIES + 1):
            result = self._post(request, program.limits)
            if result.status != "sandbox_error":
                break
            if attempt < RETRIES:
                time.sleep(self._wait_s * 2**attempt)
        self.num_runs += 1
        return result

    def close(self) -> None:
        self._client.close()

    def _post(self, request: dict[str, Any], limits: Limits) -> RunResult:
        most, content = JSON_EXPANSION * limits.output_bytes + STDERR_BYTES, b""
        try:
            with self._client.stream("POST", self._url, json=request, timeout=limits.wall_s + MARGIN_S) as answer:
                answer.raise_for_status()
                for piece in answer.iter_bytes():
                    content += piece
                    if len(content) > most:
                        return RunResult(status="output_limit")
            return result_of(json.loads(content), limits)
        except (httpx.HTTPError, ValueError, RecursionError) as error:
            return RunResult(status="sandbox_error", reason=f"{type(error).__name__}: {error}")


def request_of(program: Program) -> dict[str, Any]:
    code = program.code.decode(errors="replace")
    if program.function is not None:
        encoded = {"code": program.code, "supplied": _SUPPLIED}
        texts = {name: base64.b64encode(data).decode() for name, data in encoded.items()}
        code = CALL.format(name=program.function, integer_keys=program.integer_keys, **texts)
    return {
        "code": code,
        "stdin": program.stdin.decode(errors="replace"),
        "language": program.language,
        "run_timeout": program.limits.wall_s,
        "compile_timeout": cpp.LIMITS.wall_s,
        "memory_limit_MB": program.limits.memory_bytes >> 20,
    }


def result_of(answer: Any, limits: Limits) -> RunResult:
    """The result of a run. Raises ValueError for anything but a response of SandboxFusion."""
    try:
        built, ran = answer.get("compile_result"), answer.get("run_result")
        if answer["status"] == "SandboxError" or not (ran or built):
            return RunResult(status="sandbox_error", reason=f"SandboxError: {answer.get('message')}")
        last = cast("dict[str, Any]", ran or built)
        stdout, stderr = ((last.get(name) or "").encode(errors="surrogatepass") for name in ("stdout", "stderr"))
        timed_out = last["status"] == "TimeLimitExceeded"
        status = _status(last) if ran else "timeout" if timed_out else "compile_error"
        wall_s = float(last.get("execution_time") or 0.0)
    except (AttributeError, KeyError, TypeError) as error:
        raise ValueError(f"this is not a response of SandboxFusion ({type(error).__name__}: {error})") from error
    if len(stdout) > limits.output_bytes:
        return RunResult(status="output_limit", wall_s=wall_s)
    return RunResult(status=status, stdout=stdout, stderr=stderr[:STDERR_KEPT], wall_s=wall_s)


def _status(ran: dict[str, Any]) -> Status:
    if ran["status"] == "TimeLimitExceeded":
        return "timeout"
    if ran["status"] != "Finished":
        return "sandbox_error"
    code = ran["return_code"]
    return "ok" if code == 0 else "memory" if code in KILLED else "runtime_error"

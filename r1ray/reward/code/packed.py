"""LiveCodeBench's private tests: JSON in a pickle in zlib in base64, up to megabytes of it.

Reading a pickle can run code, so it is read in the sandbox, which returns a text that is read as JSON. The tests stay packed until
a completion of their problem is scored.

{"packed": "eJy...", "public": [{"input", "output", "testtype"}, ...], "fn_name": "f" or null}
"""

import json
from collections.abc import Mapping
from typing import Any, cast

from r1ray.sandbox.base import Limits, Program, Runner

UNPACK = b"""
import base64, json, pickle, sys, zlib
inside = pickle.loads(zlib.decompress(base64.b64decode(sys.stdin.read())))
sys.stdout.write(inside if isinstance(inside, str) else json.dumps(inside))
"""
LIMITS = Limits(cpu_s=20.0, wall_s=120.0, memory_bytes=2 << 30, output_bytes=64 << 20)


def is_packed(tests: Any) -> bool:
    return isinstance(tests, Mapping) and "packed" in tests


def unpacked(tests: Mapping[str, Any], sandbox: Runner) -> list[dict[str, Any]]:
    """All tests, the public ones first, as rows of `r1ray.reward.code.cases`.

    Raises:
        ValueError: they cannot be read.
        RuntimeError: the sandbox failed.
    """
    result = sandbox.run(Program(code=UNPACK, stdin=str(tests["packed"]).encode(), limits=LIMITS))
    if result.status == "sandbox_error":
        raise RuntimeError(f"the packed tests were not read: the sandbox failed ({result.reason})")
    if result.status != "ok":
        raise ValueError(f"the packed tests cannot be read: {result.status} {result.stderr[-200:]!r}")
    try:
        private: Any = json.loads(result.stdout)
    except RecursionError as error:
        raise ValueError("the packed tests are nested too deeply") from error
    if not isinstance(private, list):
        raise ValueError(f"the packed tests are a {type(private).__name__}, not a list")
    return as_rows([*tests["public"], *cast("list[Any]", private)], function=tests["fn_name"])


def as_rows(tests: Any, *, function: str | None) -> list[dict[str, Any]]:
    """LiveCodeBench's tests in our form. Its functions have one argument per line, each as JSON.

    Raises:
        ValueError: they do not have LiveCodeBench's form.
    """
    try:
        rows = [cast(Mapping[str, str], test) for test in tests]
        if function is None:
            return [{"type": "stdin_stdout", "input": row["input"], "output": row["output"]} for row in rows]
        return [
            {
                "type": "function_call",
                "fn_name": function,
                "input": [json.loads(line) for line in row["input"].split("\n") if line.strip()],
                "output": json.loads(row["output"]),
            }
            for row in rows
        ]
    except (KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"tests are not in LiveCodeBench's form ({type(error).__name__}: {error})") from error

"""Datasets of programming problems: a row with its tests -> an Item that the verifier `code` judges."""

import ast
import json
from dataclasses import replace
from typing import Any

from r1ray.data.schemas import Item, Row, Unreadable, as_object, text, user
from r1ray.reward.code.cases import read_cases
from r1ray.reward.code.packed import as_rows

OF_PROGRAM = "Write a Python program that reads standard input and writes standard output. Put it in a ```python block."
OF_FUNCTION = "Write the Python function `{}`. Put it, with the imports it needs, in a ```python block."
STARTER = "Begin with this:\n\n```python\n{}\n```"
CPU_S = 6.0
"""Of a test, as LiveCodeBench has it; all calls of a function are one run."""
FUNCTION_CPU_S = 30.0


def apps(row: Row) -> Item:
    """codeparrot/apps and BAAI/TACO: `input_output` is {inputs, outputs, fn_name?} as JSON, and empty where there are no tests."""
    return _item(row["question"], _decoded(row["tests"]), starter=row.get("starter"))


def prime_code(row: Row) -> Item:
    """PrimeIntellect/verifiable-coding-problems: `verification_info` is {language, test_cases}, as JSON or as Python writes it."""
    info = as_object(_decoded(row["info"])) or {}
    if info.get("language", "python") != "python":
        raise Unreadable(f"its programs are written in {info['language']!r:.60}")
    tests: Any = info.get("test_cases") or []
    cases: list[Any] = tests
    try:
        if any(case["type"] == "function_call" for case in cases):
            [name] = {case["fn_name"] for case in cases}
            outputs = [case["output"] for case in cases]
            tests = {"fn_name": name, "inputs": [case["input"] for case in cases], "outputs": outputs}
    except (KeyError, TypeError, ValueError) as error:
        raise Unreadable(f"its tests are of no known form ({error})") from error
    return _item(row["prompt"], tests)


def livecodebench(row: Row) -> Item:
    """livecodebench/code_generation_lite. The private tests stay packed: they are a pickle, which only the sandbox reads."""
    metadata, private = as_object(_decoded(row["metadata"])) or {}, text(row["private"])
    function = metadata.get("func_name")
    public = _decoded(row["public"])
    try:
        # Both, where they are plain; else the public ones show whether the row can be used at all.
        plain = json.loads(private) if private.startswith("[") else None
        tests: Any = as_rows([*public, *(plain or [])], function=function)
    except (TypeError, ValueError) as error:
        raise Unreadable(str(error)) from error
    item = _item(row["question"], tests, starter=row.get("starter"), name=row.get("id"))
    if plain is not None:
        return item
    packed = {"packed": private, "public": public, "fn_name": function}
    return replace(item, payload={**item.payload, "tests": packed})


def _item(question: Any, tests: Any, *, starter: Any = None, name: Any = None) -> Item:
    try:
        function = read_cases(tests).function
    except ValueError as error:
        raise Unreadable(str(error)) from error
    parts = [text(question), OF_PROGRAM if function is None else OF_FUNCTION.format(function)]
    if isinstance(starter, str) and starter.strip():
        parts.append(STARTER.format(starter.rstrip()))
    return Item(
        messages=user("\n\n".join(parts)),
        verifier="code",
        payload={"tests": tests, "limits": {"cpu": CPU_S if function is None else FUNCTION_CPU_S}},
        id=None if name is None else str(name),
    )


def _decoded(value: Any) -> Any:
    """What a text says as JSON, or as a Python literal; anything else as it is."""
    if not isinstance(value, str):
        return value
    try:
        return json.loads(value)
    except (ValueError, RecursionError):
        pass
    try:
        return ast.literal_eval(value)
    except (ValueError, TypeError, SyntaxError, MemoryError, RecursionError) as error:
        raise Unreadable(f"{value!r:.60} is neither JSON nor a Python literal") from error

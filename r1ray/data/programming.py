"""Datasets of programming problems: a row with its tests -> an Item for the verifier `code`."""

import ast
import json
import re
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from r1ray.config.base import PositiveInt
from r1ray.data.base import Item, PythonArgs, Row, SourceArgs, Unreadable
from r1ray.data.columns import as_list, as_object
from r1ray.data.schemas import conversation, text, user, verl
from r1ray.reward.code.cases import Cases, load_cases
from r1ray.reward.code.compare import Floats
from r1ray.reward.code.packed import as_rows
from r1ray.sandbox.base import Language
from r1ray.types import Message

PROGRAM_INSTRUCTION = (
    "Write a Python program that reads standard input and writes standard output. Put it in a ```python block."
)
FUNCTION_INSTRUCTION = "Write the Python function `{}`. Put it, with the imports it needs, in a ```python block."
STARTER = "Begin with this:\n\n```python\n{}\n```"
FROM_SOLUTION = re.compile(r"^\s*from solution import ([^\n#]+)", re.MULTILINE)
NODES = re.compile(r"\b(?:list_node|tree_node|ListNode|TreeNode)\(")
CPU_S = 6.0
"""CPU seconds of one test of a program, as in LiveCodeBench."""
FUNCTION_CPU_S = 30.0
"""CPU seconds of all tests of a function together: one run makes all calls."""


def apps(row: Row, args: SourceArgs) -> Item:
    """codeparrot/apps and BAAI/TACO: `input_output` is {inputs, outputs, fn_name?} as JSON, or empty where there are no tests."""
    return _item(row["question"], _decoded(row["tests"]), starter=row.get("starter"))


def prime_code(row: Row, args: SourceArgs) -> Item:
    """PrimeIntellect/verifiable-coding-problems: `verification_info` is {language, test_cases} as JSON or as a Python literal."""
    info = as_object(_decoded(row["info"])) or {}
    if info.get("language", "python") != "python":
        raise Unreadable(f"its programs are written in {info['language']!r:.60}")
    return _item(row["prompt"], _calls_together(info.get("test_cases") or []), floats="close")


class DeepcoderArgs(PythonArgs):
    num_tests: PositiveInt = 15
    """Of each problem, those with the longest inputs, as DeepCoder does."""


def deepcoder(row: Row, args: DeepcoderArgs) -> Item:
    """agentica-org/DeepCoder-Preview-Dataset, any subset: `tests` are JSON in the form of their origin (PRIME's list, TACO's
    object, LiveCodeBench's list); the `args.num_tests` with the longest inputs are used, in their order."""
    tests = _decoded(row["tests"])
    parts = as_list(tests) or []
    first = as_object(parts[0]) if parts else None
    floats: Floats = "close"
    try:
        if first is not None and "testtype" in first:
            floats = "exact"
            function = (as_object(first.get("metadata")) or {}).get("func_name")
            if function is None and first["testtype"] != "stdin":
                raise Unreadable("its tests do not name the function that they call")
            tests = as_rows(parts, function=function)
        elif first is not None:
            tests = _calls_together(parts)
        cases = load_cases(tests)
    except ValueError as error:
        raise Unreadable(str(error)) from error
    return _item(row["question"], _longest(cases, args.num_tests), starter=row.get("starter"), floats=floats)


def verl_code(row: Row, args: SourceArgs) -> Item:
    """verl's format with tests as the ground truth (Skywork-OR1's code), as JSON: {inputs, outputs, fn_name?} or, with assertions,
    {import_prefix, test_code, entry_point}. The prompt already says how to answer."""
    tests = as_object(_decoded(row["answer"])) or {}
    if "test_code" in tests:
        texts = tests.get("import_prefix") or "", tests["test_code"]
        return _with_tests(
            conversation(row["prompt"]), _assertions("\n".join(map(str, texts)), tests.get("entry_point"))
        )
    if "inputs" not in tests:
        raise Unreadable(f"its tests are not inputs and outputs but {', '.join(tests) or 'nothing'}")
    return _with_tests(conversation(row["prompt"]), tests)


def leetcode(row: Row, args: SourceArgs) -> Item:
    """newfacade/LeetCodeDataset: `test` is a function check(candidate), `entry_point` like Solution().twoSum."""
    tests = _assertions(text(row["test"]), row["name"])
    return _item(row["question"], tests, starter=row.get("starter"), name=row.get("id"))


def kodcode(row: Row, args: SourceArgs) -> Item:
    """KodCode/KodCode-V1: `test` has functions for pytest, which import one function from `solution`; rows with other imports from
    there are left out, as are tests with fixtures or in classes."""
    tested = text(row["test"])
    imported = {name.strip() for names in FROM_SOLUTION.findall(tested) for name in names.split(",")}
    if len(imported) != 1 or not (name := imported.pop()).isidentifier():
        raise Unreadable("its tests do not import one function from `solution`")
    return _item(row["question"], _assertions(tested, name), name=row.get("id"))


def _assertions(tested: str, name: Any) -> dict[str, Any]:
    if NODES.search(tested):
        raise Unreadable("its tests pass linked lists or trees, which are no plain values")
    return {"fn_name": text(name), "assertions": tested}


def eurus(row: Row, args: SourceArgs) -> Item:
    """PRIME-RL/Eurus-2-RL-Data: verl's format, with maths or programs by `ability` and with its own system prompt."""
    return verl_code(row, args) if row["ability"] == "code" else verl(row, args)


class CodeforcesArgs(SourceArgs):
    language: Language = "python"
    """Language of the programs. Rows in the other language are left out."""

    @property
    def program_language(self) -> Language:
        return self.language


def codeforces(row: Row, args: CodeforcesArgs) -> Item:
    """open-r1/codeforces, subset verifiable-prompts: its rows in one programming language.

    The prompt already says how to answer. Where more than one output is correct, the row has a checker. Limits are CPU seconds and
    megabytes; problems that read and write files are left out.
    """
    language = row["language"]
    if language != args.language:
        raise Unreadable(f"its programs are written in {language!r:.60}, not in {args.language}")
    if row.get("input_mode") not in (None, "", "stdio"):
        raise Unreadable(f"its programs read {row['input_mode']!r:.60}, not standard input")
    tests = [{"type": "stdin_stdout", **(as_object(test) or {})} for test in as_list(row["tests"]) or []]
    item = _with_tests(conversation(row["prompt"]), tests, name=f"codeforces/{row['id']}/{language}", language=language)
    limits = {name: row[name] for name in ("cpu", "memory_mb") if row.get(name)}
    checker = {"checker": row["checker"]} if row.get("checker") else {}
    return replace(item, payload={**item.payload, **checker, "limits": {**item.payload["limits"], **limits}})


def livecodebench(row: Row, args: SourceArgs) -> Item:
    """livecodebench/code_generation_lite. The private tests stay packed: they are a pickle, which only the sandbox may read."""
    metadata, private = as_object(_decoded(row["metadata"])) or {}, text(row["private"])
    function = metadata.get("func_name")
    public = _decoded(row["public"])
    try:
        # Private tests that are plain text are used too. If they are packed, only the public ones are checked here.
        plain = json.loads(private) if private.startswith("[") else None
        tests: Any = as_rows([*public, *(plain or [])], function=function)
    except (TypeError, ValueError) as error:
        raise Unreadable(str(error)) from error
    item = _item(row["question"], tests, starter=row.get("starter"), name=row.get("id"), floats="exact")
    if plain is not None:
        return item
    packed = {"packed": private, "public": public, "fn_name": function}
    return replace(item, payload={**item.payload, "tests": packed})


def _item(question: Any, tests: Any, *, starter: Any = None, name: Any = None, floats: Floats | None = None) -> Item:
    """An item of a question that does not say how to answer. `floats`: if it is not that of the form of the tests."""
    function = _cases(tests).function
    parts = [text(question), PROGRAM_INSTRUCTION if function is None else FUNCTION_INSTRUCTION.format(function)]
    if isinstance(starter, str) and starter.strip():
        parts.append(STARTER.format(starter.rstrip()))
    item = _with_tests(user("\n\n".join(parts)), tests, name=name)
    return item if floats is None else replace(item, payload={**item.payload, "floats": floats})


def _with_tests(messages: Sequence[Message], tests: Any, *, name: Any = None, language: Any = "python") -> Item:
    cases = _cases(tests, language=language)
    limits = {"cpu": CPU_S if cases.function is None else FUNCTION_CPU_S}
    return Item(
        messages=tuple(messages),
        verifier="code",
        payload={"tests": tests, "limits": limits, **({} if language == "python" else {"language": language})},
        id=None if name is None else str(name),
    )


def _cases(tests: Any, *, language: Any = "python") -> Cases:
    try:
        return load_cases(tests, language=language)
    except ValueError as error:
        raise Unreadable(str(error)) from error


def _calls_together(cases: Any) -> Any:
    """PRIME's list of calls of one function, converted to the form of APPS; other tests unchanged."""
    try:
        if not any(case["type"] == "function_call" for case in cases):
            return cases
        [name] = {case["fn_name"] for case in cases}
        outputs = [case["output"] for case in cases]
        return {"fn_name": name, "inputs": [case["input"] for case in cases], "outputs": outputs}
    except (KeyError, TypeError, ValueError) as error:
        raise Unreadable(f"its tests have an unknown form ({error})") from error


def _longest(cases: Cases, num_tests: int) -> dict[str, Any]:
    """The tests with the longest inputs, in the form of `r1ray.reward.code.cases`."""
    by_length = sorted(range(len(cases.inputs)), key=lambda n: -len(str(cases.inputs[n])))
    chosen = sorted(by_length[:num_tests])
    inputs, outputs = [cases.inputs[n] for n in chosen], [cases.expected[n] for n in chosen]
    if cases.function is not None and not cases.wrapped:
        rows = [{"args": given, "expected": value} for given, value in zip(inputs, outputs, strict=True)]
        return {"fn_name": cases.function, "cases": rows}
    named = {} if cases.function is None else {"fn_name": cases.function}
    return {**named, "inputs": inputs, "outputs": outputs}


def _decoded(value: Any) -> Any:
    """A text parsed as JSON or as a Python literal; other values unchanged."""
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

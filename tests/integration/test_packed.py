"""LiveCodeBench's packed tests, unpacked by the real sandbox."""

import base64
import json
import os
import pickle
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from r1ray.config import SandboxConfig, SourceConfig
from r1ray.data.sources import load_source
from r1ray.reward.code.packed import unpacked
from r1ray.sandbox import current
from r1ray.sandbox.pool import Sandbox

DATA = Path(__file__).parents[1] / "fixtures/datasets/livecodebench.jsonl"


@pytest.fixture(scope="module")
def sandbox() -> Iterator[Sandbox]:
    cfg = SandboxConfig(url=None, min_tier="T2", python="/usr/bin/python3", packages=[])
    with Sandbox(current.spec_of(cfg, ()), slots=1) as opened:
        yield opened


def packed(inside: bytes) -> dict[str, Any]:
    return {"packed": base64.b64encode(zlib.compress(inside)).decode(), "public": [], "fn_name": None}


def test_packed_tests_are_unpacked(sandbox: Sandbox) -> None:
    function, program = load_source("lcb", SourceConfig(source="livecodebench", path=str(DATA))).items
    rows = unpacked(function.payload["tests"], sandbox)
    assert [row["input"] for row in rows] == [[[3, 1, 2]], [[]], [[2, 2, 1]]]
    assert [row["output"] for row in rows] == [[1, 2, 3], [], [1, 2, 2]]
    assert [row["input"] for row in program.payload["tests"]] == ["4\n", "-3\n"]


def test_megabyte_of_tests_is_unpacked(sandbox: Sandbox) -> None:
    test = {"input": "7" * 3_000_000, "output": "1", "testtype": "stdin"}
    [row] = unpacked(packed(pickle.dumps(json.dumps([test]))), sandbox)
    assert row["input"] == test["input"]


class Hostile:
    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return os.system, (f"touch {self.path}",)


def test_hostile_pickle_does_not_run_on_this_machine(sandbox: Sandbox, tmp_path: Path) -> None:
    target = tmp_path / "was_here"
    tmp_path.chmod(0o777)
    with pytest.raises(ValueError):
        unpacked(packed(pickle.dumps(Hostile(target))), sandbox)
    assert not target.exists()


def test_invalid_packed_tests_are_an_error(sandbox: Sandbox) -> None:
    zeros = base64.b64encode(zlib.compress(bytes(1 << 30))).decode()  # a gigabyte compressed to a megabyte
    for text in ("A" * 1000, zeros, packed(pickle.dumps("no JSON"))["packed"], packed(b"\x80\x04.")["packed"]):
        with pytest.raises(ValueError):
            unpacked({"packed": text, "public": [], "fn_name": None}, sandbox)

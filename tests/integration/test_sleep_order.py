"""The order of calls to vLLM when an engine sleeps and wakes. vLLM's engine is faked, so this also covers GPUs."""

from typing import Any

import numpy as np
import pytest

from r1ray.engine.base import EngineAsleep, EngineBroken, Request, SamplingSpec
from r1ray.engine.vllm import VllmEngine

pytestmark = pytest.mark.integration


class RecordingEngine:
    """A fake of vLLM's LLMEngine that records its calls."""

    def __init__(self) -> None:
        self.calls: list[str] = []
        self.fails: dict[str, Exception] = {}

    def _call(self, what: str) -> None:
        self.calls.append(what)
        if what in self.fails:
            raise self.fails[what]

    def sleep(self, *, level: int) -> None:
        self._call(f"sleep {level}")

    def wake_up(self, *, tags: list[str]) -> None:
        self._call(f"wake {' '.join(tags)}")

    def collective_rpc(self, method: str, kwargs: Any = None) -> None:
        self._call(method)

    def reset_prefix_cache(self, *, reset_running_requests: bool) -> None:
        self._call("reset_prefix_cache")

    def set_weight_version(self, version: str) -> None:
        self._call(f"version {version}")


UPDATE = ["start_weight_update", "update_weights", "finish_weight_update"]


@pytest.fixture
def recorder() -> RecordingEngine:
    return RecordingEngine()


@pytest.fixture
def engine(recorder: RecordingEngine) -> VllmEngine:
    made = VllmEngine.__new__(VllmEngine)
    made.__dict__.update(_engine=recorder, _asleep=set())
    return made


def test_weights_wake_before_the_update_and_the_cache_after(engine: VllmEngine, recorder: RecordingEngine) -> None:
    engine.sleep()
    engine.update_weights({}, version=3)
    assert recorder.calls == ["sleep 1", "wake weights", *UPDATE, "wake kv_cache", "reset_prefix_cache", "version 3"]


def test_awake_engine_is_not_woken(engine: VllmEngine, recorder: RecordingEngine) -> None:
    engine.update_weights({}, version=3)
    engine.wake()
    assert recorder.calls == [*UPDATE, "reset_prefix_cache", "version 3"]


def test_failed_transfer_leaves_weights_awake_and_the_next_wakes_the_cache(
    engine: VllmEngine, recorder: RecordingEngine
) -> None:
    engine.sleep()
    recorder.fails["update_weights"] = ConnectionError("reset by peer")
    with pytest.raises(ConnectionError):
        engine.update_weights({}, version=3)
    with pytest.raises(EngineAsleep, match="kv_cache"):
        engine.logprobs_of([np.array([1, 2], np.int32)])
    recorder.fails.clear()
    recorder.calls.clear()
    engine.update_weights({}, version=3)
    assert recorder.calls == [*UPDATE, "wake kv_cache", "reset_prefix_cache", "version 3"]


@pytest.mark.parametrize("part", ["weights", "kv_cache"])
def test_missing_memory_breaks_the_engine_with_a_remedy(
    engine: VllmEngine, recorder: RecordingEngine, part: str
) -> None:
    engine.sleep()
    recorder.fails[f"wake {part}"] = RuntimeError("CUDA Error: out of memory")
    with pytest.raises(EngineBroken, match=rf"no memory for its {part} .*out of memory.*kv_cache_memory_bytes"):
        engine.wake()


def test_engine_that_cannot_sleep_is_broken(engine: VllmEngine, recorder: RecordingEngine) -> None:
    recorder.fails["sleep 1"] = AssertionError("Memory usage increased after sleeping.")
    with pytest.raises(EngineBroken, match=r"could not fall asleep .*Memory usage increased"):
        engine.sleep()


def test_request_to_a_sleeping_engine_is_refused(engine: VllmEngine, recorder: RecordingEngine) -> None:
    engine.sleep()
    sampling = SamplingSpec(temperature=1.0, max_tokens=4)
    with pytest.raises(EngineAsleep):
        engine.add(Request(id="r", prompt_ids_T=np.array([5], np.int32), seed=1, sampling=sampling))
    assert recorder.calls == ["sleep 1"]

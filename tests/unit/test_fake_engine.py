import numpy as np
import pytest
from fake_engine import FakeEngine

from r1ray.engine.base import EngineAsleep, Request, SamplingSpec
from r1ray.types import Completion

PROMPT = np.array([5, 6], np.int32)


def run(
    engine: FakeEngine, seeds: list[int], *, max_tokens: int = 100, stop: tuple[str, ...] = ()
) -> dict[str, Completion]:
    sampling = SamplingSpec(temperature=0.7, max_tokens=max_tokens, stop=stop)
    for seed in seeds:
        engine.add(Request(id=str(seed), prompt_ids_T=PROMPT, seed=seed, sampling=sampling))
    done: dict[str, Completion] = {}
    while engine.num_unfinished:
        done |= dict(engine.step())
    return done


def test_completion_depends_only_on_the_seed() -> None:
    together, alone = run(FakeEngine(), [1, 2, 3]), run(FakeEngine(), [2])
    assert together["2"].token_ids_T.tolist() == alone["2"].token_ids_T.tolist()
    assert together["1"].token_ids_T.tolist() != together["2"].token_ids_T.tolist()


def test_requests_finish_after_their_own_number_of_tokens() -> None:
    engine = FakeEngine()
    lengths = {id: len(completion.token_ids_T) for id, completion in run(FakeEngine(), [1, 2, 3]).items()}
    for seed in (1, 2, 3):
        engine.add(
            Request(id=str(seed), prompt_ids_T=PROMPT, seed=seed, sampling=SamplingSpec(temperature=1, max_tokens=100))
        )
    for step in range(1, max(lengths.values()) + 1):
        assert {id for id, _ in engine.step()} == {id for id, length in lengths.items() if length == step}


def test_eos_is_kept_and_nothing_is_added_to_a_truncated_completion() -> None:
    engine = FakeEngine(eos_id=1)
    whole, cut = run(engine, [4])["4"], run(engine, [4], max_tokens=2)["4"]
    assert (whole.finish_reason, whole.token_ids_T[-1]) == ("stop", 1)
    assert len(whole.text.split()) == len(whole.token_ids_T) - 1
    assert (cut.finish_reason, cut.token_ids_T.tolist()) == ("length", whole.token_ids_T[:2].tolist())
    assert len(cut.text.split()) == 2


def test_stop_text_ends_the_completion_and_is_kept() -> None:
    whole = run(FakeEngine(), [4])["4"]
    words = whole.text.split()
    stop = f"{words[1]} {words[2][:1]}"  # over two tokens, and the second may hold more
    stopped = run(FakeEngine(), [4], stop=("not there", stop))["4"]
    assert (stopped.finish_reason, stopped.truncated) == ("stop", False)
    assert stopped.token_ids_T.tolist() == whole.token_ids_T[:3].tolist()
    assert stopped.text == " ".join(words[:3])
    assert len(stopped.rollout_logprobs_T) == 3


def test_stop_text_in_the_last_token_finishes_the_completion() -> None:
    words = run(FakeEngine(), [4])["4"].text.split()
    assert run(FakeEngine(), [4], stop=(words[2],), max_tokens=3)["4"].finish_reason == "stop"
    assert run(FakeEngine(), [4], stop=(words[2],), max_tokens=2)["4"].finish_reason == "length"


def test_unused_stop_text_changes_nothing() -> None:
    whole, same = run(FakeEngine(), [4])["4"], run(FakeEngine(), [4], stop=("not there",))["4"]
    assert (same.text, same.finish_reason) == (whole.text, "stop")
    assert same.token_ids_T.tolist() == whole.token_ids_T.tolist()


def test_new_weights_start_a_new_version_span() -> None:
    engine = FakeEngine(mean_length=50)
    engine.add(Request(id="a", prompt_ids_T=PROMPT, seed=0, sampling=SamplingSpec(temperature=1.0, max_tokens=5)))
    assert engine.version == -1
    engine.step()
    engine.step()
    engine.update_weights({}, version=7)
    ((_, completion),) = [*engine.step(), *engine.step(), *engine.step()]
    assert [(span.version, span.start, span.end) for span in completion.versions] == [(-1, 0, 2), (7, 2, 5)]


def test_aborted_requests_are_forgotten() -> None:
    engine = FakeEngine()
    engine.add(Request(id="a", prompt_ids_T=PROMPT, seed=0, sampling=SamplingSpec(temperature=1.0, max_tokens=5)))
    engine.abort(["a", "unknown"])
    assert engine.num_unfinished == 0


def test_sleeping_engine_refuses_requests_until_it_wakes_or_gets_weights() -> None:
    engine = FakeEngine()
    for wake in (engine.wake, lambda: engine.update_weights({}, version=2)):
        engine.sleep()
        with pytest.raises(EngineAsleep):
            run(engine, [1])
        with pytest.raises(EngineAsleep):
            engine.logprobs_of([PROMPT])
        wake()
        assert len(run(engine, [1])) == 1
    assert engine.version == 2

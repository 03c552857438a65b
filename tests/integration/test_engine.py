"""Guarantees of the vLLM engine for one completion: its tokens, finish reason, text, log-probs and seed."""

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import ray
import tiny_models
import torch
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf
from tiny_models import EOS_ID, make_tiny_model
from transformers import AutoModelForCausalLM, AutoTokenizer

from r1ray.actors.rollout import RolloutWorker
from r1ray.config import Config
from r1ray.engine.base import SamplingSpec
from r1ray.types import Completion

ray.cloudpickle.register_pickle_by_value(sys.modules[__name__])
ray.cloudpickle.register_pickle_by_value(tiny_models)
pytestmark = pytest.mark.integration

CONF = str(Path(__file__).parents[2] / "conf")
PROMPT = np.array([20, 30, 40, 50], np.int32)
MAX_TOKENS = 24
SECOND_EOS_ID = 200
THINK_ID = tiny_models.SPECIAL_TOKENS.index("<think>")
NEARLY_UNIFORM = 2.0
"""A temperature at which every token of the test model occurs now and then (the highest that vLLM accepts)."""


def config(*overrides: str) -> Config:
    fixed = ["data.max_prompt_length=16", f"rollout.max_response_length={MAX_TOKENS}"]
    with initialize_config_dir(CONF, version_base="1.3"):
        return Config.model_validate(OmegaConf.to_container(compose("config", [*fixed, *overrides]), resolve=True))


class Worker(RolloutWorker):
    async def refusal(self, cfg: Config, model_path: str) -> str:
        """The error of a second engine's constructor, which must be raised before vLLM starts."""
        from r1ray.engine.vllm import VllmEngine

        try:
            VllmEngine.from_config(model_path, cfg=cfg)
        except ValueError as error:
            return str(error)
        return "accepted"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model whose generation config has a second EOS token."""
    made = make_tiny_model(tmp_path_factory.mktemp("model"), scale=0.03)
    settings = json.loads((made / "generation_config.json").read_text())
    (made / "generation_config.json").write_text(json.dumps(settings | {"eos_token_id": [EOS_ID, SECOND_EOS_ID]}))
    return made


@pytest.fixture(scope="module")
def engine(folder: Path) -> Iterator[Any]:
    ray.init(address="local", num_cpus=4, include_dashboard=False, log_to_driver=False, logging_level="ERROR")
    actor = ray.remote(Worker).options(num_cpus=1, runtime_env={"env_vars": {"OMP_NUM_THREADS": "1"}})
    handle = actor.remote(index=0, cfg=config(), model_path=str(folder))
    ray.get(handle.ping.remote(), timeout=300)
    yield handle
    ray.shutdown()


@pytest.fixture(scope="module")
def many(engine: Any) -> list[Completion]:
    """Enough completions at a high temperature for every kind of token and finish reason to occur."""
    return generate(engine, seeds=list(range(128)), temperature=NEARLY_UNIFORM)


def generate(
    engine: Any,
    *,
    seeds: list[int],
    temperature: float,
    prompt: np.ndarray = PROMPT,
    max_tokens: int = MAX_TOKENS,
    stop: tuple[str, ...] = (),
) -> list[Completion]:
    sampling = SamplingSpec(temperature=temperature, max_tokens=max_tokens, stop=stop)
    call = engine.generate.remote(request_id="r", prompt_ids_T=prompt, seeds=seeds, sampling=sampling)
    return list(ray.get(call, timeout=120))


def test_sampled_eos_is_kept_with_its_logprob_and_finish_reason_stop(many: list[Completion]) -> None:
    stopped = [completion for completion in many if completion.finish_reason == "stop"]
    assert {int(completion.token_ids_T[-1]) for completion in stopped} == {EOS_ID, SECOND_EOS_ID}
    for completion in stopped:
        assert not {EOS_ID, SECOND_EOS_ID} & set(completion.token_ids_T[:-1].tolist())
        assert len(completion.rollout_logprobs_T) == len(completion.token_ids_T)
        assert -12 < completion.rollout_logprobs_T[-1] < 0


def test_nothing_is_appended_to_a_truncated_completion(many: list[Completion]) -> None:
    cut = [completion for completion in many if completion.finish_reason == "length"]
    assert cut
    for completion in cut:
        assert len(completion.token_ids_T) == MAX_TOKENS
        assert not {EOS_ID, SECOND_EOS_ID} & set(completion.token_ids_T.tolist())
    assert {completion.finish_reason for completion in many} == {"stop", "length"}


def test_text_keeps_special_tokens_except_the_final_eos(many: list[Completion], folder: Path) -> None:
    tokenizer = AutoTokenizer.from_pretrained(folder)
    thinking = [completion for completion in many if THINK_ID in completion.token_ids_T]
    assert thinking and all("<think>" in completion.text for completion in thinking)
    for completion in many:
        spoken = completion.token_ids_T[:-1] if completion.finish_reason == "stop" else completion.token_ids_T
        assert completion.text == tokenizer.decode(spoken.tolist(), skip_special_tokens=False)
        assert "<eos>" not in completion.text


@pytest.mark.parametrize("temperature", [1.0, 0.6])
def test_rollout_logprobs_are_those_of_the_sampled_distribution(engine: Any, folder: Path, temperature: float) -> None:
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    for completion in generate(engine, seeds=[1, 2, 3, 4], temperature=temperature):
        ids = torch.tensor([[*PROMPT.tolist(), *completion.token_ids_T.tolist()]])
        with torch.no_grad():
            logprobs = (model(ids).logits / temperature).log_softmax(-1)[0, len(PROMPT) - 1 : -1]
        truth = logprobs.gather(-1, ids[0, len(PROMPT) :, None])[:, 0].numpy()
        assert completion.temperature == temperature
        np.testing.assert_allclose(completion.rollout_logprobs_T, truth, atol=1e-4)


def test_score_returns_logprobs_at_temperature_one(engine: Any, folder: Path) -> None:
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    sequences = [np.array([5, 6, 7, 8, 9], np.int32), np.array([100, 3], np.int32)]
    # Twice, because a cached prefix would have no log-probs.
    for scored in ray.get([engine.logprobs_of.remote(sequences) for _ in range(2)], timeout=60):
        for sequence, logprobs_T in zip(sequences, scored, strict=True):
            ids = torch.tensor(sequence[None].astype(np.int64))
            with torch.no_grad():
                truth = model(ids).logits.log_softmax(-1)[0, :-1].gather(-1, ids[0, 1:, None])[:, 0].numpy()
            assert logprobs_T[0] == 0.0
            np.testing.assert_allclose(logprobs_T[1:], truth, atol=1e-4)


def test_completion_depends_on_its_seed_and_not_on_the_batch(engine: Any) -> None:
    """More prompt tokens at the same time than vLLM puts into one step: on CPU a seeded prompt that is split would stop the
    engine."""
    prompt = np.arange(20, 36, dtype=np.int32)
    together = generate(engine, seeds=list(range(600)), temperature=1.0, prompt=prompt)
    for seed in (0, 7, 301, 599):
        (alone,) = generate(engine, seeds=[seed], temperature=1.0, prompt=prompt)
        assert alone.token_ids_T.tolist() == together[seed].token_ids_T.tolist()


def test_completions_of_a_group_differ(engine: Any) -> None:
    tokens = {
        tuple(completion.token_ids_T.tolist()) for completion in generate(engine, seeds=list(range(8)), temperature=1.0)
    }
    assert len(tokens) == 8


def test_stop_text_ends_a_completion_and_is_kept_with_its_tokens(
    engine: Any, folder: Path, many: list[Completion]
) -> None:
    """Stop texts of several tokens, a substring of a special token, and one that ends with the last token that may be sampled."""
    tokenizer = AutoTokenizer.from_pretrained(folder)
    thinking = next(seed for seed, completion in enumerate(many) if THINK_ID in completion.token_ids_T[2:])
    letters = [
        (seed, completion.token_ids_T[5:7].tolist())
        for seed, completion in enumerate(many)
        if len(completion.token_ids_T) > 7
    ]
    plain, pair = next((seed, text) for seed, ids in letters if (text := tokenizer.decode(ids)).isalnum())
    for seed, stop in ((thinking, "think"), (plain, pair)):
        before = many[seed]
        end = next(t for t in range(len(before.text)) if stop in tokenizer.decode(before.token_ids_T[:t].tolist()))
        for limit in (MAX_TOKENS, end):
            (completion,) = generate(
                engine, seeds=[seed], temperature=NEARLY_UNIFORM, stop=("never there", stop), max_tokens=limit
            )
            assert (completion.finish_reason, completion.token_ids_T.tolist()) == (
                "stop",
                before.token_ids_T[:end].tolist(),
            )
            assert completion.text == tokenizer.decode(before.token_ids_T[:end].tolist()) and stop in completion.text
            np.testing.assert_allclose(completion.rollout_logprobs_T, before.rollout_logprobs_T[:end], atol=1e-5)
            assert [(span.start, span.end) for span in completion.versions] == [(0, end)]


def test_eos_ends_a_completion_also_with_stop_texts(engine: Any, many: list[Completion]) -> None:
    completions = generate(engine, seeds=list(range(len(many))), temperature=NEARLY_UNIFORM, stop=("never there",))
    assert [(r.text, r.finish_reason, len(r.token_ids_T)) for r in completions] == [
        (r.text, r.finish_reason, len(r.token_ids_T)) for r in many
    ]


def test_every_token_belongs_to_a_version(many: list[Completion]) -> None:
    for completion in many:
        assert [(span.version, span.start, span.end) for span in completion.versions] == [
            (-1, 0, len(completion.token_ids_T))
        ]


def test_prompt_that_is_too_long_fails_only_its_own_call(engine: Any) -> None:
    with pytest.raises(ValueError, match="41"):
        generate(engine, seeds=[1], temperature=1.0, prompt=np.full(41, 20, np.int32))
    assert len(generate(engine, seeds=[1], temperature=1.0)) == 1


def test_status_counts_steps_and_pending_requests(engine: Any) -> None:
    before: Any = ray.get(engine.status.remote(), timeout=60)
    completions = generate(engine, seeds=list(range(8)), temperature=1.0)
    after: Any = ray.get(engine.status.remote(), timeout=60)
    assert after["progress"] - before["progress"] >= max(len(completion.token_ids_T) for completion in completions)
    assert after["unfinished"] == 0 and after["ended"] is None


def test_invalid_engine_configuration_is_refused_with_the_remedy(engine: Any, folder: Path) -> None:
    taken = config("+rollout.engine_args.seed=3", "+rollout.engine_args.max_model_len=99")
    message = ray.get(engine.refusal.remote(taken, str(folder)), timeout=60)
    assert "rollout.engine_args may not set max_model_len, seed" in message
    long = config("rollout.max_response_length=1000")
    message = ray.get(engine.refusal.remote(long, str(folder)), timeout=60)
    assert "1016 tokens: lower data.max_prompt_length (16) or rollout.max_response_length (1000)" in message
    assert "max_position_embeddings=512" in message

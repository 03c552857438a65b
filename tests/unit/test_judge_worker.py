"""Judges that the run starts: a worker around a fake engine, and how rewards use its responses."""

import asyncio
import os
import signal
from types import SimpleNamespace
from typing import Any

import pytest
import ray
from fake_engine import FakeEngine
from ray.exceptions import GetTimeoutError, RayActorError, RayTaskError
from reward_samples import completion, context
from test_judge import ASKED, FAILED, RIGHT, empty_cache  # noqa: F401  a fixture

import r1ray.builtin
import r1ray.engine
from r1ray.actors import judge as judge_module
from r1ray.actors.judge import JudgeServer, JudgeWorker, engine_config
from r1ray.actors.placement import needs_of
from r1ray.actors.start import scoring_roles
from r1ray.check import load
from r1ray.cli import compose
from r1ray.config import Config
from r1ray.engine.base import EngineBroken, EngineFailed, Request, SamplingSpec
from r1ray.reward.judge import client, judge
from r1ray.reward.judge.args import JudgeArgs
from r1ray.reward.judge.server import Endpoint, PermanentError, Question, RetryableError
from r1ray.types import Completion

SAMPLING = SamplingSpec(temperature=0.0, max_tokens=30)
ENDPOINT = Endpoint(
    max_tokens=9, timeout_s=5.0, retries=2, concurrency=2, body={"chat_template_kwargs": {"enable_thinking": False}}
)
QUESTION = Question(prompt="Is it?", seed=7, temperature=0.5)


class Engine(FakeEngine):
    """Records its prompts; refuses those of more than 40 tokens, as vLLM refuses prompts that are too long."""

    prompts: list[list[int]] = []
    fault: Exception | None = None

    def add(self, request: Request) -> None:
        if len(request.prompt_ids_T) > 40:
            raise ValueError("the prompt is longer than max_model_len")
        self.prompts.append(request.prompt_ids_T.tolist())
        super().add(request)

    def step(self) -> list[tuple[str, Completion]]:
        if self.fault:
            raise self.fault
        return super().step()


@pytest.fixture
def engine(monkeypatch: pytest.MonkeyPatch) -> Engine:
    made = Engine()
    monkeypatch.setattr(r1ray.engine, "make", lambda cfg, *, model_path: made)
    return made


@pytest.fixture(scope="module")
def cfg() -> Config:
    asked = "+reward.components.judge={name: judge, weight: 1, args: {max_tokens: 64, max_chars: 400, kind: score}}"
    return load(compose([asked, "judge.path=builtin", "judge.max_length=512", "judge.dtype=bfloat16"])).config


def response(cfg: Config, prompt: str, *, seed: int = 1, sampling: SamplingSpec = SAMPLING, path: str = "") -> str:
    async def whole() -> str:
        worker = JudgeWorker(index=0, cfg=cfg, model_path=path or str(r1ray.builtin.path()))
        await worker.ping()
        return await worker.generate(prompt, seed=seed, sampling=sampling, settings={})

    return asyncio.run(asyncio.wait_for(whole(), 60))


def test_message_is_a_user_message_in_the_chat_template(engine: Engine, cfg: Config) -> None:
    said = response(cfg, "Well?")
    assert said and said == response(cfg, "Well?"), "the seed decides"
    from transformers import AutoTokenizer

    tokenizer: Any = AutoTokenizer.from_pretrained(r1ray.builtin.path())
    assert tokenizer.decode(engine.prompts[-1]) == "<|im_start|>user\nWell?<|im_end|>\n<|im_start|>assistant\n"


def test_truncated_completion_gives_no_verdict(engine: Engine, cfg: Config) -> None:
    engine.mean_length = 1000
    assert response(cfg, "Well?", sampling=SamplingSpec(temperature=0.0, max_tokens=2)) == ""


def test_message_that_is_too_long_is_refused(engine: Engine, cfg: Config) -> None:
    with pytest.raises(ValueError, match="longer than max_model_len"):
        response(cfg, "Well? " * 40)


def test_model_without_a_chat_template_is_refused(engine: Engine, cfg: Config, tmp_path: Any) -> None:
    for file in r1ray.builtin.path().glob("*token*.json"):
        (tmp_path / file.name).write_text(file.read_text())
    with pytest.raises(ValueError, match="no chat template: a judge must be a chat model"):
        response(cfg, "Well?", path=str(tmp_path))


def test_failing_engine_ends_the_process(engine: Engine, cfg: Config, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ray restarts it; a process that stayed alive would fail forever."""
    sent: list[tuple[int, int]] = []
    monkeypatch.setattr(judge_module.os, "kill", lambda pid, number: sent.append((pid, number)))
    engine.fault = EngineBroken("out of memory")
    with pytest.raises(EngineFailed):
        response(cfg, "Well?")
    assert sent == [(os.getpid(), signal.SIGKILL)]


def test_engine_uses_the_judge_section_instead_of_rollout(cfg: Config) -> None:
    made = engine_config(cfg)
    assert made.rollout.dtype == "bfloat16" != cfg.rollout.dtype
    assert made.data.max_prompt_length + made.rollout.max_response_length == 512


def handle(monkeypatch: pytest.MonkeyPatch, answer: Any) -> tuple[JudgeServer, list[Any], list[Any]]:
    """A handle of a judge whose calls return or raise `answer`; the calls, and the cancelled ones."""
    asked: list[Any] = []
    cancelled: list[Any] = []

    def remote(prompt: str, **fields: Any) -> str:
        asked.append((prompt, fields))
        return "ref"

    def get(ref: str, *, timeout: float) -> Any:
        said = answer(len(asked)) if callable(answer) else answer
        if isinstance(said, Exception):
            raise said
        return said

    monkeypatch.setattr(ray, "get", get)
    monkeypatch.setattr(ray, "cancel", cancelled.append)
    return JudgeServer(SimpleNamespace(generate=SimpleNamespace(remote=remote))), asked, cancelled  # type: ignore[arg-type]


def test_request_has_the_settings_of_the_judge(monkeypatch: pytest.MonkeyPatch) -> None:
    server, asked, _ = handle(monkeypatch, "VERDICT: YES")
    assert server(ENDPOINT)(QUESTION) == "VERDICT: YES"
    sampling = SamplingSpec(temperature=0.5, max_tokens=9)
    assert asked == [("Is it?", {"seed": 7, "sampling": sampling, "settings": {"enable_thinking": False}})]


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (RayActorError(), RetryableError),
        (RayTaskError("generate", "traceback", EngineFailed(0, "gone")), RetryableError),
        (RayTaskError("generate", "traceback", ValueError("too long")), PermanentError),
        (GetTimeoutError(), RetryableError),
    ],
)
def test_temporary_failures_are_retried(monkeypatch: pytest.MonkeyPatch, error: Any, kind: Any) -> None:
    server, _, cancelled = handle(monkeypatch, error)
    with pytest.raises(kind):
        server(ENDPOINT)(QUESTION)
    assert bool(cancelled) == isinstance(error, GetTimeoutError), "a call that timed out is cancelled"


def test_restarted_judge_gives_a_verdict_and_a_missing_one_gives_none(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    server, asked, _ = handle(monkeypatch, lambda call: RayActorError() if call < 3 else "VERDICT: YES")
    client.set_own_judges([server])
    assert judge(ASKED, [completion("Rayleigh")], context(), JudgeArgs(retries=2)) == [RIGHT]
    assert len(asked) == 3
    monkeypatch.setattr(client, "_clients", {})
    server, asked, _ = handle(monkeypatch, RayActorError())
    client.set_own_judges([server])
    assert judge(ASKED, [completion("Rayleigh")], context(), JudgeArgs(retries=2)) == [FAILED]
    client.set_own_judges([])


def test_missing_judges_are_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    client.set_own_judges([])
    with pytest.raises(ValueError, match=r"judge\.path"):
        judge(ASKED, [completion("Rayleigh")], context(), JudgeArgs())


def test_judges_have_their_own_placement(cfg: Config) -> None:
    assert scoring_roles(cfg) == ["reward", "judge"]
    needs = {need.role: need.num for need in needs_of(cfg, roles=scoring_roles(cfg))}
    assert needs == {"reward": cfg.reward.num_workers, "judge": 1}
    assert scoring_roles(load(compose([])).config) == ["reward"]

"""The judge role: engines with a fixed model, for judge rewards (`r1ray.reward.judge`) that have no URL.

Ray itself restarts a judge that has ended, in its slot and under the same handle, so the reward workers keep theirs. Requests made
meanwhile are repeated by `r1ray.reward.judge.client`; a judge that never comes back is a reward outage (`r1ray.collect.outages`). A
plain class, which `spawn` makes an async Ray actor.
"""

import os
import signal
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Any

import ray
from ray.actor import ActorHandle
from ray.exceptions import GetTimeoutError, RayError, RayTaskError

from r1ray.actors.rollout import RolloutWorker
from r1ray.config import Config
from r1ray.data.templates import render
from r1ray.engine.base import EngineFailed, SamplingSpec
from r1ray.reward.judge.server import Endpoint, JudgeFn, PermanentError, Question, RetryableError
from r1ray.types import Message


class JudgeWorker:
    """One engine that answers questions. The constructor returns at once; `ping` waits until the engine is ready."""

    def __init__(self, *, index: int, cfg: Config, model_path: str) -> None:
        self._engine = RolloutWorker(index=index, cfg=engine_config(cfg), model_path=model_path)
        self._model_path = model_path

    async def ping(self) -> None:
        """Wait for the engine. Raises the error with which its start failed; ValueError when the model has no chat template."""
        await self._engine.ping()
        _ = self._tokenizer

    async def generate(self, prompt: str, *, seed: int, sampling: SamplingSpec, settings: Mapping[str, Any]) -> str:
        """The model's answer to a user message; "" when the completion is cut or aborted. Raises ValueError for a message that is
        too long.

        Args:
            settings: arguments of the model's chat template, such as {enable_thinking: False}.
        """
        try:
            await self._engine.ping()  # Ray may just have restarted it
            turns = [Message(role="user", content=prompt)]
            prompt_ids_T, prefill = render(turns, "chat", self._tokenizer, **settings)
            [completion] = await self._engine.generate(
                request_id="judge", prompt_ids_T=prompt_ids_T, seeds=[seed], sampling=sampling
            )
        except EngineFailed:
            os.kill(os.getpid(), signal.SIGKILL)  # so that Ray restarts it
            raise
        return prefill + completion.text if completion.finish_reason == "stop" else ""

    @cached_property
    def _tokenizer(self) -> Any:
        # Only when the engine is ready: importing this in two threads at the same time fails.
        from transformers import AutoTokenizer

        tokenizer = AutoTokenizer.from_pretrained(self._model_path)
        if not tokenizer.chat_template:
            raise ValueError(f"judge.path={self._model_path} has no chat template: a judge must be a chat model")
        return tokenizer

    def status(self) -> dict[str, Any]:
        """The engine's status, with `starting`: only the worker itself knows that Ray has restarted it."""
        return self._engine.status() | {"starting": self._engine.starting}


def engine_config(cfg: Config) -> Config:
    """The configuration with judge.* in the place of rollout.*, where the engine reads it."""
    rollout = cfg.rollout.model_copy(
        update={
            "engine": "vllm",
            "tensor_parallel_size": cfg.judge.tensor_parallel_size,
            "dtype": cfg.judge.dtype,
            "max_response_length": cfg.judge.max_length - 1,
            "engine_args": cfg.judge.engine_args,
        }
    )
    return cfg.model_copy(update={"rollout": rollout, "data": cfg.data.model_copy(update={"max_prompt_length": 1})})


@dataclass(frozen=True, slots=True)
class JudgeServer:
    """Makes the `JudgeFn` that judge rewards call: a function that asks this judge worker, with the settings of an `Endpoint`."""

    handle: ActorHandle

    def __call__(self, endpoint: Endpoint) -> JudgeFn:
        return partial(self._ask, endpoint)

    def _ask(self, endpoint: Endpoint, question: Question) -> str:
        settings = endpoint.body.get("chat_template_kwargs") or {}
        sampling = SamplingSpec(temperature=question.temperature, max_tokens=endpoint.max_tokens)
        worker: Any = self.handle
        ref = worker.generate.remote(question.prompt, seed=question.seed, sampling=sampling, settings=settings)
        try:
            return ray.get(ref, timeout=endpoint.timeout_s)
        except GetTimeoutError as error:
            ray.cancel(ref)  # it would only delay other requests
            raise RetryableError(f"no answer within {endpoint.timeout_s:g} s") from error
        except RayTaskError as error:
            if isinstance(error.cause, ValueError):
                what = f"the judge at judge.path refuses: {error.cause}. The completions get no reward (which is not a reward of 0)"
                raise PermanentError(what, kind="judge.path") from error
            raise RetryableError(f"{error.cause}") from error
        except RayError as error:
            raise RetryableError(f"{type(error).__name__}: {error}") from error

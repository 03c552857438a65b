"""Helpers of the sync tests: engines in Ray actors that can be made to fail, and transformers as the reference to compare with."""

import os
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import ray
import tiny_models
import torch
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf
from transformers import AutoModelForCausalLM

from r1ray.actors.group import ActorGroup
from r1ray.actors.rollout import RolloutWorker
from r1ray.config import Config
from r1ray.engine.base import SamplingSpec
from r1ray.sync.canary import logprob_gap
from r1ray.sync.communicator import COMMUNICATORS, Communicator
from r1ray.types import Completion, Floats, Ints

ray.cloudpickle.register_pickle_by_value(sys.modules[__name__])
ray.cloudpickle.register_pickle_by_value(tiny_models)

CONF = str(Path(__file__).parents[2] / "conf")
START_S = 300.0
TIMEOUT_S = 10
COMPLETION_TOKENS = 12
PROMPTS = [np.array([20, 30, 40], np.int32), np.array([7, 100, 200, 250, 9], np.int32), np.array([77], np.int32)]


def config(*overrides: str) -> Config:
    """Small buckets, so that every transfer has many; a short timeout, so that faults are noticed quickly."""
    fixed = [
        "data.max_prompt_length=32",
        "rollout.max_response_length=32",
        "sync.bucket_mb=0.05",
        f"sync.timeout_s={TIMEOUT_S}",
    ]
    with initialize_config_dir(CONF, version_base="1.3"):
        return Config.model_validate(OmegaConf.to_container(compose("config", [*fixed, *overrides]), resolve=True))


class FaultyRolloutWorker(RolloutWorker):
    """A rollout worker with injected faults."""

    async def sabotage(self, fault: str) -> None:
        await self._call(lambda engine: break_worker(fault))

    async def shutdown(self) -> None:
        """A tensor-parallel engine that is killed would leave the shared memory of its workers behind."""
        await self._call(lambda engine: engine.shutdown())


def break_worker(fault: str) -> None:
    """Runs in the worker's process; the fault remains until the next one is injected ("none" removes it)."""
    from r1ray.sync import vllm_transfer

    links: dict[str, Any] = {name: COMMUNICATORS[name] for name in ("gloo", "ipc")}
    whole = globals().setdefault(
        "WHOLE", (vllm_transfer.pack_lm_head, {name: link.broadcast for name, link in links.items()})
    )
    vllm_transfer.pack_lm_head = whole[0]
    buckets = 0

    def broadcast_of(name: str) -> Any:
        def broadcast(self: Communicator, flat: torch.Tensor) -> None:
            nonlocal buckets
            buckets += 1
            if buckets == 4 and fault == "die":
                os._exit(1)
            if buckets == 4 and fault == "hang":
                time.sleep(1.5 * TIMEOUT_S)
            whole[1][name](self, flat)
            if buckets == 4 and fault == "flip a bit":
                flat[10] ^= 1

        return broadcast

    if fault == "skip the repack":
        vllm_transfer.pack_lm_head = lambda model: None
    for name, link in links.items():
        link.broadcast = broadcast_of(name) if fault in ("die", "hang", "flip a bit") else whole[1][name]


def load(folder: str | Path) -> Any:
    return AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()


def logprobs_of(model: Any, token_ids_T: Ints, *, temperature: float) -> Floats:
    """log softmax(logits / temperature) of each token, by transformers; entry 0 is 0."""
    ids = torch.from_numpy(token_ids_T.astype(np.int64))[None]
    with torch.no_grad():
        logprobs = (model(ids).logits / temperature).log_softmax(-1)
    taken = logprobs[0, :-1].gather(-1, ids[0, 1:, None])[:, 0]
    return np.concatenate([[0.0], taken.numpy()]).astype(np.float32)


def greedy(model: Any, prompt_ids_T: Ints) -> list[int]:
    ids = prompt_ids_T.tolist()
    for _ in range(COMPLETION_TOKENS):
        with torch.no_grad():
            ids.append(int(model(torch.tensor([ids])).logits[0, -1].argmax()))
        if ids[-1] == tiny_models.EOS_ID:
            break
    return ids[len(prompt_ids_T) :]


def start_engines(folders: Sequence[Path], cfg: Config) -> ActorGroup:
    """One engine per folder, all starting at the same time, with threads as the placement assigns them."""
    actor = ray.remote(FaultyRolloutWorker).options(num_cpus=1, runtime_env={"env_vars": {"OMP_NUM_THREADS": "1"}})
    handles = [actor.remote(index=i, cfg=cfg, model_path=str(folder)) for i, folder in enumerate(folders)]
    group = ActorGroup("rollout", handles)
    group.gather([handle.ping.remote() for handle in handles], what="start", timeout_s=START_S)
    return group


def completions(handle: Any, *, temperature: float) -> list[Completion]:
    sampling = SamplingSpec(temperature=temperature, max_tokens=COMPLETION_TOKENS)
    calls = [
        handle.generate.remote(request_id=f"{i}", prompt_ids_T=prompt, seeds=[i], sampling=sampling)
        for i, prompt in enumerate(PROMPTS)
    ]
    return [completion for (completion,) in ray.get(calls, timeout=60)]


def greedy_tokens(handle: Any) -> list[list[int]]:
    return [completion.token_ids_T.tolist() for completion in completions(handle, temperature=0.0)]


def sampling_gap(handle: Any, model: Any, *, temperature: float) -> float:
    """Largest difference between the log-probs that an engine reports for its samples and transformers' for the same tokens."""
    gaps = []
    for prompt, completion in zip(PROMPTS, completions(handle, temperature=temperature), strict=True):
        whole = np.concatenate([prompt, completion.token_ids_T])
        truth = logprobs_of(model, whole, temperature=temperature)[len(prompt) :]
        gaps.append(logprob_gap(truth, completion.rollout_logprobs_T))
    return max(gaps)

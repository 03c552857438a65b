"""vLLM as a rollout engine, in this process, on CPU and on CUDA.

`LLMEngine` is driven step by step by the one thread that owns it. Compared with `AsyncLLM` this saves two idle processes per engine
and their serialisation: two engines on two cores gave 34k tokens/s together against 18k to 25k, started in half the time and took
1.5 GB less memory each. Weights can also be changed between two steps without pausing anything. Tensor parallelism uses vLLM's
multiprocessing executor, which starts a process per worker.

Weights arrive through `r1ray.sync.vllm_transfer`, an engine registered with vLLM's weight transfer factory.
"""

import os
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from transformers import AutoConfig

from r1ray.config import Config
from r1ray.engine.base import EngineAsleep, EngineBroken, Request
from r1ray.engine.reserved import RESERVED_ENGINE_ARGS, VLLM_ENVIRONMENT
from r1ray.types import Completion, FinishReason, Floats, Ints, VersionSpan

os.environ.update(VLLM_ENVIRONMENT)
os.environ.setdefault("VLLM_LOGGING_LEVEL", "ERROR")
if not torch.cuda.is_available():
    # vLLM compiles two small sampling helpers at their first use, which takes seconds and a C++ compiler.
    os.environ.setdefault("TORCHDYNAMO_DISABLE", "1")

# vLLM reads its environment when it is imported.
from vllm import SamplingParams
from vllm.engine.arg_utils import EngineArgs
from vllm.outputs import RequestOutput
from vllm.sampling_params import RequestOutputKind
from vllm.v1.engine.llm_engine import LLMEngine

from r1ray.sync.vllm_transfer import BACKEND_NAME, EXTENSION

CPU_KV_CACHE_LIMIT_BYTES = 1 << 30
CPU_MAX_NUM_SEQS = 256
"""More running sequences gave no more tokens per second on CPU."""
CPU_KV_BLOCK_TOKENS = 128
SLEEP_LEVEL = 1
"""Weights go to host memory, keys and values are dropped. Level 2 drops the weights too, and after waking vLLM then generates
gibberish (vllm issues 16564 and 29341; NeMo-RL 2631); also, a failed transfer would leave no old weights to serve."""
WAKE_TAGS = ("weights", "kv_cache")
"""vLLM's tags of the memory that it can wake separately, in the order in which an update needs them."""


class VllmEngine:
    """Implements `r1ray.engine.base.RolloutEngine`; one per process, used from one thread.

    `engine_args` are vLLM's and override the defaults chosen here. Raises ValueError for those that r1ray controls
    (`r1ray.engine.reserved`).
    """

    def __init__(
        self,
        model_path: str,
        *,
        dtype: str,
        max_model_len: int,
        device: str,
        seed: int,
        tensor_parallel_size: int = 1,
        sleeps: bool = False,
        engine_args: Mapping[str, Any] | None = None,
    ) -> None:
        engine_args = dict(engine_args or {})
        refused = sorted(set(engine_args) & set(RESERVED_ENGINE_ARGS))
        if refused:
            raise ValueError(f"rollout.engine_args may not set {', '.join(refused)}: r1ray sets them from other keys")
        defaults = _cpu_defaults(model_path, dtype, max_model_len, tensor_parallel_size) if device == "cpu" else {}
        self._engine = LLMEngine.from_engine_args(
            EngineArgs(
                model=model_path,
                dtype=dtype,  # type: ignore[arg-type]
                max_model_len=max_model_len,
                tensor_parallel_size=tensor_parallel_size,
                distributed_executor_backend="uni" if tensor_parallel_size == 1 else "mp",
                seed=seed,
                logprobs_mode="processed_logprobs",
                weight_transfer_config={"backend": BACKEND_NAME},  # type: ignore[arg-type]
                worker_extension_cls=EXTENSION,
                # For a prompt that it has split, vLLM rewinds the seeded generator; on CPU that raises and ends the engine.
                enable_chunked_prefill=device != "cpu",
                async_scheduling=False,  # a batch in flight during a weight update would get the wrong version
                disable_log_stats=True,
                # vLLM refuses sleep mode on CPU. `sleep` and `wake` still work there, but free no memory.
                enable_sleep_mode=sleeps and device == "cuda",
                **(defaults | engine_args),
            )
        )
        self._tokenizer: Any = self._engine.get_tokenizer()
        self._stop_ids = sorted(_stop_ids(self._engine))
        self._held: list[RequestOutput] = []
        """Finished while `score` ran; returned by the next `step`."""
        self._temperatures: dict[str, float] = {}
        """{unfinished request: its temperature}, which vLLM's outputs do not contain."""
        self._asleep: set[str] = set()
        """The parts of WAKE_TAGS that are not on the device."""
        self._engine.set_weight_version("-1")

    @classmethod
    def from_config(cls, model_path: str, *, cfg: Config) -> "VllmEngine":
        """`model_path` is a folder or a hub name; `builtin` is resolved by the caller."""
        prompt, response = cfg.data.max_prompt_length, cfg.rollout.max_response_length
        engine_args = dict(cfg.rollout.engine_args)
        if cfg.deterministic:
            # A resumed run has other prompts in its cache than an uninterrupted one, and a cached prompt is rounded differently.
            engine_args.setdefault("enable_prefix_caching", False)
        try:
            return cls(
                model_path,
                dtype=cfg.rollout.dtype,
                max_model_len=prompt + response,
                device=cfg.device,
                seed=cfg.seed,
                tensor_parallel_size=cfg.rollout.tensor_parallel_size,
                sleeps=cfg.rollout.sleep,
                engine_args=engine_args,
            )
        except ValueError as error:
            if "greater than the derived max_model_len" in str(error):
                raise ValueError(
                    f"the context of {model_path} is under {prompt + response} tokens: lower data.max_prompt_length ({prompt}) or "
                    f"rollout.max_response_length ({response}). vLLM: {error}"
                ) from error
            raise

    def add(self, request: Request) -> None:
        self._raise_if_asleep()
        sampling = request.sampling
        try:
            params = SamplingParams(
                temperature=sampling.temperature,
                top_p=sampling.top_p,
                top_k=sampling.top_k,
                max_tokens=sampling.max_tokens,
                seed=request.seed,
                logprobs=0,  # only that of the sampled token
                stop_token_ids=self._stop_ids,
                stop=list(sampling.stop),
                include_stop_str_in_output=True,
                skip_special_tokens=False,  # <think> may be one, and a stop text may contain one
                detokenize=bool(sampling.stop),  # otherwise once, in `_completion`
                output_kind=RequestOutputKind.FINAL_ONLY,
            )
            self._engine.add_request(request.id, {"prompt_token_ids": request.prompt_ids_T.tolist()}, params)
        except Exception as error:
            # vLLM's own exceptions cannot be unpickled in a process without vLLM.
            raise ValueError(f"request {request.id}: {error}") from error
        self._temperatures[request.id] = sampling.temperature

    def step(self) -> list[tuple[str, Completion]]:
        finished, self._held = self._held, []
        if self._engine.has_unfinished_requests():
            finished += self._finished()
        return [(output.request_id, self._completion(output)) for output in finished]

    @property
    def num_unfinished(self) -> int:
        return self._engine.get_num_unfinished_requests() + len(self._held)

    def abort(self, request_ids: Sequence[str]) -> None:
        self._engine.abort_request(list(request_ids))
        for request_id in request_ids:
            self._temperatures.pop(request_id, None)
        self._held = [output for output in self._held if output.request_id not in request_ids]

    def logprobs_of(self, sequences: Sequence[Ints]) -> list[Floats]:
        self._raise_if_asleep()
        # vLLM does not use the prefix cache for requests with prompt log-probs.
        params = SamplingParams(
            max_tokens=1, prompt_logprobs=0, detokenize=False, output_kind=RequestOutputKind.FINAL_ONLY
        )
        for index, sequence in enumerate(sequences):
            self._engine.add_request(f"score/{index}", {"prompt_token_ids": sequence.tolist()}, params)
        scored: dict[str, RequestOutput] = {}
        while len(scored) < len(sequences):
            for output in self._finished():
                if output.request_id.startswith("score/"):
                    scored[output.request_id] = output
                else:
                    self._held.append(output)
        return [_prompt_logprobs(scored[f"score/{i}"], sequence.tolist()) for i, sequence in enumerate(sequences)]

    def init_weight_transfer(self, init_info: dict[str, object]) -> None:
        self._engine.collective_rpc("init_weight_transfer_engine", kwargs={"init_info": init_info})

    def update_weights(self, update_info: dict[str, object], *, version: int) -> None:
        """As the protocol says. Raises EngineBroken when loading fails after the old weights were released."""
        self._wake("weights")  # the new weights are loaded in their place
        self._engine.collective_rpc("start_weight_update")
        # Every worker receives and verifies; when one of them raises, none has touched its model.
        self._engine.collective_rpc("update_weights", kwargs={"update_info": {**update_info, "version": version}})
        try:
            self._engine.collective_rpc("finish_weight_update")
        except Exception as error:
            raise EngineBroken(f"loading weights of version {version} failed: {error}") from error
        self.wake()
        # Running requests are preempted and recompute their keys and values with the new weights: from now on they sample from
        # exactly the new policy, so each version span has one well-defined behaviour policy.
        self._engine.reset_prefix_cache(reset_running_requests=True)
        self._engine.set_weight_version(str(version))

    def sleep(self) -> None:
        # All engines of a device have to finish this before a trainer allocates: vLLM asserts that free memory grows.
        try:
            self._engine.sleep(level=SLEEP_LEVEL)
        except Exception as error:
            raise EngineBroken(f"the engine could not fall asleep ({type(error).__name__}: {error})") from error
        self._asleep = set(WAKE_TAGS)

    def wake(self) -> None:
        for part in WAKE_TAGS:
            self._wake(part)

    def _wake(self, part: str) -> None:
        if part not in self._asleep:
            return
        try:
            self._engine.wake_up(tags=[part])  # after the last part vLLM schedules again
        except Exception as error:
            raise EngineBroken(
                f"the engine could not wake: no memory for its {part} ({type(error).__name__}: {error}); if other processes "
                "use the memory, lower rollout.engine_args.kv_cache_memory_bytes, or set trainer.cpu_offload=true"
            ) from error
        self._asleep.discard(part)

    def _raise_if_asleep(self) -> None:
        """vLLM would queue the request, and never answer it."""
        if self._asleep:
            raise EngineAsleep(f"the engine sleeps ({', '.join(sorted(self._asleep))})")

    @property
    def version(self) -> int:
        return int(self._engine.get_weight_version())

    def shutdown(self) -> None:
        self._engine.engine_core.shutdown()

    def _finished(self) -> list[RequestOutput]:
        try:
            outputs = self._engine.step()
        except Exception as error:
            raise EngineBroken(f"{type(error).__name__}: {error}") from error
        return [output for output in outputs if isinstance(output, RequestOutput) and output.finished]

    def _completion(self, output: RequestOutput) -> Completion:
        completion = output.outputs[0]
        token_ids = list(completion.token_ids)
        finish_reason: FinishReason = (
            completion.finish_reason if completion.finish_reason in ("stop", "length") else "abort"
        )  # type: ignore[assignment]
        # A completion that ended at a stop text has no EOS, and the text is part of it.
        text_ids = token_ids[:-1] if finish_reason == "stop" and token_ids[-1] in self._stop_ids else token_ids
        logprobs: Any = completion.logprobs
        return Completion(
            token_ids_T=np.array(token_ids, np.int32),
            rollout_logprobs_T=np.array(
                [at[token].logprob for at, token in zip(logprobs, token_ids, strict=True)], np.float32
            ),
            temperature=self._temperatures.pop(output.request_id),
            text=self._tokenizer.decode(text_ids, skip_special_tokens=False, clean_up_tokenization_spaces=False),
            finish_reason=finish_reason,
            versions=tuple(
                VersionSpan(version=int(span.version), start=span.start, end=span.end)
                for span in completion.weight_versions or ()
            ),
        )


def _cpu_defaults(model_path: str, dtype: str, max_model_len: int, tensor_parallel_size: int) -> dict[str, Any]:
    """Eager mode (compilation adds 15 s to the start), and a KV cache for all running sequences, within a limit."""
    config = AutoConfig.from_pretrained(model_path)
    head_dim = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    num_kv_heads = max(1, config.num_key_value_heads // tensor_parallel_size)
    itemsize = 4 if dtype == "float32" else 2
    token_bytes = 2 * config.num_hidden_layers * num_kv_heads * head_dim * itemsize
    blocks = -(-max_model_len // CPU_KV_BLOCK_TOKENS)
    sequence_bytes = blocks * CPU_KV_BLOCK_TOKENS * token_bytes
    # At least two sequences: vLLM keeps one block for itself.
    kv_bytes = max(2 * sequence_bytes, min(CPU_MAX_NUM_SEQS * sequence_bytes, CPU_KV_CACHE_LIMIT_BYTES))
    return {"enforce_eager": True, "max_num_seqs": CPU_MAX_NUM_SEQS, "kv_cache_memory_bytes": kv_bytes}


def _stop_ids(engine: LLMEngine) -> set[int]:
    """Every token with which the model, its generation config or its tokenizer ends a completion."""
    settings = engine.model_config.try_get_generation_config()
    found: set[int] = set()
    for ids in (
        settings.get("eos_token_id"),
        engine.model_config.hf_config.eos_token_id,
        engine.get_tokenizer().eos_token_id,
    ):
        found.update([ids] if isinstance(ids, int) else ids or ())
    return found


def _prompt_logprobs(output: RequestOutput, token_ids: list[int]) -> Floats:
    """[T]; entry 0 is 0.0: the first token has no log-prob."""
    at: Any = output.prompt_logprobs
    assert at is not None and len(at) == len(token_ids)
    return np.array([0.0] + [at[t][token_ids[t]].logprob for t in range(1, len(token_ids))], np.float32)

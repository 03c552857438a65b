"""Tokens/s of vLLM inside r1ray relative to bare vLLM: floor 0.9, goal 0.95.

    python -m tests.bench.rollout [--size 25M] [--size 1M] [--quick] [--out FILE]

Ours: the rollout and reward workers of a run at tiny scale and the collector that the loop uses, step after step. Speed is tokens
per second from the first dispatch to the last completion. While engines generate, the reward workers score and the driver does its
bookkeeping on the same cores, which only our side pays for. Bare: the same number of `LLMEngine`s in plain processes with the same
engine arguments, environment, threads, prompts and per-request seeds. The clock runs from the start of the first engine to the end
of the last one: requests are sent before, and completions are not processed.

25M has random weights, so its completions reach the limit of 64 tokens. 1M is the built-in model, whose completions have 32 tokens
on
average: so little work that the cost of Python and Ray per completion matters. Both sides are running all the time and alternate. A
waiting process uses no CPU.
"""

import argparse
import gc
import multiprocessing
import os
import re
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from functools import partial
from multiprocessing.connection import Connection
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

from r1ray.config import Config
from r1ray.stages.context import StageContext
from r1ray.types import Collected, Group
from tests.bench.models import SHAPES, make_model
from tests.bench.side_by_side import Comparison, arguments, pin, report

WARMUPS = 2
"""The first calls of vLLM that return log-probs take a second longer each."""
PATIENCE_S = 300.0
QUIET = {"TQDM_DISABLE": "1", "PYTHONWARNINGS": "ignore", "TORCH_CPP_LOG_LEVEL": "ERROR"}
ENGINE_ARGS: dict[str, Any] = {"enforce_eager": True, "max_num_seqs": 256, "kv_cache_memory_bytes": 256 << 20}
"""The values that r1ray chooses for the built-in model at tiny scale, given explicitly so that both sides use them."""
VLLM_ENVIRONMENT = {
    "VLLM_ENABLE_V1_MULTIPROCESSING": "0",
    "VLLM_CPU_OMP_THREADS_BIND": "nobind",
    "VLLM_NO_USAGE_STATS": "1",
    "VLLM_LOGGING_LEVEL": "ERROR",
    "TORCHDYNAMO_DISABLE": "1",
}
"""As r1ray sets it: fastest on a CPU is the engine core in the caller's process, stepped by one thread."""


class BareRequest(NamedTuple):
    """Plain values: the engines' processes import nothing from r1ray."""

    prompt_ids: list[int]
    seed: int


class Span(NamedTuple):
    """Start and end of a process's work, by the clock that all processes of a machine share."""

    start: float
    end: float
    cpu: float
    tokens: int


class BareProcess:
    """A plain process that receives its work first and a signal to start second, so that only the work is timed."""

    def __init__(self, serve: Callable[..., None], *args: Any, env: Mapping[str, str]) -> None:
        context = multiprocessing.get_context("spawn")
        self._pipe, theirs = context.Pipe()
        self._process = context.Process(target=serve, args=(theirs, *args), daemon=True)
        with environment(env):  # libraries read it when they are imported, so it must be set before the process starts
            self._process.start()

    def send(self, message: Any) -> None:
        self._pipe.send(message)

    def receive(self) -> Any:
        """Raises RuntimeError when the process has ended or times out; its output says why."""
        deadline = time.monotonic() + PATIENCE_S
        while not self._pipe.poll(0.5):
            if not self._process.is_alive() or time.monotonic() > deadline:
                raise RuntimeError(f"a bare process returned no answer (exit code {self._process.exitcode})")
        return self._pipe.recv()

    def end(self) -> None:
        self._process.kill()
        self._process.join()


def started_bare(serve: Callable[..., None], args_of: Sequence[tuple[Any, ...]], *, threads: int) -> list[BareProcess]:
    """One process per entry, all running when this returns."""
    env = {"OMP_NUM_THREADS": str(threads), "TOKENIZERS_PARALLELISM": "false"} | QUIET
    processes = [BareProcess(serve, *args, env=env) for args in args_of]
    for process in processes:
        assert process.receive() == "ready"
    return processes


def together(processes: Sequence[BareProcess], work: Sequence[Any]) -> list[Span]:
    """Distribute the work, wait until all processes have received it, then start them at the same time."""
    for process, part in zip(processes, work, strict=True):
        process.send(part)
    for process in processes:
        assert process.receive() == "have it"
    for process in processes:
        process.send("go")
    return [process.receive() for process in processes]


def wall(spans: Sequence[Span]) -> float:
    return max(span.end for span in spans) - min(span.start for span in spans)


def answer(pipe: Connection, do: Callable[[Any], int]) -> None:
    """The receiving side of `started_bare` and `together`; never returns."""
    pipe.send("ready")
    while True:
        work = pipe.recv()
        pipe.send("have it")
        pipe.recv()
        start, cpu = time.monotonic(), time.process_time()
        tokens = do(work)
        pipe.send(Span(start, time.monotonic(), time.process_time() - cpu, tokens))


def engine_args(model_path: str, *, dtype: str, max_model_len: int, seed: int) -> dict[str, Any]:
    """The arguments that `r1ray.engine.vllm` passes to vLLM, without weight transfer."""
    return {
        "model": model_path,
        "dtype": dtype,
        "max_model_len": max_model_len,
        "seed": seed,
        "distributed_executor_backend": "uni",
        "logprobs_mode": "processed_logprobs",
        "enable_chunked_prefill": False,
        "async_scheduling": False,
        "disable_log_stats": True,
        **ENGINE_ARGS,
    }


def serve_engine(pipe: Connection, args: Mapping[str, Any], sampling: Mapping[str, Any]) -> None:
    """Bare vLLM: receives requests, then steps until all are finished."""
    os.environ |= VLLM_ENVIRONMENT
    from vllm import SamplingParams
    from vllm.engine.arg_utils import EngineArgs
    from vllm.sampling_params import RequestOutputKind
    from vllm.v1.engine.llm_engine import LLMEngine

    engine = LLMEngine.from_engine_args(EngineArgs(**args))

    def generate(requests: Sequence[BareRequest]) -> int:
        for i, request in enumerate(requests):
            params = SamplingParams(
                seed=request.seed,
                logprobs=0,
                detokenize=False,
                output_kind=RequestOutputKind.FINAL_ONLY,
                **sampling,
            )
            engine.add_request(str(i), {"prompt_token_ids": request.prompt_ids}, params)
        tokens = 0
        while engine.has_unfinished_requests():
            outputs: Any = engine.step()
            tokens += sum(len(output.outputs[0].token_ids) for output in outputs if output.finished)
        return tokens

    answer(pipe, generate)


def bare_engines(cfg: Config, model_path: str, *, cores: int) -> list[BareProcess]:
    """As many engines as the run has, with the same threads."""
    rollout = cfg.rollout
    args = engine_args(
        model_path,
        dtype=rollout.dtype,
        max_model_len=cfg.data.max_prompt_length + rollout.max_response_length,
        seed=cfg.seed,
    )
    sampling = {"temperature": rollout.temperature, "max_tokens": rollout.max_response_length}
    num = rollout.num_workers
    return started_bare(serve_engine, [(args, sampling)] * num, threads=max(1, cores // num))


def requests_of(cfg: Config, groups: Sequence[Group]) -> list[list[BareRequest]]:
    """The requests that the collector dispatches for these groups."""
    from r1ray.seeds import seed_of

    requests: list[list[BareRequest]] = []
    for group in groups:
        seeds = [seed_of(cfg.seed, group.problem.id, group.epoch, group.attempt, k) for k in range(cfg.algo.group_size)]
        requests.append([BareRequest(group.problem.prompt_ids_T.tolist(), seed) for seed in seeds])
    return requests


def dealt(requests: Sequence[Sequence[BareRequest]], *, num: int) -> list[list[BareRequest]]:
    """Problems dealt to the engines one by one, as r1ray does when all engines have the same load."""
    return [[request for group in requests[i::num] for request in group] for i in range(num)]


def configuration(*overrides: str) -> Config:
    """The configuration from the command line, with the engine arguments given explicitly."""
    from omegaconf import OmegaConf

    from r1ray.cli import compose

    said = [f"rollout.engine_args.{name}={value}" for name, value in ENGINE_ARGS.items()]
    return Config.model_validate(OmegaConf.to_container(compose([*said, *overrides]), resolve=True))


@contextmanager
def environment(env: Mapping[str, str]) -> Iterator[None]:
    before = dict(os.environ)
    os.environ |= env
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)


def cpu_seconds() -> dict[str, float]:
    """CPU seconds (user and system) of this process and its Ray so far, by role, without the bare processes."""
    ticks, parents, names = os.sysconf("SC_CLK_TCK"), {}, {}
    used: dict[int, float] = {}
    for folder in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):  # it has just ended
            fields = (folder / "stat").read_text().rpartition(") ")[2].split()
            pid, parents[int(folder.name)] = int(folder.name), int(fields[1])
            used[pid] = (int(fields[11]) + int(fields[12])) / ticks
            names[pid] = (folder / "cmdline").read_text().replace("\0", " ")
    seconds = {"driver": used[os.getpid()]}
    for pid, name in names.items():
        ancestor = pid
        while ancestor in parents and ancestor != os.getpid():
            ancestor = parents[ancestor]
        if ancestor == os.getpid() != pid and "multiprocessing" not in name:
            worker = re.match(r"ray::(\w+)Worker", name)
            role = worker[1].lower() if worker else "ray"
            seconds[role] = seconds.get(role, 0.0) + used[pid]
    return seconds


def medians(rows: Sequence[Mapping[str, float]], *names: str) -> dict[str, float]:
    return {name: median(row[name] for row in rows) for name in names}


def shown(seconds: Mapping[str, float]) -> str:
    """`{"time/train": 1.5}` as "train 1.500"."""
    return ", ".join(f"{name.rpartition('/')[2]} {value:.3f}" for name, value in seconds.items())


SIZES: dict[str, list[str]] = {
    "25M": ["algo.prompts_per_step=32", "rollout.max_response_length=64"],
    "1M": [],
}
"""Sizes of a step that differ from tiny scale."""


@contextmanager
def our_side(cfg: Config, model_path: str) -> Iterator[Callable[[int], Collected]]:
    """Yields a function that generates the rollouts of a step as the loop does."""
    from r1ray.actors.cluster import connected
    from r1ray.actors.start import actor_groups, wait_until_ready
    from r1ray.actors.workers import RayWorkers
    from r1ray.collect import Collector
    from r1ray.collect.outages import Outages
    from r1ray.collect.reward_errors import RewardErrors
    from r1ray.failures import RestartBudget
    from r1ray.run.directory import open_run
    from r1ray.run.ledger import Ledger
    from r1ray.stages.rl import problems_of, training_sampling

    with tempfile.TemporaryDirectory() as folder, connected(cfg.cluster):
        run = open_run(Path(folder) / "run", raw=cfg.model_dump(mode="json"), overrides=[])
        context = StageContext(name="rl", cfg=cfg, run=run, model_path=model_path)
        roles = {"model_path": model_path, "reference_path": model_path, "trainer_kwargs": {}}
        with actor_groups(cfg, roles=("rollout", "reward"), run=run, **roles) as groups:
            stream, _ = problems_of(context, context.tokenizer())
            wait_until_ready(groups, cfg)
            gc.freeze()  # as the stage does
            restarts = RestartBudget(0, event=run.event)
            collector = Collector(
                problems=stream,
                workers=RayWorkers(groups["rollout"], groups["reward"], cfg=cfg, restarts=restarts),
                group_size=cfg.algo.group_size,
                sampling=partial(training_sampling, cfg.rollout),
                max_attempts=cfg.rollout.max_attempts,
                keep=lambda group: True,
                min_share=cfg.algo.filter.min_share,
                max_refills=cfg.algo.filter.max_refills,
                run_seed=cfg.seed,
                ledger=Ledger(run.stage("rl").ledger, step=0),
                outages=Outages(timeout_s=cfg.reward.outage_timeout_s, event=run.event),
                reward_errors=RewardErrors(event=run.event),
            )
            yield lambda step: collector.collect(cfg.algo.prompts_per_step, step=step)


def compare(size: str, model_path: str, *, args: argparse.Namespace, cores: Sequence[int]) -> None:
    small = ["algo.prompts_per_step=8", "algo.group_size=4", "rollout.max_response_length=64"] if args.quick else []
    cfg = configuration("scale=tiny", "log.wandb=disabled", *SIZES[size], *small)
    repetitions = 2 if args.quick else args.repetitions
    engines = bare_engines(cfg, model_path, cores=len(cores))
    ours, theirs, cpus = [], [], []
    with our_side(cfg, model_path) as take:
        for step in range(1, WARMUPS + repetitions + 1):
            before = cpu_seconds()
            collected = take(step)
            cpus.append({role: used - before.get(role, 0.0) for role, used in cpu_seconds().items()})
            tokens = sum(len(completion.token_ids_T) for group in collected.kept for completion in group.completions)
            ours.append({"tokens": tokens, "seconds": collected.rollout_s, "after": collected.reward_s})
            spans = together(engines, dealt(requests_of(cfg, collected.kept), num=len(engines)))
            bare_cpu = sum(span.cpu for span in spans)
            theirs.append({"tokens": sum(s.tokens for s in spans), "seconds": wall(spans), "cpu": bare_cpu})
    for engine in engines:
        engine.end()
    ours, theirs, cpus = ours[WARMUPS:], theirs[WARMUPS:], cpus[WARMUPS:]
    setting = {
        "work": f"{cfg.algo.prompts_per_step} problems x {cfg.algo.group_size} completions, different problems in every step",
        "tokens per step (ours, bare)": ", ".join(
            f"{medians(rows, 'tokens')['tokens']:.0f}" for rows in (ours, theirs)
        ),
        "from the last completion to the last score": f"{medians(ours, 'after')['after']:.3f} s, not in the ratio",
        "CPU seconds per step, ours": shown(medians(cpus, *cpus[0])),
        "CPU seconds of the bare engines": f"{medians(theirs, 'cpu')['cpu']:.3f}",
        "engines": f"{len(engines)} x {max(1, len(cores) // len(engines))} threads, {cfg.rollout.dtype}",
        "processes": f"{len(engines)} engines; ours also has a driver and {cfg.reward.num_workers} reward workers",
        "cores": cores,
    }
    report(
        Comparison(
            name=f"vLLM inside r1ray relative to bare vLLM, {size}",
            unit="tokens/s",
            ours=[row["tokens"] / row["seconds"] for row in ours],
            theirs=[row["tokens"] / row["seconds"] for row in theirs],
            floor=0.9,
            goal=0.95,
            setting=setting,
        ),
        out=args.out,
    )


def main() -> None:
    parser = arguments(__doc__)
    parser.add_argument("--size", action="append", choices=list(SIZES), help="default: all")
    args = parser.parse_args()
    cores = pin(args.cores)
    from r1ray import builtin

    with tempfile.TemporaryDirectory() as folder:
        make_model(Path(folder), SHAPES["25M"])
        for size in args.size or (["1M"] if args.quick else SIZES):
            compare(size, folder if size == "25M" else str(builtin.path()), args=args, cores=cores)


if __name__ == "__main__":
    main()

"""Time from the command to the first trained step, relative to imports, Ray start and engine start of the same processes: at most
1.5.

    python -m tests.bench.start [--quick] [--out FILE]

Ours: `python -m r1ray.main scale=tiny` without the evaluation before the first step, from the start of its process until
metrics.jsonl has the first step. So our time includes the step itself (64 problems x 8 completions, the update and the weight
sync).
Bare: one script without r1ray that starts Ray with our settings and the same actors, all at the same time as we do: two import vLLM
and generate one token, two import DeepSpeed and transformers, one imports transformers, two do nothing.
Also reported, without a floor: the sum over one process of each kind, each alone on the machine, one after another:
- imports: of a driver (Ray), an engine (vLLM) and a trainer (DeepSpeed, transformers), each from the start of a fresh Python;
- Ray start: ray.init with our settings, and one empty actor that answers a call;
- engine start: one LLMEngine of the built-in model until it has generated its first token.
"""

import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from statistics import median
from typing import Any

from tests.bench.rollout import VLLM_ENVIRONMENT, engine_args
from tests.bench.side_by_side import Comparison, alternate, arguments, pin, report

REPO = Path(__file__).parents[2]
LIMIT = 1.5
PATIENCE_S = 300.0

STAMP = "import time\nstamps = []\ndef stamp(name):\n    stamps.append((name, time.time()))\n"
DONE = "import json, os, sys\nprint('STAMPS' + json.dumps(stamps), flush=True)\nos._exit(0)\n"
"""Skips the teardown of libraries, which is not part of the measurement."""

DRIVER = """
import ray
stamp("import Ray")

@ray.remote(num_cpus=0)
class Nothing:
    def ping(self):
        return 1

ray.init(address="local", include_dashboard=False, log_to_driver=False, logging_level="ERROR")
stamp("Ray start")
ray.get(Nothing.remote().ping.remote())
stamp("first actor")
ray.shutdown()
"""
ENGINE = """
from vllm import SamplingParams
from vllm.engine.arg_utils import EngineArgs
from vllm.v1.engine.llm_engine import LLMEngine
stamp("import vLLM")
engine = LLMEngine.from_engine_args(EngineArgs(**engine_args))
engine.add_request("0", {"prompt_token_ids": [5, 6, 7]}, SamplingParams(max_tokens=1, seed=1, logprobs=0))
while engine.has_unfinished_requests():
    engine.step()
stamp("engine start")
"""
TRAINER = """
import torch, deepspeed
from transformers import AutoModelForCausalLM, AutoTokenizer
stamp("import DeepSpeed and transformers")
"""
REFERENCE = """
import torch
from transformers import AutoModelForCausalLM
"""
TOGETHER = """
import ray

@ray.remote(num_cpus=0)
class Actor:
    def run(self, code):
        exec(code, {"engine_args": engine_args, "stamp": lambda name: None})

def actors(number, code, env):
    runtime_env = {"env_vars": env | {"CUDA_VISIBLE_DEVICES": ""}}
    return [Actor.options(runtime_env=runtime_env).remote().run.remote(code) for _ in range(number)]

ray.init(address="local", include_dashboard=False, log_to_driver=False, logging_level="ERROR")
started = [actors(*group) for group in groups]
ray.get([ref for group in started for ref in group])
stamp("the same processes at once")
"""
RAY_ENVIRONMENT = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_worker_niceness": "0",
    "RAY_enable_worker_prestart": "0",
    "RAY_prestart_worker_first_driver": "0",
    "RAY_task_events_report_interval_ms": "0",
    "RAY_enable_metrics_collection": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
}


def durations(code: str, *, env: Mapping[str, str]) -> dict[str, float]:
    """Run a script that stamps the end of each of its parts; {part: seconds}, the first part from the start of its process."""
    began = time.time()
    done = subprocess.run(
        [sys.executable, "-c", STAMP + code + DONE],
        env=os.environ | env,
        cwd=REPO,
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
    )
    lines = [line for line in done.stdout.splitlines() if line.startswith("STAMPS")]
    if not lines:
        raise RuntimeError(f"a bare part failed:\n{done.stderr[-2000:]}")
    parts: dict[str, float] = {}
    for name, at in json.loads(lines[0].removeprefix("STAMPS")):
        parts[name], began = at - began, at
    return parts


def own_engine_args() -> str:
    """A line of Python with the engine arguments that r1ray uses for the built-in model at tiny scale."""
    from r1ray import builtin

    return f"engine_args = {engine_args(str(builtin.path()), dtype='float32', max_model_len=448, seed=0)!r}\n"


def at_once(*, threads: int) -> float:
    one = {"OMP_NUM_THREADS": str(threads)}
    groups = [
        (2, ENGINE, VLLM_ENVIRONMENT | one),
        (2, TRAINER, {"DS_ACCELERATOR": "cpu", **one}),
        (1, REFERENCE, one),
        (2, "", one),
    ]
    return sum(durations(f"{own_engine_args()}groups = {groups!r}\n{TOGETHER}", env=RAY_ENVIRONMENT).values())


def one_of_each(*, threads: int) -> dict[str, float]:
    one = {"OMP_NUM_THREADS": str(threads)}
    parts = durations(DRIVER, env=RAY_ENVIRONMENT)
    parts |= durations(own_engine_args() + ENGINE, env=VLLM_ENVIRONMENT | one)
    return parts | durations(TRAINER, env={"DS_ACCELERATOR": "cpu", **one})


def our_seconds(*overrides: str) -> float:
    """Seconds from the command to the first trained step; the run then continues to its second and last step."""
    folder = Path(tempfile.mkdtemp())
    command = [
        sys.executable,
        "-m",
        "r1ray.main",
        "scale=tiny",
        "steps=2",
        "eval.before_training=false",
        "eval.every_steps=0",
    ]
    command += ["eval.sets.countdown.args.num_problems=4", f"run_dir={folder}/run", *overrides]
    metrics = folder / "run" / "stages" / "rl" / "metrics.jsonl"
    with (folder / "output").open("w") as output:
        began = time.time()
        process = subprocess.Popen(command, cwd=REPO, stdout=output, stderr=output)
        try:
            while not (metrics.exists() and '"step": 1' in metrics.read_text()):
                if process.poll() is not None or time.time() - began > PATIENCE_S:
                    raise RuntimeError(f"the run finished no step:\n{(folder / 'output').read_text()[-2000:]}")
                time.sleep(0.01)
            taken = time.time() - began
            process.wait(PATIENCE_S)
        finally:
            process.terminate()
            process.wait(PATIENCE_S)
            shutil.rmtree(folder, ignore_errors=True)
    return taken


def main() -> None:
    args = arguments(__doc__).parse_args()
    cores = pin(args.cores)
    threads = max(1, len(cores) // 2)
    small = ["algo.prompts_per_step=8", "algo.group_size=4"] if args.quick else []
    seen: list[dict[str, float]] = []

    def one_by_one() -> float:
        seen.append(one_of_each(threads=threads))
        return sum(seen[-1].values())

    repetitions = 1 if args.quick else args.repetitions
    sides = {"ours": lambda: our_seconds(*small), "at once": lambda: at_once(threads=threads), "each": one_by_one}
    # The warm-up fills the page cache and compiles the Python files for all sides.
    seconds = alternate(sides, repetitions=repetitions, warmups=0 if args.quick else 1)
    parts = {name: median(row[name] for row in seen) for name in seen[0]}
    common: dict[str, Any] = {"unit": "seconds", "ours": seconds["ours"], "less_is_better": True}
    setting = {
        "ours": f"scale=tiny eval.before_training=false {' '.join(small)}; wandb as by default (offline)",
        "bare": "driver, 2 engines, 2 trainers, 1 reference, 2 reward workers: imports, Ray start, engine start",
        "cores": cores,
    }
    name = "start to first trained step relative to imports, Ray start and engine start"
    report(
        Comparison(
            name=f"{name} of the same processes", theirs=seconds["at once"], floor=LIMIT, setting=setting, **common
        ),
        out=args.out,
    )
    setting["bare"] = ", ".join(f"{part} {value:.2f}" for part, value in parts.items())
    report(Comparison(name=f"{name}, one of each", theirs=seconds["each"], setting=setting, **common), out=args.out)


if __name__ == "__main__":
    main()

"""From the command to the first trained step, over the sum of imports, Ray start and engine start: at most 1.5.

    python -m tests.bench.start [--quick] [--out FILE]

Ours: `python -m r1ray.main scale=tiny`, without the evaluation before the first step, from the start of its process until the first
step stands in metrics.jsonl. So the step itself (64 problems x 8 replies, trained on and sent to the engines) is in our time.
Bare: one process of each kind, each alone on the machine, one after another: the sum of
- imports: what a driver imports (Ray), what an engine imports (vLLM), what a trainer imports (DeepSpeed, transformers), each from
  the start of a fresh Python;
- Ray start: ray.init with our settings, and one actor of nothing that answers;
- engine start: one LLMEngine of the built-in model until it has generated its first token.
Ours starts eight processes on the same cores and several of each kind.
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

from tests.bench.rollout import VLLM_ENVIRONMENT, engine_args
from tests.bench.side_by_side import Comparison, arguments, in_turn, pin, report

REPO = Path(__file__).parents[2]
LIMIT = 1.5
PATIENCE_S = 300.0

STAMP = "import time\nstamps = []\ndef stamp(name):\n    stamps.append((name, time.time()))\n"
DONE = "import json, os, sys\nprint('STAMPS' + json.dumps(stamps), flush=True)\nos._exit(0)\n"
"""Without the tear-down of the libraries, which nobody waits for."""

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
RAY_ENVIRONMENT = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_worker_niceness": "0",
    "RAY_enable_worker_prestart": "0",
    "RAY_prestart_worker_first_driver": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
}


def durations(code: str, *, env: Mapping[str, str]) -> dict[str, float]:
    """Run a script that stamps the ends of its parts; {part: seconds}, the first part from the start of its process."""
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


def bare_parts(*, threads: int) -> dict[str, float]:
    from r1ray import builtin

    args = engine_args(str(builtin.path()), dtype="float32", max_model_len=448, seed=0)
    one = {"OMP_NUM_THREADS": str(threads)}
    parts = durations(DRIVER, env=RAY_ENVIRONMENT)
    parts |= durations(f"engine_args = {args!r}\n{ENGINE}", env=VLLM_ENVIRONMENT | one)
    return parts | durations(TRAINER, env={"DS_ACCELERATOR": "cpu", **one})


def our_seconds(*overrides: str) -> float:
    """From the command to the first trained step; the run then goes on to its second and last."""
    folder = Path(tempfile.mkdtemp())
    command = [sys.executable, "-m", "r1ray.main", "scale=tiny", "steps=2", "eval.before=false", "eval.every_steps=0"]
    command += ["eval.sets.countdown.args.num_problems=4", f"run_dir={folder}/run", *overrides]
    metrics = folder / "run" / "stages" / "rl" / "metrics.jsonl"
    with (folder / "output").open("w") as output:
        began = time.time()
        process = subprocess.Popen(command, cwd=REPO, stdout=output, stderr=output)
        try:
            while not (metrics.exists() and '"step": 1' in metrics.read_text()):
                if process.poll() is not None or time.time() - began > PATIENCE_S:
                    raise RuntimeError(f"the run made no step:\n{(folder / 'output').read_text()[-2000:]}")
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
    small = ["algo.problems_per_step=8", "algo.group_size=4"] if args.quick else []
    seen: list[dict[str, float]] = []

    def bare() -> float:
        seen.append(bare_parts(threads=max(1, len(cores) // 2)))
        return sum(seen[-1].values())

    repetitions = 1 if args.quick else args.repetitions
    sides = {"ours": lambda: our_seconds(*small), "bare": bare}
    # The warm-up fills the page cache and the compiled Python files for both sides.
    seconds = in_turn(sides, repetitions=repetitions, warmups=0 if args.quick else 1)
    parts = {name: median(row[name] for row in seen) for name in seen[0]}
    setting = {
        "bare parts (seconds)": ", ".join(f"{name} {value:.2f}" for name, value in parts.items()),
        "ours": f"scale=tiny eval.before=false {' '.join(small)}; wandb as by default (offline)",
        "bare": "one process at a time, one of each kind",
        "cores": cores,
    }
    report(
        Comparison(
            name="start to first trained step over imports, Ray start and engine start",
            unit="seconds",
            ours=seconds["ours"],
            theirs=seconds["bare"],
            floor=LIMIT,
            less_is_better=True,
            setting=setting,
        ),
        out=args.out,
    )


if __name__ == "__main__":
    main()

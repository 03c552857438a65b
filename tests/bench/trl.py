"""Samples/s of r1ray relative to GRPOTrainer of TRL 1.16: floor 0.9 and goal 1.05 at fixed lengths, 1.5 and 1.9 at natural ones.

    python -m tests.bench.trl [--lengths fixed] [--lengths natural] [--cache FOLDER] [--quick] [--out FILE]

Both sides use the same model (the built-in base), Countdown problems, rewards, lengths, sampling, learning rate, clipping and
samples per step, without a KL term; both train in bfloat16 autocast over float32 weights and generate in bfloat16.
Ours: `python -m r1ray.main` at tiny scale: two engines and two trainer ranks with one thread each, reward workers, the driver.
TRL: its fastest setting on two cores in one process: bf16 autocast, eager attention, all samples of a step generated in one call,
no gradient checkpointing (its default). With two processes (torchrun over gloo, one thread each) it is also measured and reported.

A value is the number of samples of some steps over the time from one step's log to the next. The first step is excluded on both
sides, and so is r1ray's last one, which evaluates. Every repetition is a whole run in fresh processes; the runs alternate.

Fixed lengths use a copy of the model folder whose EOS is a token that the model never samples, so completions reach the limit on
both sides. (r1ray has no setting for this: its engine always stops at EOS.) Lengths are checked.

TRL is not a dependency of r1ray. A separate virtual environment is created under --cache (default: the system's temporary folder)
and kept for later runs. It uses the packages of the current environment and adds only TRL and accelerate.
"""

import argparse
import functools
import json
import os
import shutil
import subprocess
import sys
import sysconfig
import tempfile
import time
import venv
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean, median
from typing import Any, NamedTuple

from tests.bench.side_by_side import Comparison, alternate, arguments, pin, report

REPO = Path(__file__).parents[2]
PACKAGES = ("trl==1.16.*", "accelerate==1.15.*")
NEVER_SAMPLED = "<|im_start|>"
"""The EOS of the model copy for fixed lengths; it occurs in no text that the model was trained on."""
GROUP_SIZE = 8
LEARNING_RATE = 1e-4
POLL_S = 0.01
PHASES = ("rollout", "reward", "annotate", "train", "sync", "step")


class Lengths(NamedTuple):
    """Completions of exactly `limit` tokens, or of natural length up to it."""

    fixed: bool
    limit: int
    floor: float
    goal: float


LENGTHS = {
    "fixed": Lengths(fixed=True, limit=64, floor=0.9, goal=1.05),
    "natural": Lengths(fixed=False, limit=384, floor=1.5, goal=1.9),
}


@dataclass(frozen=True, kw_only=True)
class Work:
    """The work of one run, on either side."""

    model: str
    lengths: Lengths
    problems: int
    """In a step."""
    steps: int
    """Timed steps; one more comes before them."""
    rollout_dtype: str

    @property
    def samples(self) -> int:
        return self.problems * GROUP_SIZE

    @property
    def overrides(self) -> list[str]:
        """The configuration of both sides: TRL gets its problems and rewards from it."""
        return [
            *("scale=tiny", f"model.path={self.model}", f"algo.prompts_per_step={self.problems}"),
            *(f"algo.group_size={GROUP_SIZE}", "algo.kl_coef=0", f"trainer.lr={LEARNING_RATE}"),
            *("trainer.precision=bf16_autocast", f"rollout.dtype={self.rollout_dtype}"),
            f"rollout.max_response_length={self.lengths.limit}",
            "reward.truncated=score",
            *("eval.before_training=false", "eval.every_steps=0", "eval.sets.countdown.args.num_problems=4"),
            *("checkpoint.every_steps=0", "checkpoint.best_metric=null", "log.wandb=disabled"),
        ]


class Run(NamedTuple):
    """Measurements of one run."""

    samples_per_s: float
    mean_length: float
    longest: float
    mean_reward: float
    phases: Mapping[str, float]
    """Seconds per step: the median over the timed steps."""


# --- ours


def r1ray_run(work: Work, *, cores: Sequence[int]) -> Run:
    """A run from the command line. Its steps are timed by when their lines arrive in metrics.jsonl."""
    with tempfile.TemporaryDirectory() as folder:
        command = [
            sys.executable,
            "-m",
            "r1ray.main",
            *work.overrides,
            f"steps={work.steps + 2}",
            f"run_dir={folder}/run",
        ]
        metrics = Path(folder, "run/stages/rl/metrics.jsonl")
        with Path(folder, "output").open("w+") as output:
            env = os.environ | {"PYTHONPATH": str(REPO)}
            process = subprocess.Popen(command, cwd=folder, env=env, stdout=output, stderr=subprocess.STDOUT)
            arrived = arrivals(process, metrics)
            output.seek(0)
            if process.returncode != 0:
                raise RuntimeError(f"r1ray's run failed:\n{output.read()[-4000:]}")
        rows = [json.loads(line) for line in metrics.read_text().splitlines()][1:-1]
    wall = arrived[work.steps] - arrived[0]
    phases = {name: median(row[f"time/{name}"] for row in rows) for name in PHASES}
    return Run(
        samples_per_s=work.samples * work.steps / wall,
        mean_length=fmean(row["response_length/mean"] for row in rows),
        longest=max(row["response_length/max"] for row in rows),
        mean_reward=fmean(row["reward/mean"] for row in rows),
        # Work outside the step's own clock, mostly logging, is the difference between the last two.
        phases=phases | {"log to log": wall / work.steps},
    )


def arrivals(process: subprocess.Popen[Any], metrics: Path) -> list[float]:
    """When each line of the file arrived; returns when the process has ended."""
    arrived: list[float] = []
    while process.poll() is None:
        if metrics.exists():
            arrived += [time.perf_counter()] * (metrics.read_bytes().count(b"\n") - len(arrived))
        time.sleep(POLL_S)
    return arrived


# --- TRL, from outside


def trl_python(cache: Path) -> Path:
    """The Python of an environment with TRL and all packages of the current one; created if missing."""
    folder = cache / "r1ray-bench-trl-1.16"
    python = folder / "bin" / "python"
    if (folder / "complete").exists():
        return python
    print(f"creating an environment with {' and '.join(PACKAGES)} in {folder}")
    shutil.rmtree(folder, ignore_errors=True)
    venv.create(folder, with_pip=True)
    purelib = subprocess.run(
        [python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))"],
        capture_output=True,
        text=True,
        check=True,
    ).stdout.strip()
    Path(purelib, "main_environment.pth").write_text(sysconfig.get_path("purelib") + "\n")
    subprocess.run([python, "-m", "pip", "install", "-q", "--no-deps", *PACKAGES], check=True)
    (folder / "complete").touch()
    return python


def trl_run(work: Work, *, python: Path, processes: int, batch: int, cores: Sequence[int]) -> Run:
    """A run of GRPOTrainer in `processes` processes, which together use one thread per core."""
    launcher = ["-m", "torch.distributed.run", "--standalone", f"--nproc_per_node={processes}"] if processes > 1 else []
    with tempfile.TemporaryDirectory() as folder:
        result = Path(folder, "result.json")
        task = json.dumps({"work": [*work.overrides], "steps": work.steps + 1, "batch": batch, "result": str(result)})
        env = os.environ | {
            "PYTHONPATH": str(REPO),
            "OMP_NUM_THREADS": str(len(cores) // processes),
            "TOKENIZERS_PARALLELISM": "false",
            "HF_HUB_OFFLINE": "1",
        }
        done = subprocess.run(
            [str(python), *launcher, "-m", "tests.bench.trl", "--task", task],
            cwd=folder,
            env=env,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        if done.returncode != 0:
            raise RuntimeError(f"TRL's run failed:\n{done.stdout[-4000:]}")
        seen = json.loads(result.read_text())
    seconds = seen["step_ends"][-1] - seen["step_ends"][0]
    calls = seen["calls"][1:]
    return Run(
        samples_per_s=work.samples * work.steps / seconds,
        mean_length=fmean(call["mean_length"] for call in calls),
        longest=max(call["longest"] for call in calls),
        mean_reward=fmean(call["mean_reward"] for call in calls),
        phases={"generate": median(seen["generate_s"][1:]), "log to log": seconds / work.steps},
    )


# --- TRL, in its own environment


def train_with_trl(task: Mapping[str, Any]) -> None:
    """GRPOTrainer on the problems and rewards of an r1ray configuration."""
    from transformers import AutoTokenizer, TrainerCallback
    from trl import GRPOConfig, GRPOTrainer  # type: ignore[import-not-found]

    from tests.bench.rollout import configuration

    cfg = configuration(*task["work"])
    processes, model = int(os.environ.get("WORLD_SIZE", "1")), model_folder(cfg)
    tokenizer = AutoTokenizer.from_pretrained(model)
    dataset, reward = problems_and_reward(cfg, tokenizer, num_steps=task["steps"])
    samples = cfg.algo.prompts_per_step * cfg.algo.group_size
    step_ends: list[float] = []

    class Clock(TrainerCallback):
        def on_step_end(self, *args: Any, **kwargs: Any) -> None:
            step_ends.append(time.perf_counter())

    trainer = GRPOTrainer(
        model=model,
        reward_funcs=reward,
        train_dataset=dataset,
        processing_class=tokenizer,
        callbacks=[Clock()],
        args=GRPOConfig(
            output_dir="trl",
            max_steps=task["steps"],
            per_device_train_batch_size=task["batch"],
            gradient_accumulation_steps=samples // (processes * task["batch"]),
            num_generations=cfg.algo.group_size,
            max_completion_length=cfg.rollout.max_response_length,
            learning_rate=cfg.trainer.lr,
            lr_scheduler_type="constant",
            adam_beta1=cfg.trainer.betas[0],
            adam_beta2=cfg.trainer.betas[1],
            max_grad_norm=cfg.trainer.grad_clip,
            weight_decay=cfg.trainer.weight_decay,
            beta=0.0,
            loss_type="grpo",
            bf16=True,
            gradient_checkpointing=False,
            model_init_kwargs={"attn_implementation": "eager", "dtype": "float32"},
            use_cpu=True,
            ddp_backend="gloo" if processes > 1 else None,
            seed=cfg.seed,
            logging_steps=1,
            report_to=[],
            save_strategy="no",
            disable_tqdm=True,
            dataloader_pin_memory=False,
        ),
    )
    generate_s = timed(trainer, "_generate_single_turn")
    trainer.train()
    if trainer.accelerator.is_main_process:
        seen = {"step_ends": step_ends, "calls": reward.calls, "generate_s": generate_s}
        Path(task["result"]).write_text(json.dumps(seen))


def timed(owner: Any, name: str) -> list[float]:
    """Patch a method so that it records how long each call takes."""
    inner, noted = getattr(owner, name), []

    @functools.wraps(inner)
    def outer(*args: Any, **kwargs: Any) -> Any:
        start = time.perf_counter()
        try:
            return inner(*args, **kwargs)
        finally:
            noted.append(time.perf_counter() - start)

    setattr(owner, name, outer)
    return noted


def model_folder(cfg: Any) -> str:
    from r1ray import builtin

    return str(builtin.path()) if cfg.model.path == "builtin" else cfg.model.path


def problems_and_reward(cfg: Any, tokenizer: Any, *, num_steps: int) -> tuple[Any, Any]:
    """The training problems in TRL's format, and r1ray's rewards as a function that TRL calls."""
    from datasets import Dataset

    from r1ray.data.prompts import evaluation_sets, training_sets

    sets = training_sets(cfg, tokenizer, evaluation=evaluation_sets(cfg, tokenizer).values())
    problems = [problem for loaded in sets.values() for problem in loaded.problems]
    texts = [tokenizer.decode(problem.prompt_ids_T) for problem in problems]
    if any(tokenizer(text)["input_ids"] != p.prompt_ids_T.tolist() for text, p in zip(texts, problems, strict=True)):
        raise RuntimeError("TRL would tokenise the prompts differently from r1ray")
    rows = [{"prompt": text, "number": number} for number, text in enumerate(texts)]
    return Dataset.from_list(rows), Reward(cfg, tokenizer, problems)


class Reward:
    """The weighted sum of r1ray's reward components; records the lengths and rewards of completions."""

    def __init__(self, cfg: Any, tokenizer: Any, problems: Sequence[Any]) -> None:
        from r1ray import reward

        self.__name__ = "r1ray"
        self.cfg, self.tokenizer, self.problems = cfg, tokenizer, problems
        self.scorer = reward.make(cfg.reward)
        self.calls: list[dict[str, float]] = []

    def __call__(self, *, completion_ids: list[list[int]], number: list[int], **kwargs: Any) -> list[float]:
        from r1ray.reward.base import RewardContext

        context = RewardContext(step=0, seed=0, max_response_length=self.cfg.rollout.max_response_length)
        rewards = [
            self.scorer.score(self.problems[problem], [self.completion(ids)], context)[0].reward
            for ids, problem in zip(completion_ids, number, strict=True)
        ]
        lengths = [len(ids) for ids in completion_ids]
        called = {"mean_length": fmean(lengths), "longest": max(lengths), "mean_reward": fmean(rewards)}
        self.calls.append(called)
        return rewards

    def completion(self, ids: list[int]) -> Any:
        """TRL's own text has lost `<think>` where the tokenizer treats it as special, so the ids are decoded as r1ray does."""
        import numpy as np

        from r1ray.types import Completion

        stopped = ids[-1] == self.tokenizer.eos_token_id
        spoken = ids[:-1] if stopped else ids
        return Completion(
            token_ids_T=np.array(ids, np.int32),
            rollout_logprobs_T=np.zeros(len(ids), np.float32),
            temperature=1.0,
            text=self.tokenizer.decode(spoken, skip_special_tokens=False, clean_up_tokenization_spaces=False),
            finish_reason="stop" if stopped else "length",
            versions=(),
        )


# --- side by side


def never_ending(folder: Path) -> str:
    """A copy of the built-in model whose EOS is a token that it never samples."""
    from transformers import AutoConfig, AutoTokenizer, GenerationConfig

    from r1ray import builtin

    tokenizer = AutoTokenizer.from_pretrained(builtin.path())
    tokenizer.eos_token = NEVER_SAMPLED
    tokenizer.save_pretrained(folder)
    for kind in (AutoConfig, GenerationConfig):
        config = kind.from_pretrained(builtin.path())
        config.eos_token_id = tokenizer.eos_token_id
        config.save_pretrained(folder)
    shutil.copy(builtin.path() / "model.safetensors", folder)
    return str(folder)


def compare(name: str, *, args: Any, cores: Sequence[int], python: Path, folder: Path) -> None:
    lengths = LENGTHS[name]
    work = Work(
        model=never_ending(folder) if lengths.fixed else "builtin",
        lengths=lengths,
        problems=8 if args.quick else 64,
        steps=2 if args.quick else args.steps,
        rollout_dtype=args.rollout_dtype,
    )
    runs: dict[str, list[Run]] = {"ours": [], "TRL": [], "TRL, 2 processes": []}
    batch = min(args.trl_batch, work.samples // 2)

    def value(side: str, run: Any) -> float:
        runs[side].append(run())
        if lengths.fixed and not runs[side][-1].mean_length == runs[side][-1].longest == lengths.limit:
            raise RuntimeError(f"{side}: not all completions have {lengths.limit} tokens: {runs[side][-1]}")
        return runs[side][-1].samples_per_s

    started = {
        "ours": functools.partial(r1ray_run, work, cores=cores),
        "TRL": functools.partial(trl_run, work, python=python, processes=1, batch=batch, cores=cores),
        "TRL, 2 processes": functools.partial(trl_run, work, python=python, processes=2, batch=batch, cores=cores),
    }
    sides = {side: functools.partial(value, side, run) for side, run in started.items()}
    # No warm-up: every run excludes its own first step.
    seen = alternate(sides, repetitions=1 if args.quick else args.repetitions, warmups=0)
    for other, limits in (("TRL", (lengths.floor, lengths.goal)), ("TRL, 2 processes", (None, None))):
        report(
            Comparison(
                name=f"samples/s at {name} lengths relative to {other}",
                unit="samples/s",
                ours=seen["ours"],
                theirs=seen[other],
                floor=limits[0],
                goal=limits[1],
                setting={
                    "step": f"{work.problems} problems x {GROUP_SIZE} samples, completions of at most {lengths.limit} tokens",
                    "timed steps": f"{work.steps} of each run",
                    "precision": f"training bf16 autocast; generation {work.rollout_dtype} (ours), bf16 autocast (TRL)",
                    "ours": about(runs["ours"]) + "; 2 engines, 2 trainer ranks, one thread each",
                    other: f"{about(runs[other])}; eager attention, micro-batches of {batch}",
                    "cores": list(cores),
                },
            ),
            out=args.out,
        )


def about(runs: Sequence[Run]) -> str:
    """Lengths, rewards, and where the time of a step went."""
    phases = ", ".join(f"{name} {median(run.phases[name] for run in runs):.2f} s" for name in runs[0].phases)
    length, reward = (
        fmean(values) for values in zip(*((run.mean_length, run.mean_reward) for run in runs), strict=True)
    )
    longest = max(run.longest for run in runs)
    return f"completions of {length:.1f} tokens, the longest {longest:.0f}, reward {reward:.3f}; {phases}"


def main() -> None:
    parser = arguments(__doc__)
    parser.add_argument("--lengths", action="append", choices=list(LENGTHS), help="default: both")
    parser.add_argument("--steps", type=int, default=4, help="timed steps per run (default 4)")
    parser.add_argument(
        "--rollout-dtype", default="bfloat16", choices=["bfloat16", "float32"], help="precision of r1ray's engines"
    )
    parser.add_argument("--trl-batch", type=int, default=64, help="TRL's micro-batch (default 64)")
    parser.add_argument(
        "--cache", type=Path, default=Path(tempfile.gettempdir()), help="where TRL's environment is kept"
    )
    parser.add_argument("--task", type=json.loads, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.task:
        train_with_trl(args.task)
        return
    cores = pin(args.cores)
    python = trl_python(args.cache)
    for name in args.lengths or LENGTHS:
        with tempfile.TemporaryDirectory() as folder:
            compare(name, args=args, cores=cores, python=python, folder=Path(folder))


if __name__ == "__main__":
    main()

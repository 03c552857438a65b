"""A training step of r1ray with weight sync, relative to bare generation plus bare training of the same work: floor 1.3, goal 1.15.

    python -m tests.bench.step [--quick] [--out FILE]

Ours: the `rl` stage as `r1ray.main` runs it at tiny scale (with a reference, because its recipe has a KL term). The clock runs from
the end of one step's log to the end of the next, so collecting, scoring, annotating, packing, training, weight sync and writing
metrics all count. Evaluation, checkpoints and wandb are off. Bare: the same number of plain processes with the same threads.
Engines generate the requests of the step with its seeds; then a reference process computes log-probs of the completions; then the
ranks train on them: plain PyTorch with r1ray's model code (the same packed rows, attention, head and precision), one flat
all-reduce, clipping, fused AdamW. Each phase is timed from the start of its first process to the end of its last; time between
phases does not count. No weights are sent.

The learning rate is 0: all the work is done, but the policy does not change, so both sides sample the same completions in every
step although the bare engines never receive weights. Bare steps run inside the `step` of our log, so the sides alternate.
"""

import shutil
import socket
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from r1ray.config import Config
from r1ray.stages.context import StageContext
from r1ray.types import Batch, Group, Row
from tests.bench.rollout import (
    WARMUPS,
    BareProcess,
    answer,
    bare_engines,
    configuration,
    cpu_seconds,
    dealt,
    medians,
    requests_of,
    shown,
    started_bare,
    together,
    wall,
)
from tests.bench.side_by_side import Comparison, arguments, pin, report

PHASES = ("time/rollout", "time/reward", "time/annotate", "time/train", "time/sync")
BARE_PHASES = ("generate", "reference", "train")


def serve_reference(pipe: Connection, cfg: Config, model_path: str) -> None:
    import torch

    from r1ray.model.forward import row_tensors
    from r1ray.model.load import load_policy

    policy = load_policy(model_path, cfg=cfg).eval().requires_grad_(False)

    def logprobs(rows: Sequence[Row]) -> int:
        with torch.no_grad():
            for row in rows:
                policy(row_tensors(row, device=torch.device("cpu")))
        return sum(len(row.token_ids_L) for row in rows)

    answer(pipe, logprobs)


def serve_rank(pipe: Connection, cfg: Config, model_path: str, rank: int, port: int) -> None:
    """One rank of a bare trainer: the GRPO loss over packed rows, summed over rows and ranks."""
    import torch
    import torch.distributed as dist

    from r1ray.model.load import load_policy

    world_size = cfg.trainer.num_workers
    dist.init_process_group("gloo", init_method=f"tcp://127.0.0.1:{port}", rank=rank, world_size=world_size)
    policy = load_policy(model_path, cfg=cfg).train()
    weights = list(policy.parameters())
    optimizer = torch.optim.AdamW(weights, lr=cfg.trainer.lr, weight_decay=cfg.trainer.weight_decay, fused=True)

    def update(rows: Sequence[Row]) -> int:
        for row in rows:
            loss_of(policy, row).backward()
        flat = torch.cat([p.grad.view(-1) for p in weights if p.grad is not None])
        dist.all_reduce(flat)
        for p, grad in zip(weights, flat.split([p.numel() for p in weights]), strict=True):
            p.grad = grad.view_as(p)
        torch.nn.utils.clip_grad_norm_(weights, cfg.trainer.grad_clip)
        optimizer.step()
        optimizer.zero_grad()
        return sum(len(row.token_ids_L) for row in rows)

    answer(pipe, update)


def loss_of(policy: Any, row: Row) -> Any:
    """The clipped surrogate and the k3 term, with one update per step (old log-probs are the current ones, detached)."""
    import torch

    from r1ray.model.forward import row_tensors

    logprobs_L, _ = policy(row_tensors(row, device=torch.device("cpu")))
    assert row.advantages_L is not None and row.ref_logprobs_L is not None
    advantages_L, ref_L = torch.from_numpy(row.advantages_L), torch.from_numpy(row.ref_logprobs_L)
    ratio_L = (logprobs_L - logprobs_L.detach()).exp()
    surrogate_L = torch.minimum(ratio_L * advantages_L, ratio_L.clamp(0.8, 1.2) * advantages_L)
    delta_L = (ref_L - logprobs_L) * torch.from_numpy(row.mask_L)
    k3_L = delta_L.exp() - delta_L - 1
    weights = {term: torch.from_numpy(weight_L) for term, weight_L in row.weights_L.items()}
    return (weights["kl"] * k3_L - weights["policy"] * surrogate_L).sum()


@dataclass
class BareStep:
    """Generation, reference log-probs and training of a step's groups, one phase after another."""

    cfg: Config
    algo: Any
    engines: Sequence[BareProcess]
    reference: Sequence[BareProcess]
    ranks: Sequence[BareProcess]

    def __call__(self, groups: Sequence[Group]) -> dict[str, float]:
        of_reference, of_ranks = (self._batch(groups, num_ranks=len(p)) for p in (self.reference, self.ranks))
        generated = together(self.engines, dealt(requests_of(self.cfg, groups), num=len(self.engines)))
        referred = together(self.reference, of_reference.rows)
        trained = together(self.ranks, of_ranks.rows)
        seconds = {"generate": wall(generated), "reference": wall(referred), "train": wall(trained)}
        cpu = sum(span.cpu for span in (*generated, *referred, *trained))
        return seconds | {"tokens": sum(span.tokens for span in generated), "cpu": cpu}

    def _batch(self, groups: Sequence[Group], *, num_ranks: int) -> Batch:
        """The rows that our side packs; the values of the reference's log-probs do not matter here."""
        from r1ray.data.pack import pack
        from r1ray.data.samples import to_samples

        samples = to_samples(groups, truncated=self.cfg.reward.truncated)
        samples = self.algo.advantages([replace(s, ref_logprobs_T=s.rollout_logprobs_T) for s in samples], {})
        max_tokens = self.cfg.trainer.max_tokens_per_micro_batch
        return pack(samples, weights=self.algo.weights(samples, {}), num_ranks=num_ranks, max_tokens=max_tokens)


def only_steps(*, quick: bool, repetitions: int) -> Config:
    """Tiny scale with a constant policy and nothing but training steps."""
    small = ["algo.prompts_per_step=8", "algo.group_size=4", "rollout.max_response_length=64"] if quick else []
    return configuration(
        "scale=tiny",
        "trainer.lr=0",
        "log.wandb=disabled",
        "eval.before_training=false",
        "eval.every_steps=0",
        "eval.sets.countdown.args.num_problems=4",
        "checkpoint.every_steps=0",
        "checkpoint.best_metric=null",
        # The last step, which also evaluates and saves, is excluded.
        f"steps={WARMUPS + repetitions + 1}",
        *small,
    )


@dataclass
class AlternatingLog:
    """Wraps a run's log: stops our clock at the end of every step, runs the bare side's step, and restarts our clock."""

    bare: Callable[[Sequence[Group]], dict[str, float]]
    ours: list[dict[str, float]] = field(default_factory=list)
    """Per step: its metrics, the time since the last step as `wall`, the tokens generated, and CPU seconds as `cpu/<role>`."""
    theirs: list[dict[str, float]] = field(default_factory=list)
    log: Any = None
    groups: Sequence[Group] = ()
    began: float = 0.0
    cpu: Mapping[str, float] = field(default_factory=dict[str, float])

    def wrapping(self, log: Any) -> "AlternatingLog":
        self.log = log
        self._restart_clock()
        return self

    def _restart_clock(self) -> None:
        self.cpu, self.began = cpu_seconds(), time.perf_counter()

    def rollouts(self, step: int, groups: Sequence[Group]) -> None:
        self.log.rollouts(step, groups)
        self.groups = groups

    def step(self, step: int, metrics: Mapping[str, float]) -> None:
        self.log.step(step, metrics)
        taken = time.perf_counter() - self.began
        cpu = {f"cpu/{role}": used - self.cpu.get(role, 0.0) for role, used in cpu_seconds().items()}
        tokens = sum(len(completion.token_ids_T) for group in self.groups for completion in group.completions)
        self.ours.append({**metrics, **cpu, "wall": taken, "tokens": tokens})
        self.theirs.append(self.bare(self.groups))
        self._restart_clock()

    def __getattr__(self, name: str) -> Any:
        return getattr(self.log, name)


@dataclass(frozen=True, kw_only=True)
class BenchContext(StageContext):
    """The stage's context with a log that alternates between the sides."""

    alternating: AlternatingLog

    def log(self, tokenizer: Any, *, first_step: int, last_step: int) -> Any:
        return self.alternating.wrapping(super().log(tokenizer, first_step=first_step, last_step=last_step))


def run_alternating(cfg: Config, bare: Callable[[Sequence[Group]], dict[str, float]]) -> AlternatingLog:
    """Run the `rl` stage, each step followed by `bare` on the same groups. The result has only the measured steps."""
    from r1ray import builtin
    from r1ray.actors.cluster import connected
    from r1ray.run.directory import open_run
    from r1ray.stages import rl

    folder, alternating = Path(tempfile.mkdtemp()), AlternatingLog(bare)
    try:
        run = open_run(folder / "run", raw=cfg.model_dump(mode="json"), overrides=[])
        with connected(cfg.cluster):
            rl.run(BenchContext(name="rl", cfg=cfg, run=run, model_path=str(builtin.path()), alternating=alternating))
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    alternating.ours, alternating.theirs = alternating.ours[WARMUPS:-1], alternating.theirs[WARMUPS:-1]
    return alternating


@contextmanager
def bare_side(cfg: Config, *, cores: int) -> Iterator[BareStep]:
    """All processes of the run except reward workers, each with its threads."""
    import r1ray.algo
    from r1ray import builtin

    def threads(num: int) -> int:
        return max(1, cores // num)

    model_path = str(builtin.path())
    num_ranks, num_references = cfg.trainer.num_workers, cfg.reference.num_workers
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port = listener.getsockname()[1]
    engines = bare_engines(cfg, model_path, cores=cores)
    reference = started_bare(serve_reference, [(cfg, model_path)] * num_references, threads=threads(num_references))
    ranks_args = [(cfg, model_path, rank, port) for rank in range(num_ranks)]
    ranks = started_bare(serve_rank, ranks_args, threads=threads(num_ranks))
    algo = r1ray.algo.make(cfg.algo, max_response_length=cfg.rollout.max_response_length)
    try:
        yield BareStep(cfg, algo, engines, reference, ranks)
    finally:
        for process in (*engines, *reference, *ranks):
            process.end()


def main() -> None:
    args = arguments(__doc__).parse_args()
    cores = pin(args.cores)
    cfg = only_steps(quick=args.quick, repetitions=2 if args.quick else args.repetitions)
    with bare_side(cfg, cores=len(cores)) as bare:
        alternating = run_alternating(cfg, bare)
    for row in alternating.ours:
        row["rest"] = row["wall"] - sum(row[phase] for phase in PHASES)
    roles = [name for name in alternating.ours[0] if name.startswith("cpu/")]
    tokens = [medians(rows, "tokens")["tokens"] for rows in (alternating.ours, alternating.theirs)]
    setting = {
        "work": f"{cfg.algo.prompts_per_step} problems x {cfg.algo.group_size} completions, different problems in every step",
        "seconds, ours": shown(medians(alternating.ours, *PHASES, "rest")),
        "seconds, theirs": shown(medians(alternating.theirs, *BARE_PHASES)),
        "CPU seconds, ours": shown(medians(alternating.ours, *roles)),
        "CPU seconds, theirs": f"{medians(alternating.theirs, 'cpu')['cpu']:.3f}",
        "tokens generated (ours, theirs)": f"{tokens[0]:.0f}, {tokens[1]:.0f}",
        "precision": f"engines {cfg.rollout.dtype}, trainer {cfg.trainer.precision}, r1ray's packed attention",
        "processes": f"{cfg.rollout.num_workers} engines, {cfg.trainer.num_workers} trainer ranks, "
        f"{cfg.reference.num_workers} reference; ours also has {cfg.reward.num_workers} reward workers and Ray",
        "threads": f"{len(cores)} per role",
        "cores": cores,
    }
    report(
        Comparison(
            name="a step of r1ray relative to bare generation and training",
            unit="seconds",
            ours=[row["wall"] for row in alternating.ours],
            theirs=[sum(row[phase] for phase in BARE_PHASES) for row in alternating.theirs],
            floor=1.3,
            goal=1.15,
            less_is_better=True,
            setting=setting,
        ),
        out=args.out,
    )


if __name__ == "__main__":
    main()

"""A training step of r1ray, sync included, over bare generation plus bare training of the same work: floor 1.3, goal 1.15.

    python -m tests.bench.step [--quick] [--out FILE]

Ours: the `rl` stage as `r1ray.main` runs it at tiny scale (a reference included, for its recipe has a KL term). The clock runs
from the end of one step's log to the end of the next one's, so collecting, scoring, annotating, packing, training, sync and
writing metrics all count. Evaluation, checkpoints and wandb are off. Bare: as many plain processes, each with as many threads as
ours. Engines generate the requests of that step with its seeds; then a reference process makes its log-probs of the completions;
then as many ranks train on them: plain PyTorch with r1ray's model code (the same packed rows, attention, head and precision), one
flat all-reduce, clipping, fused AdamW. Each phase's clock runs from its first process's start to its last one's end; between
phases nothing counts. No weights are sent.

The learning rate is 0: all of the work is done and the policy stays what it is, so both sides sample the same completions from it,
step after step, although the bare engines are never sent weights. Bare steps run inside our log's `step`, so the sides take turns.
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
    """One rank of a bare trainer: GRPO's loss over packed rows, summed over rows and ranks."""
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
    """The clipped surrogate and the k3 term, one update a pass (old log-probs are the present ones, detached)."""
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
        """The rows that our side packs; any log-probs do as the reference's."""
        from r1ray.data.pack import pack
        from r1ray.data.samples import to_samples

        samples = to_samples(groups, truncated=self.cfg.reward.truncated)
        samples = self.algo.advantages([replace(s, ref_logprobs_T=s.rollout_logprobs_T) for s in samples], {})
        max_tokens = self.cfg.trainer.max_tokens_per_micro_batch
        return pack(samples, weights=self.algo.weights(samples, {}), num_ranks=num_ranks, max_tokens=max_tokens)


def only_steps(*, quick: bool, repetitions: int) -> Config:
    """Tiny scale with a policy that stays what it is, and nothing but steps."""
    small = ["algo.prompts_per_step=8", "algo.group_size=4", "rollout.max_response_length=64"] if quick else []
    return configuration(
        "scale=tiny",
        "trainer.lr=0",
        "log.wandb=disabled",
        "eval.before=false",
        "eval.every_steps=0",
        "eval.sets.countdown.args.num_problems=4",
        "checkpoint.every_steps=0",
        "checkpoint.best_metric=null",
        # The last step also evaluates and saves: it is left out.
        f"steps={WARMUPS + repetitions + 1}",
        *small,
    )


@dataclass
class Turns:
    """Stands before a run's log: stops our clock at the end of every step, lets the other side do that step, and goes on."""

    bare: Callable[[Sequence[Group]], dict[str, float]]
    ours: list[dict[str, float]] = field(default_factory=list)
    """Per step: its metrics, the time since the last step as `wall`, the tokens generated, and CPU seconds as `cpu/<role>`."""
    theirs: list[dict[str, float]] = field(default_factory=list)
    log: Any = None
    groups: Sequence[Group] = ()
    began: float = 0.0
    cpu: Mapping[str, float] = field(default_factory=dict[str, float])

    def before(self, log: Any) -> "Turns":
        self.log = log
        self._go()
        return self

    def _go(self) -> None:
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
        self._go()

    def __getattr__(self, name: str) -> Any:
        return getattr(self.log, name)


@dataclass(frozen=True, kw_only=True)
class BenchContext(StageContext):
    """The stage's context with a log that takes turns."""

    turns: Turns

    def log(self, tokenizer: Any, *, first_step: int, last_step: int) -> Any:
        return self.turns.before(super().log(tokenizer, first_step=first_step, last_step=last_step))


def taking_turns(cfg: Config, bare: Callable[[Sequence[Group]], dict[str, float]]) -> Turns:
    """Run the `rl` stage, every step followed by `bare` of the same groups; what is returned has measured steps only."""
    from r1ray import builtin
    from r1ray.actors.cluster import connected
    from r1ray.run.directory import open_run
    from r1ray.stages import rl

    folder, turns = Path(tempfile.mkdtemp()), Turns(bare)
    try:
        run = open_run(folder / "run", raw=cfg.model_dump(mode="json"), overrides=[])
        with connected(cfg.cluster):
            rl.run(BenchContext(name="rl", cfg=cfg, run=run, model_path=str(builtin.path()), turns=turns))
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    turns.ours, turns.theirs = turns.ours[WARMUPS:-1], turns.theirs[WARMUPS:-1]
    return turns


@contextmanager
def bare_side(cfg: Config, *, cores: int) -> Iterator[BareStep]:
    """Every process that the run has, but reward workers, each with its threads."""
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
        turns = taking_turns(cfg, bare)
    for row in turns.ours:
        row["rest"] = row["wall"] - sum(row[phase] for phase in PHASES)
    roles = [name for name in turns.ours[0] if name.startswith("cpu/")]
    tokens = [medians(rows, "tokens")["tokens"] for rows in (turns.ours, turns.theirs)]
    setting = {
        "work": f"{cfg.algo.prompts_per_step} problems x {cfg.algo.group_size} completions, other problems in every step",
        "seconds of ours": shown(medians(turns.ours, *PHASES, "rest")),
        "seconds of theirs": shown(medians(turns.theirs, *BARE_PHASES)),
        "CPU seconds of ours": shown(medians(turns.ours, *roles)),
        "CPU seconds of theirs": f"{medians(turns.theirs, 'cpu')['cpu']:.3f}",
        "tokens generated (ours, theirs)": f"{tokens[0]:.0f}, {tokens[1]:.0f}",
        "precision": f"engines {cfg.rollout.dtype}, trainer {cfg.trainer.precision}, r1ray's packed attention",
        "processes": f"{cfg.rollout.num_workers} engines, {cfg.trainer.num_workers} trainer ranks, "
        f"{cfg.reference.num_workers} reference; ours also {cfg.reward.num_workers} reward workers and Ray",
        "threads": f"of each role together {len(cores)}",
        "cores": cores,
    }
    report(
        Comparison(
            name="a step of r1ray over bare generation and training",
            unit="seconds",
            ours=[row["wall"] for row in turns.ours],
            theirs=[sum(row[phase] for phase in BARE_PHASES) for row in turns.theirs],
            floor=1.3,
            goal=1.15,
            less_is_better=True,
            setting=setting,
        ),
        out=args.out,
    )


if __name__ == "__main__":
    main()

"""A training step of r1ray, sync included, over bare generation plus bare training of the same work: floor 1.3, goal 1.15.

    python -m tests.bench.step [--quick] [--out FILE]

Ours: the `rl` stage as `r1ray.main` runs it at tiny scale (a reference included, for its recipe has a KL term). The clock runs
from the end of one step's log to the end of the next one's, so collecting, scoring, annotating, packing, training, sync and
writing metrics all count. Evaluation, checkpoints and wandb are off.
Bare: as many plain processes, each with as many threads as ours. Engines generate the requests of that step with its seeds; then a
reference process makes its log-probs of the replies; then as many ranks train on them: plain PyTorch with r1ray's model code (the
same packed rows, attention, head and precision), one flat all-reduce, clipping, fused AdamW. Each phase's clock runs from its first
process's start to its last one's end; between phases nothing counts. No weights are sent.

The learning rate is 0: all of the work is done and the policy stays what it is, so both sides sample the same replies from it,
step after step, although the bare engines are never sent weights. Bare steps run inside our log's `step`, so the sides take turns.
"""

import socket
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from multiprocessing.connection import Connection
from typing import Any

from r1ray.config import Config
from r1ray.types import Batch, Group, Row
from tests.bench.rollout import (
    BareProcess,
    answer,
    bare_engines,
    dealt,
    medians,
    only_steps,
    requests_of,
    shown,
    started_bare,
    taking_turns,
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
        max_tokens = self.cfg.trainer.micro_batch_tokens
        return pack(samples, weights=self.algo.weights(samples, {}), num_ranks=num_ranks, max_tokens=max_tokens)


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
    engines = bare_engines(cfg, cores=cores)
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
        "work": f"{cfg.algo.problems_per_step} problems x {cfg.algo.group_size} replies, other problems in every step",
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

"""Trainer tokens/s of r1ray relative to a bare PyTorch loop: floor 0.9 and goal 0.95 at 25M parameters, floor 0.75 at 1M.

    python -m tests.bench.trainer [--size 25M] [--size 1M] [--precision fp32] [--layouts] [--quick] [--out FILE]

Ours: the trainer group as a run starts it (`r1ray.actors.start`) with ZeRO-1. The driver passes a packed batch to
`TrainerGroup.update` and gets its metrics back, so Ray's transfer, packed rows, log-probs, entropy, metrics, DeepSpeed, clipping
and the optimizer all count. Real actors are used instead of a TrainerWorker in plain processes, so that the cost of Ray is
included.
Bare: the same number of plain processes on the same cores with the same threads: transformers' forward, log-softmax over the full
logits gathered at the targets, the same clipped surrogate with the same weights, gradients in one flat buffer that is reduced over
ranks once per update, clipping, fused AdamW. Its micro-batches are the fastest of `BARE_LAYOUTS`, which are measured first; r1ray's
attention is one of them.

Both sides start with the same weights, and the norms of their first gradients must agree: otherwise they do not do the same work.

Also reported: r1ray in other layouts (`LAYOUTS`), to see which is fastest for a model of this size. At 1M always, at 25M with
--layouts.
"""

import os
import socket
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

import numpy as np

from r1ray.config import Config
from r1ray.data.pack import pack, segment_starts
from r1ray.run.directory import RunDir
from r1ray.types import Batch, Row, Sample
from tests.bench.models import SHAPES, make_model
from tests.bench.rollout import BareProcess, configuration, started_bare
from tests.bench.side_by_side import Comparison, alternate, arguments, pin, pin_process, quartiles, report, seconds

NUM_RANKS = 2
PROMPT_TOKENS = 45
MAX_COMPLETION_TOKENS = 384
SAME_NORM = {"fp32": 1e-3, "bf16_autocast": 5e-2}
"""Largest relative difference between the first gradient norms of the sides."""


class Size(NamedTuple):
    """A model, and the typical length of the completions that a model of this size trains on."""

    shape: dict[str, Any]
    response_tokens: int
    """Median; lengths are lognormal."""
    floor: float
    goal: float | None


SIZES = {
    "25M": Size(
        SHAPES["25M"],
        response_tokens=120,
        floor=0.9,
        goal=0.95,
    ),
    "1M": Size(
        SHAPES["1M"],
        response_tokens=50,
        floor=0.75,
        goal=None,
    ),
}


class Layout(NamedTuple):
    """How r1ray splits an update over ranks and micro-batches."""

    ranks: int
    zero_stage: int
    max_tokens_per_micro_batch: int

    def __str__(self) -> str:
        return f"{self.ranks} rank{'s' * (self.ranks > 1)}, ZeRO-{self.zero_stage}, rows of {self.max_tokens_per_micro_batch}"


OURS = Layout(NUM_RANKS, 1, 4096)
LAYOUTS = (
    *(Layout(2, 1, 2048), Layout(2, 1, 8192), Layout(2, 0, 2048), Layout(2, 0, 4096), Layout(2, 0, 8192)),
    *(Layout(2, 2, 4096), Layout(1, 0, 4096), Layout(1, 1, 4096)),
)
"""One rank has the threads of all cores."""


class BareLayout(NamedTuple):
    """How the bare loop splits a rank's samples into micro-batches, and its attention."""

    padded: bool
    attention: str
    max_tokens_per_micro_batch: int

    def __str__(self) -> str:
        form = "padded batches of similar lengths" if self.padded else "packed rows"
        return f"{form}, {self.attention} attention, {self.max_tokens_per_micro_batch} tokens"


BARE_LAYOUTS = (
    BareLayout(False, "r1ray", 4096),
    BareLayout(False, "sdpa", 1024),
    BareLayout(False, "eager", 1024),
    BareLayout(True, "sdpa", 4096),
    BareLayout(True, "eager", 4096),
    BareLayout(True, "eager", 2048),
)
"""Packed rows with transformers' own attention are short, because its mask grows with their square."""


# --- the work: a model folder, and the samples of one update


def make_samples(num_tokens: int, *, response_tokens: int, vocab_size: int) -> list[Sample]:
    """Prompts and completions of random tokens, about `num_tokens` in total, with advantages."""
    rng, samples = np.random.default_rng(0), []
    while num_tokens > 0:
        completion = int(np.clip(rng.lognormal(np.log(response_tokens), 0.6), 4, MAX_COMPLETION_TOKENS))
        mask_T = np.repeat(np.array([0, 1], np.float32), [PROMPT_TOKENS, completion])
        samples.append(
            Sample(
                token_ids_T=rng.integers(0, vocab_size, len(mask_T), dtype=np.int32),
                mask_T=mask_T,
                rollout_logprobs_T=np.zeros_like(mask_T),
                temperature=1.0,
                group_id="g",
                index=len(samples),
                advantages_T=np.float32(rng.normal()) * mask_T,
            )
        )
        num_tokens -= len(mask_T)
    return samples


@dataclass(frozen=True)
class Work:
    """The samples of an update and the algorithm that computes their weights."""

    samples: Sequence[Sample]
    algorithm: Any

    def batch(self, *, ranks: int, max_tokens_per_micro_batch: int) -> Batch:
        weights = self.algorithm.weights(self.samples, {})
        return pack(self.samples, weights=weights, num_ranks=ranks, max_tokens=max_tokens_per_micro_batch)

    def half(self) -> "Work":
        return Work(self.samples[::2], self.algorithm)


# --- ours


@contextmanager
def trainer_group(cfg: Config, *, work: Work, folder: Path, cores: Sequence[int]) -> Iterator[Any]:
    """The running trainer ranks of a run; each is pinned to its own core if it has one thread."""
    from r1ray.actors.start import actor_groups, wait_until_ready
    from r1ray.actors.trainer_group import TrainerGroup

    with actor_groups(
        cfg,
        roles=["policy"],
        model_path=str(folder),
        reference_path=str(folder),
        trainer_kwargs={"policy": {"objective": work.algorithm, "total_updates": 1000}},
        run=RunDir(folder),
    ) as groups:
        wait_until_ready(groups, cfg)
        group = groups["policy"]
        pids = group.gather([handle.ping.remote() for handle in group.handles], what="ping", timeout_s=60)
        for pid, own in zip(pids, np.array_split(cores, len(pids)), strict=True):
            pin_process(pid, own.tolist())
        yield TrainerGroup(group, cfg=cfg.trainer)


# --- bare


def serve_bare(pipe: Connection, rank: int, port: int, folder: str, cores: Sequence[int], cfg: Any) -> None:
    """One rank of the bare loop. Receives (layout, rows), returns the norm of the gradient."""
    os.sched_setaffinity(0, cores)
    import torch.distributed as dist

    dist.init_process_group("gloo", init_method=f"tcp://127.0.0.1:{port}", rank=rank, world_size=cfg.num_workers)
    loop = BareLoop(folder, cfg)
    pipe.send("ready")
    while True:
        layout, rows = pipe.recv()
        pipe.send(loop.update(rows, layout))


class BareLoop:
    """A plain training loop written for this model, these samples and these cores."""

    def __init__(self, folder: str, cfg: Any) -> None:
        import torch
        from transformers import AutoModelForCausalLM

        import r1ray.model.load  # noqa: F401  registers r1ray's attention, which is one of the layouts

        self.cfg = cfg
        self.lm: Any = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).train()
        self.weights = list(self.lm.parameters())
        self.gradient = torch.zeros(sum(p.numel() for p in self.weights))
        for p, part in zip(self.weights, self.gradient.split([p.numel() for p in self.weights]), strict=True):
            p.grad = part.view_as(p)
        settings = {"lr": cfg.lr, "betas": cfg.betas, "eps": cfg.adam_eps, "weight_decay": cfg.weight_decay}
        self.optimizer = torch.optim.AdamW(self.weights, fused=True, **settings)

    def update(self, rows: Sequence[Row], layout: BareLayout) -> float:
        import torch
        import torch.distributed as dist

        self.lm.set_attn_implementation(layout.attention)
        for micro_batch in padded(rows, layout.max_tokens_per_micro_batch) if layout.padded else map(packed, rows):
            self.loss(micro_batch).backward()
        dist.all_reduce(self.gradient)
        norm = torch.nn.utils.clip_grad_norm_(self.weights, self.cfg.grad_clip)
        self.optimizer.step()
        self.gradient.zero_()
        return float(norm)

    def loss(self, batch: dict[str, Any]) -> Any:
        """The clipped surrogate; old log-probs are the current ones, detached, as in a run with one update per step."""
        import torch

        keywords = {"segments": batch["segments"]} if self.lm.config._attn_implementation == "r1ray" else {}
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=self.cfg.precision == "bf16_autocast"):
            logits = self.lm(
                input_ids=batch["token_ids"], position_ids=batch["positions"], use_cache=False, **keywords
            ).logits
        logprobs_BTV = logits[:, :-1].float().log_softmax(-1)
        logprobs_BT = logprobs_BTV.gather(-1, batch["token_ids"][:, 1:].unsqueeze(-1)).squeeze(-1)
        advantages_BT, weights_BT = batch["advantages"][:, 1:], batch["weights"][:, 1:]
        ratio_BT = (logprobs_BT - logprobs_BT.detach()).exp()
        objective_BT = torch.minimum(ratio_BT * advantages_BT, ratio_BT.clamp(0.8, 1.2) * advantages_BT)
        return -(weights_BT * objective_BT).sum()


def packed(row: Row) -> dict[str, Any]:
    """A packed row as a batch of one. transformers finds the sequence boundaries in the positions."""
    import torch

    from r1ray.model.attention import segments_of

    batch: dict[str, Any] = {name: torch.from_numpy(values).unsqueeze(0) for name, values in columns(row).items()}
    batch["segments"] = segments_of(np.bincount(row.segment_L).tolist(), device=torch.device("cpu"))
    return batch


def padded(rows: Sequence[Row], max_tokens: int) -> Iterator[dict[str, Any]]:
    """The sequences of all rows, sorted by length, in batches of at most `max_tokens` including padding.

    Padding is on the right, has weight 0 and needs no mask, because attention is causal.
    """
    import torch

    sequences = [
        {name: torch.from_numpy(part) for name, part in zip(columns(row), parts, strict=True)}
        for row in rows
        for parts in zip(*(np.split(v, segment_starts(row.segment_L)[1:]) for v in columns(row).values()), strict=True)
    ]
    sequences.sort(key=lambda sequence: -len(sequence["token_ids"]))
    while sequences:
        num = max(1, max_tokens // len(sequences[0]["token_ids"]))
        chosen, sequences = sequences[:num], sequences[num:]
        batch: dict[str, Any] = {
            name: torch.nn.utils.rnn.pad_sequence([sequence[name] for sequence in chosen], batch_first=True)
            for name in chosen[0]
        }
        batch["positions"] = torch.arange(batch["token_ids"].shape[1]).expand_as(batch["token_ids"])
        yield batch


def columns(row: Row) -> dict[str, np.ndarray]:
    assert row.advantages_L is not None
    return {
        "token_ids": row.token_ids_L.astype(np.int64),
        "positions": row.positions_L.astype(np.int64),
        "advantages": row.advantages_L,
        "weights": row.weights_L["policy"],
    }


@dataclass(frozen=True)
class Bare:
    """The bare ranks as the driver calls them."""

    ranks: Sequence[BareProcess]

    def update(self, batch: Batch, layout: BareLayout) -> float:
        """Returns the norm of the gradient."""
        for process, rows in zip(self.ranks, batch.rows, strict=True):
            process.send((layout, rows))
        norms = [process.receive() for process in self.ranks]  # one and the same
        return norms[0]

    def batch(self, work: Work, layout: BareLayout) -> Batch:
        return work.batch(ranks=len(self.ranks), max_tokens_per_micro_batch=layout.max_tokens_per_micro_batch)

    def fastest(self, work: Work) -> dict[BareLayout, float]:
        """Tokens/s of every layout on half of the work, the fastest first; the better of two measurements counts."""
        seen = {}
        for layout in BARE_LAYOUTS:
            batch = self.batch(work.half(), layout)
            times = [seconds(lambda batch=batch, layout=layout: self.update(batch, layout)) for _ in range(2)]
            seen[layout] = batch.num_tokens / min(times)
        return dict(sorted(seen.items(), key=lambda item: -item[1]))


@contextmanager
def bare_loop(cfg: Config, *, folder: Path, cores: Sequence[int]) -> Iterator[Bare]:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port = listener.getsockname()[1]
    own = [part.tolist() for part in np.array_split(cores, NUM_RANKS)]
    args_of = [(rank, port, str(folder), own[rank], cfg.trainer) for rank in range(NUM_RANKS)]
    processes = started_bare(serve_bare, args_of, threads=len(own[0]))
    try:
        yield Bare(processes)
    finally:
        for process in processes:
            process.end()


# --- side by side


def compare(name: str, *, args: Any, cores: Sequence[int], folder: Path) -> None:
    """One size: the ratio, and r1ray in other layouts."""
    from r1ray.algo import make

    size = SIZES[name]
    parameters = make_model(folder, size.shape)
    cfgs = {layout: config_of(layout, args.precision) for layout in layouts_of(name, args)}
    algorithm = make(cfgs[OURS].algo, max_response_length=MAX_COMPLETION_TOKENS)
    num_tokens = 2048 if args.quick else args.tokens
    samples = make_samples(num_tokens, response_tokens=size.response_tokens, vocab_size=size.shape["vocab_size"])
    work = Work(samples, algorithm)
    with ExitStack() as stack:
        bare = stack.enter_context(bare_loop(cfgs[OURS], folder=folder, cores=cores))
        groups: dict[tuple[int, int], Any] = {}
        for layout, cfg in cfgs.items():
            if layout[:2] not in groups:
                made = trainer_group(cfg, work=work, folder=folder, cores=cores)
                groups[layout[:2]] = stack.enter_context(made)
        batches = {c: work.batch(ranks=c.ranks, max_tokens_per_micro_batch=c.max_tokens_per_micro_batch) for c in cfgs}
        norms = first_norms(groups[OURS[:2]], batches[OURS], bare, work, precision=args.precision)
        tried = bare.fastest(work)
        best = next(iter(tried))
        bare_batch = bare.batch(work, best)

        def rate_of(layout: Layout) -> float:
            batch, group = batches[layout], groups[layout[:2]]
            return batch.num_tokens / seconds(lambda: group.update(batch))

        def bare_rate() -> float:
            return bare_batch.num_tokens / seconds(lambda: bare.update(bare_batch, best))

        sides = {"bare": bare_rate} | {str(c): lambda c=c: rate_of(c) for c in cfgs}
        seen = alternate(sides, repetitions=2 if args.quick else args.repetitions)
    setting = {
        "model": f"Qwen2, {parameters / 1e6:.1f}M parameters, vocabulary {size.shape['vocab_size']}, tied",
        "update": f"{batches[OURS].num_tokens} tokens, {len(samples)} samples",
        "ours": f"{OURS}, actors of a run behind TrainerGroup",
        "bare": f"{NUM_RANKS} processes, {best} (fastest of: {rates(tried)})",
        "gradient norm of the first update": norms,
        "precision": args.precision,
        "cores and threads": f"{list(cores)}, OMP {len(cores) // NUM_RANKS} per rank, each rank on its own cores",
        "seed": 0,
    }
    size_name = f"trainer, {name} parameters, {args.precision}"
    ours, theirs = seen[str(OURS)], seen["bare"]
    report(
        Comparison(
            name=f"{size_name}: ZeRO-1 relative to the bare loop",
            unit="tokens/s",
            ours=ours,
            theirs=theirs,
            floor=size.floor,
            goal=size.goal,
            setting=setting,
        ),
        out=args.out,
    )
    report_layouts(size_name, {layout: seen[str(layout)] for layout in cfgs}, bare=theirs, out=args.out)


def report_layouts(name: str, seen: dict[Layout, list[float]], *, bare: Sequence[float], out: Path | None) -> None:
    """Layouts that a user could choose instead, each with its ratio to the bare loop."""
    others = {layout: values for layout, values in seen.items() if layout != OURS}
    if not others:
        return
    print(f"\n{name}: layouts, tokens/s and ratio to the bare loop")
    for layout, values in sorted(seen.items(), key=lambda item: -median(item[1])):
        ratio = quartiles([ours / theirs for ours, theirs in zip(values, bare, strict=True)])
        print(f"  {layout!s:36}{median(values):10.0f}  {ratio[1]:.3f} ({ratio[0]:.3f} .. {ratio[2]:.3f})")
    best = max(others, key=lambda layout: median(others[layout]))
    report(
        Comparison(
            name=f"{name}: ZeRO-1 relative to the best other layout ({best})",
            unit="tokens/s",
            ours=seen[OURS],
            theirs=others[best],
            setting={"all": {str(layout): round(median(values)) for layout, values in seen.items()}},
        ),
        out=out,
    )


def first_norms(group: Any, batch: Batch, bare: Bare, work: Work, *, precision: str) -> str:
    """The first update of both sides. Raises RuntimeError when they compute different gradients."""
    layout = BARE_LAYOUTS[0]
    theirs = bare.update(bare.batch(work, layout), layout)
    ours = group.update(batch)["grad_norm"]
    if abs(ours - theirs) > SAME_NORM[precision] * theirs:
        raise RuntimeError(f"the sides compute different gradients: norms {ours:g} and {theirs:g}")
    return f"ours {ours:.6g}, bare {theirs:.6g}"


def layouts_of(name: str, args: Any) -> tuple[Layout, ...]:
    if args.quick:
        return (OURS, Layout(2, 0, 4096))
    return (OURS, *LAYOUTS) if args.layouts or name == "1M" else (OURS,)


def config_of(layout: Layout, precision: str) -> Config:
    return configuration(
        "scale=tiny",
        f"trainer.num_workers={layout.ranks}",
        f"trainer.zero_stage={layout.zero_stage}",
        f"trainer.precision={precision}",
        # The completions are invented, so there are no log-probs of an engine to compare with.
        "trainer.logprob_gap_limit=inf",
        "algo.kl_coef=0",
    )


def rates(tried: dict[BareLayout, float]) -> str:
    return "; ".join(f"{layout} {rate:.0f}/s" for layout, rate in tried.items())


def main() -> None:
    parser = arguments(__doc__)
    parser.add_argument("--size", action="append", choices=list(SIZES), help="default: all")
    parser.add_argument("--tokens", type=int, default=16384, help="tokens of an update (default 16384)")
    parser.add_argument("--precision", default="fp32", choices=list(SAME_NORM))
    parser.add_argument("--layouts", action="store_true", help="also measure other layouts at 25M (minutes)")
    args = parser.parse_args()
    cores = pin(args.cores)
    from r1ray.actors.cluster import connected

    for name in args.size or (["1M"] if args.quick else SIZES):
        with tempfile.TemporaryDirectory() as folder, connected(config_of(OURS, args.precision).cluster):
            compare(name, args=args, cores=cores, folder=Path(folder))


if __name__ == "__main__":
    main()

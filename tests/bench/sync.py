"""Weight sync in bf16 of a 500M-parameter model, relative to a bare gloo broadcast plus a bare load of the same bytes: floor 0.8.

    python -m tests.bench.sync [--quick] [--out FILE] [--receivers 1 4]

The model has the shape of Qwen2.5-0.5B (494M parameters, tied) and random weights. The receivers are real vLLM engines in rollout
workers; the sender is r1ray's `WeightSender` over a bf16 model in an actor (without DeepSpeed: its optimizer state would not fit
next to four engines, and a weight sync does not use it).

Ours: `WeightSync.push`, which includes everything until the engines can generate: metadata, buckets, checksums, the vote, the load
and the canaries. Printed as a whole (the ratio with the floor) and without the canaries.
Bare: in the same processes and the same memory, a `ProcessGroupGloo` broadcast of the flat weights in pieces of one bucket,
directly from the sender's memory into the receivers', then vLLM's own reload. No copies, checksums or vote, and no calls on the
engines afterwards. The clock runs from the start of the first process to the end of the last.

The ratio is of speeds, bare seconds over ours: 1 is as fast as bare.
"""

import argparse
import math
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from itertools import count
from pathlib import Path
from statistics import median
from typing import Any

import ray
import torch
from torch._C._distributed_c10d import BroadcastOptions, PrefixStore, ProcessGroupGloo, TCPStore

from r1ray.actors.cluster import connected
from r1ray.actors.group import ActorGroup, gather
from r1ray.actors.rollout import RolloutWorker
from r1ray.actors.weight_sync import WeightSync
from r1ray.config import Config
from r1ray.sync.buckets import Plan, plan
from r1ray.sync.canary import canary_gap, canary_sequences, gap_limit
from r1ray.sync.layout import Rendezvous
from r1ray.sync.sender import Sent, WeightSender
from r1ray.types import Floats, Ints
from tests.bench.side_by_side import Comparison, alternate, arguments, pin, report

DTYPE = torch.bfloat16
SIZES: dict[str, dict[str, Any]] = {
    "500M": {
        "hidden_size": 896,
        "intermediate_size": 4864,
        "num_hidden_layers": 24,
        "num_attention_heads": 14,
        "num_key_value_heads": 2,
        "vocab_size": 151936,
    },
    "quick": {
        "hidden_size": 256,
        "intermediate_size": 1024,
        "num_hidden_layers": 4,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "vocab_size": 16384,
    },
}
PATIENCE_S = 600.0
TIMEOUT_S = 300.0


class BareGroup:
    """One gloo group, connected through a store that rank 0 has opened."""

    def __init__(self, *, rank: int, world_size: int, port: int, tag: str, store: TCPStore | None = None) -> None:
        timeout = timedelta(seconds=TIMEOUT_S)
        store = store or TCPStore("127.0.0.1", port, None, False, timeout, wait_for_workers=False)
        self._group: Any = ProcessGroupGloo(PrefixStore(tag, store), rank, world_size, timeout)
        self._options = BroadcastOptions()
        self._options.rootRank, self._options.rootTensor = 0, 0

    def broadcast(self, flat: torch.Tensor, *, piece_bytes: int) -> None:
        """In pieces that fit the cache: one broadcast of a gigabyte is slower."""
        for start in range(0, len(flat), piece_bytes):
            self._group.broadcast([flat[start : start + piece_bytes]], self._options).wait()


class Sender:
    """The methods of a trainer rank that `WeightSync` calls. The weights are in one flat buffer, which is what the bare side
    sends."""

    def __init__(self, folder: str, bucket_bytes: int) -> None:
        from r1ray.model.forward import Policy
        from r1ray.model.load import load_lm

        lm: Any = load_lm(folder, dtype=DTYPE, init="random")
        self._lm, self._policy = lm, Policy(lm).eval().requires_grad_(False)
        self._sender = WeightSender(rank=0)
        layout = plan_of(self.weight_metadata(), bucket_bytes=bucket_bytes)
        self._flat, self._bucket_bytes = torch.zeros(layout.num_bytes, dtype=torch.uint8), bucket_bytes
        for (_, view), (_, p) in zip(layout.views(self._flat), lm.named_parameters(), strict=True):
            view.copy_(p)
            p.data = view
        self._spans: dict[str, tuple[float, float]] = {}

    def weight_metadata(self) -> list[tuple[str, str, tuple[int, ...]]]:
        return [(name, "bfloat16", tuple(p.shape)) for name, p in self._lm.named_parameters()]

    def open_transfer(self, *, timeout_s: float) -> tuple[str, int]:
        return "127.0.0.1", self._sender.listen("127.0.0.1", timeout_s=timeout_s)

    def connect_transfer(self, rendezvous: Rendezvous) -> None:
        self._sender.connect(rendezvous)

    def send_weights(self, *, version: int, dtype_name: str, bucket_bytes: int) -> Sent | None:
        start = time.monotonic()
        weights = ((name, p.detach()) for name, p in self._lm.named_parameters())
        metadata = self.weight_metadata()
        sent = self._sender.send(metadata, weights, version=version, dtype_name=dtype_name, bucket_bytes=bucket_bytes)
        self._spans["transfer"] = (start, time.monotonic())
        return sent

    def logprobs_of(self, sequences: Sequence[Ints]) -> list[Floats]:
        from r1ray.actors.trainer import scoring_batch
        from r1ray.data.pack import unpack
        from r1ray.model.forward import row_tensors

        batch = scoring_batch(sequences)
        with torch.no_grad():
            logprobs_L = self._policy(row_tensors(batch.rows[0][0], device=torch.device("cpu")))[0]
        return unpack([[logprobs_L.numpy()]], batch)

    def move(self, seed: int) -> None:
        """Change the weights, so that a load that does nothing would be noticed."""
        generator = torch.Generator().manual_seed(seed)
        norm = self._lm.model.norm.weight
        norm.copy_(1 + torch.rand(norm.shape, generator=generator))

    def spans(self) -> dict[str, tuple[float, float]]:
        return self._spans

    def memory_gib(self) -> float:
        return memory_gib()

    def bare_listen(self) -> int:
        self._store = TCPStore("0.0.0.0", 0, None, True, timedelta(seconds=TIMEOUT_S), wait_for_workers=False)
        return self._store.port

    def bare_connect(self, *, world_size: int, port: int, tag: str) -> None:
        self._bare = BareGroup(rank=0, world_size=world_size, port=port, tag=tag, store=self._store)

    def bare_send(self) -> tuple[float, float]:
        start = time.monotonic()
        self._bare.broadcast(self._flat, piece_bytes=self._bucket_bytes)
        return start, time.monotonic()


class Receiver(RolloutWorker):
    """A rollout worker whose engine can also be updated without r1ray."""

    def __init__(self, *, index: int, cfg: Config, model_path: str) -> None:
        super().__init__(index=index, cfg=cfg, model_path=model_path)
        self._spans: dict[str, tuple[float, float]] = {}
        self._bucket_bytes = bucket_bytes_of(cfg)

    async def update_weights(self, update_info: dict[str, object], *, version: int) -> None:
        start = time.monotonic()
        await super().update_weights(update_info, version=version)
        self._spans["transfer"] = (start, time.monotonic())

    async def spans(self) -> dict[str, tuple[float, float]]:
        return self._spans

    async def memory_gib(self) -> float:
        return memory_gib()

    async def bare_connect(self, *, world_size: int, port: int, tag: str) -> None:
        rank = 1 + self.index
        self._bare = await self._call(lambda engine: BareGroup(rank=rank, world_size=world_size, port=port, tag=tag))

    async def bare_update(self, metadata: Sequence[tuple[str, str, Sequence[int]]]) -> tuple[float, float]:
        """Receive into the memory in which r1ray stages weights (a second gigabyte would not fit four times), then load."""
        layout = plan_of(metadata, bucket_bytes=self._bucket_bytes)
        start = time.monotonic()
        await self._call(
            lambda engine: engine._engine.collective_rpc(bare_update, args=(self._bare, layout))  # type: ignore[attr-defined]
        )
        return start, time.monotonic()


def bare_update(worker: Any, group: BareGroup, layout: Plan) -> None:
    """Runs in the vLLM worker, which is this process."""
    from vllm.model_executor.layers.utils import dispatch_cpu_unquantized_gemm
    from vllm.model_executor.model_loader.reload import finalize_layerwise_reload, initialize_layerwise_reload

    transfer = worker.weight_transfer_engine
    if len(transfer._staging) != layout.num_bytes:
        transfer._staging = torch.empty(layout.num_bytes, dtype=torch.uint8)
    flat, model = transfer._staging, worker.model_runner.model
    group.broadcast(flat, piece_bytes=layout.bucket_bytes)
    initialize_layerwise_reload(model)
    model.load_weights(layout.views(flat))
    finalize_layerwise_reload(model, worker.model_config)
    dispatch_cpu_unquantized_gemm(model.lm_head, remove_weight=False)


def plan_of(metadata: Sequence[tuple[str, str, Sequence[int]]], *, bucket_bytes: int) -> Plan:
    return plan([(name, shape) for name, _, shape in metadata], dtype=DTYPE, bucket_bytes=bucket_bytes)


def bucket_bytes_of(cfg: Config) -> int:
    return int(cfg.sync.bucket_mb * 2**20)


def write_model(folder: Path, size: str) -> None:
    """A folder without weights: engines start with random ones (load_format=dummy) and receive others before anything is
    measured."""
    from transformers import AutoTokenizer, Qwen2Config

    from r1ray import builtin

    config = Qwen2Config(**SIZES[size], tie_word_embeddings=True, max_position_embeddings=1024, eos_token_id=1)
    config.architectures = ["Qwen2ForCausalLM"]
    config.dtype = DTYPE
    config.save_pretrained(folder)
    AutoTokenizer.from_pretrained(builtin.path()).save_pretrained(folder)


def configuration() -> Config:
    """bf16 on both sides, with engines no larger than the canaries need."""
    from omegaconf import OmegaConf

    from r1ray.cli import compose

    overrides = [
        "rollout.dtype=bfloat16",
        "trainer.precision=bf16",
        "trainer.zero_stage=1",
        "data.max_prompt_length=64",
        "rollout.max_response_length=64",
        f"sync.timeout_s={TIMEOUT_S}",
        "rollout.engine_args.load_format=dummy",
        "rollout.engine_args.max_num_seqs=8",
        "rollout.engine_args.kv_cache_memory_bytes=67108864",
        "rollout.engine_args.enforce_eager=true",
    ]
    return Config.model_validate(OmegaConf.to_container(compose(overrides), resolve=True))


class Pair:
    """One sender and its receivers, running and connected both through r1ray and bare."""

    def __init__(self, cfg: Config, folder: str, *, num_receivers: int, cores: int) -> None:
        # As in placement: engines share the cores among themselves, so do trainer ranks, of which a run has two.
        sender = actor(Sender, threads=max(1, cores // 2)).remote(folder, bucket_bytes_of(cfg))
        receiver = actor(Receiver, threads=max(1, cores // num_receivers))
        receivers = [receiver.remote(index=i, cfg=cfg, model_path=folder) for i in range(num_receivers)]
        self.trainers, self.rollouts = ActorGroup("policy", [sender]), ActorGroup("rollout", receivers)
        metadata = called([sender.weight_metadata.remote(), *(r.ping.remote() for r in receivers)])[0]
        self.metadata: list[tuple[str, str, tuple[int, ...]]] = metadata
        self.versions, vocab_size = count(1), metadata[0][2][0]
        self.sync = WeightSync(self.trainers, self.rollouts, cfg=cfg, vocab_size=vocab_size)
        self.canaries = canary_sequences(vocab_size=vocab_size, seed=1, max_length=64)
        self.limit = gap_limit(cfg)
        self.transfers: list[float] = []
        self.gaps: list[float] = []
        self._connect_bare(tag=f"bare-{num_receivers}")

    def ours(self) -> float:
        """Speed of a push: weight syncs per second."""
        start = time.perf_counter()
        metrics = self.sync.push(next(self.versions))
        taken = time.perf_counter() - start
        spans = called([handle.spans.remote() for handle in self.actors])
        self.transfers.append(length([span["transfer"] for span in spans]))
        self.gaps.append(metrics["sync/canary_gap"])
        return 1 / taken

    def bare(self) -> float:
        calls = [self.trainers.handles[0].bare_send.remote()]
        calls += [handle.bare_update.remote(self.metadata) for handle in self.rollouts.handles]
        return 1 / length(called(calls))

    def check_bare(self) -> None:
        """Checks that the bare load changes what the engines compute; otherwise the comparison would be meaningless."""
        called([self.trainers.handles[0].move.remote(1)])
        before = self._gap()
        self.bare()
        after = self._gap()
        assert after <= self.limit.limit < before, f"canary gap {before:.3g} before, {after:.3g} after the bare load"

    @property
    def actors(self) -> list[Any]:
        return [*self.trainers.handles, *self.rollouts.handles]

    def _gap(self) -> float:
        ours, *theirs = called([handle.logprobs_of.remote(self.canaries) for handle in self.actors])
        return max(canary_gap(ours, scores, statistic=self.limit.statistic) for scores in theirs)

    def end(self) -> None:
        self.trainers.shutdown()
        self.rollouts.shutdown()

    def _connect_bare(self, *, tag: str) -> None:
        (port,) = called([self.trainers.handles[0].bare_listen.remote()])
        where = {"world_size": 1 + len(self.rollouts), "port": port, "tag": tag}
        called([handle.bare_connect.remote(**where) for handle in self.actors])


def actor(worker: type, *, threads: int) -> Any:
    env = {"OMP_NUM_THREADS": str(threads), "TOKENIZERS_PARALLELISM": "false", "CUDA_VISIBLE_DEVICES": ""}
    return ray.remote(worker).options(num_cpus=0, runtime_env={"env_vars": env})


def called(refs: Sequence[Any]) -> list[Any]:
    return gather(refs, [f"call {i}" for i in range(len(refs))], what="the benchmark", timeout_s=PATIENCE_S)


def length(spans: Sequence[tuple[float, float]]) -> float:
    return max(end for _, end in spans) - min(start for start, _ in spans)


def memory_gib() -> float:
    """Memory of this process, with its share of shared pages (proportional set size)."""
    lines = Path("/proc/self/smaps_rollup").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("Pss:")) / 2**20


@contextmanager
def model_folder(size: str) -> Iterator[Path]:
    with tempfile.TemporaryDirectory() as folder:
        write_model(Path(folder), size)
        yield Path(folder)


def compare(cfg: Config, folder: Path, args: argparse.Namespace, *, num_receivers: int, cores: Sequence[int]) -> None:
    pair = Pair(cfg, str(folder), num_receivers=num_receivers, cores=len(cores))
    try:
        pair.ours()
        pair.check_bare()
        repetitions = 2 if args.quick else args.repetitions
        seen = alternate({"ours": pair.ours, "bare": pair.bare}, repetitions=repetitions)
        memory = sum(called([handle.memory_gib.remote() for handle in pair.actors]))
    finally:
        pair.end()
    num_bytes = sum(math.prod(shape) for _, _, shape in pair.metadata) * DTYPE.itemsize
    transfers = pair.transfers[-repetitions:]
    setting = {
        "weights": f"{num_bytes / 2:.4g} parameters, {num_bytes / 2**20:.0f} MiB in buckets of {cfg.sync.bucket_mb:g} MiB",
        "seconds": f"bare {1 / median(seen['bare']):.3f}; ours {1 / median(seen['ours']):.3f}, "
        f"without the canaries {median(transfers):.3f}",
        "threads": f"sender {max(1, len(cores) // 2)}, each of {num_receivers} engines {max(1, len(cores) // num_receivers)}",
        "canary gap": f"{max(pair.gaps):.3g}",
        "memory of sender and engines": f"{memory:.1f} GiB",
        "cores": list(cores),
    }
    plural = "s" if num_receivers > 1 else ""
    common: dict[str, Any] = {"unit": "syncs/s", "theirs": seen["bare"], "setting": setting}
    name = f"weight sync to {num_receivers} receiver{plural}"
    report(Comparison(name=name, ours=seen["ours"], floor=0.8, **common), out=args.out)
    without = [1 / transfer for transfer in transfers]
    report(Comparison(name=f"{name}, without the canaries", ours=without, **common), out=args.out)


def main() -> None:
    parser = arguments(__doc__)
    parser.add_argument("--receivers", type=int, nargs="+", default=[1, 4])
    args = parser.parse_args()
    cores = pin(args.cores)
    cfg = configuration()
    with model_folder("quick" if args.quick else "500M") as folder, connected(cfg.cluster):
        for num_receivers in args.receivers:
            compare(cfg, folder, args, num_receivers=num_receivers, cores=cores)


if __name__ == "__main__":
    main()

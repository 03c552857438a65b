"""One rank of a trainer; `r1ray.actors.trainer_group` is all of its ranks as the loop sees them.

The trainer does not know the algorithm: it sums weight * loss over tokens, rows and ranks, for any objective. Supervised
fine-tuning is the same worker with another objective; a critic and a process reward model also have another model.
"""

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import fields
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor

from r1ray.actors.trainer_group import skip_reason
from r1ray.algo.base import LossInput, Objective
from r1ray.config import Config
from r1ray.data.pack import pack, unpack
from r1ray.model.accumulator import MetricAccumulator
from r1ray.model.distributed import join_ranks
from r1ray.model.forward import RowTensors, row_tensors
from r1ray.model.lr_schedule import lr_at
from r1ray.model.memory import frees_memory
from r1ray.model.sequence_parallel import check_sequence_parallel, sequence_shard
from r1ray.roles import TrainerRole, trainer_config
from r1ray.sync.layout import Rendezvous
from r1ray.sync.sender import Sent, WeightSender
from r1ray.types import Batch, Floats, Ints, Row, Sample

if TYPE_CHECKING:
    from r1ray.model.load import Init


class TrainerWorker:
    """One rank. All methods but `ping` and `weight_metadata` are collectives: call them on all ranks, with equally many rows.

    Ranks that share rows (`r1ray.model.sequence_parallel`) get the same rows, and each returns the whole result.
    """

    def __init__(
        self,
        *,
        rank: int,
        world_size: int,
        master_addr: str,
        master_port: int,
        cfg: Config,
        model_path: str,
        objective: Objective,
        total_updates: int,
        role: TrainerRole = "policy",
        init: "Init" = "pretrained",
        log_dir: str = ".",
    ) -> None:
        self._cfg = trainer_config(cfg, role)
        join_ranks(
            rank=rank,
            world_size=world_size,
            master_addr=master_addr,
            master_port=master_port,
            device=cfg.device,
            timeout_s=self._cfg.timeout_s,
        )
        # Not at the top: the driver imports this module before it starts the actors, and these imports take seconds.
        from r1ray.model.deepspeed import TrainEngine
        from r1ray.model.load import load_critic, load_policy

        self.rank, self._role, self._log_dir = rank, role, log_dir
        self.shares_memory = cfg.rollout.sleep
        self._host, self._sender = master_addr, WeightSender(rank=rank)
        self._template = cfg.model.template
        self._model_path, self._objective, self._total_updates = model_path, objective, total_updates
        self._head: Any = None
        lora = cfg.model.lora if role == "policy" else None
        if role == "critic":
            model: Any = load_critic(model_path, cfg=cfg, precision=self._cfg.precision)
            self._head = model.head
        else:
            key = "prm.path" if role == "prm" and cfg.prm.path is not None else "model.path"
            model = load_policy(model_path, cfg=cfg, init=init, precision=self._cfg.precision, key=key, lora=lora)
        self._lm = model.lm
        check_sequence_parallel(self._lm.config, self._cfg.sequence_parallel)
        self._shard = sequence_shard(self._cfg.sequence_parallel, timeout_s=self._cfg.timeout_s)
        self._engine = TrainEngine(model, cfg=self._cfg, device=cfg.device, lora=lora)
        self._updates, self._stepping = 0, False

    def ping(self) -> int:
        """The process id, once the constructor has finished."""
        return os.getpid()

    @frees_memory
    def update(self, rows: Sequence[Row]) -> dict[str, float]:
        """One optimizer update. Metrics are over all ranks: sums for `loss/<term>`, maxima for `*/max`, means over the
        trained tokens (mask 1) for all others.

        `updates_skipped` is 1 when all ranks kept their weights, because a loss or the gradient was not finite, or because the
        log-prob gap between engine and trainer was above trainer.logprob_gap_limit.
        """
        accumulator = MetricAccumulator(ranks_per_row=self._shard.size)
        with self._profiled():
            for k, row in enumerate(rows):
                self._engine.backward(self._loss(row, accumulator), last=k == len(rows) - 1)
            metrics = accumulator.over_ranks()
            lr = self._lr()
            self._stepping = True
            step = self._engine.step(lr=lr, skip=bool(skip_reason(metrics, cfg=self._cfg)))
        self._updates, self._stepping = self._updates + 1, False
        return metrics | {"grad_norm": step.grad_norm, "lr": lr, "updates_skipped": float(step.skipped)}

    def num_updates(self) -> int | None:
        """How many updates these weights have had; None after an error while the weights changed."""
        return None if self._stepping else self._updates

    @contextmanager
    def _profiled(self) -> Iterator[None]:
        """Write a trace for chrome://tracing or Perfetto of the updates in trainer.profile_updates (the first is 1)."""
        update = self._updates + 1
        if update not in self._cfg.profile_updates:
            yield
            return
        with torch.profiler.profile() as profiler:
            yield
        profiler.export_chrome_trace(f"{self._log_dir}/{self._role}-{self.rank}-update_{update:06d}.json.gz")

    def _loss(self, row: Row, accumulator: MetricAccumulator) -> Tensor:
        """The row's share of the loss of this update."""
        device = self._engine.device
        output_L, entropy_L = self._engine.forward(self._tensors(row), entropy_grad=self._objective.needs_entropy_grad)
        values_L = output_L if self._role == "critic" else None
        logprobs_L = output_L if values_L is None else torch.zeros_like(output_L)
        arrays = {name: torch.tensor(value, device=device) for name, value in _loss_arrays(row).items()}
        out = self._objective.loss(
            LossInput(
                logprobs_L=logprobs_L,
                entropy_L=entropy_L,
                values_L=values_L,
                old_logprobs_L=arrays.pop("old_logprobs_L", logprobs_L.detach()),
                ref_logprobs_L=arrays.pop("ref_logprobs_L", None),
                **arrays,
            )
        )
        assert out.terms.keys() == row.weights_L.keys(), f"loss terms {set(out.terms)}, weights {set(row.weights_L)}"
        losses = {
            term: (torch.tensor(row.weights_L[term], device=device) * loss_L).sum()
            for term, loss_L in out.terms.items()
        }
        accumulator.add(losses, out.metrics, mask_L=arrays["mask_L"])
        return torch.stack(list(losses.values())).sum()

    def _tensors(self, row: Row) -> RowTensors:
        return row_tensors(row, device=self._engine.device, shard=self._shard)

    def _lr(self) -> float:
        cfg = self._cfg
        return lr_at(
            self._updates,
            lr=cfg.lr,
            schedule=cfg.lr_schedule,
            warmup_updates=cfg.warmup_updates,
            total_updates=self._total_updates,
            min_ratio=cfg.lr_min_ratio,
        )

    @frees_memory
    def compute_logprobs_or_values(self, rows: Sequence[Row]) -> list[Floats]:
        """Log-probs at their temperature (a critic: values) of the tokens with mask 1, those of completions; 0 elsewhere."""
        return [self._engine.outputs(self._tensors(row)).cpu().numpy() for row in rows]

    @frees_memory
    def logprobs_of(self, sequences: Sequence[Ints]) -> list[Floats]:
        """Log-probs at temperature 1 of given sequences; entry 0 of each is 0.0. Without autocast, whatever the precision."""
        batch = scoring_batch(sequences)
        output_L = self._engine.outputs(self._tensors(batch.rows[0][0]), autocast=False)
        return unpack([[output_L.cpu().numpy()]], batch)

    def weight_metadata(self) -> list[tuple[str, str, tuple[int, ...]]]:
        """(name, dtype, unsharded shape) of every weight, in the order in which `TrainEngine.weights` yields them."""
        return self._engine.weight_metadata()

    def open_transfer(self, *, timeout_s: float) -> tuple[str, int]:
        """Open the store at which the engines meet this rank; returns (host, port)."""
        return self._host, self._sender.listen(self._host, timeout_s=timeout_s)

    def connect_transfer(self, rendezvous: Rendezvous) -> None:
        """Wait for all engines; raises when they have not joined within the timeout."""
        self._sender.connect(rendezvous)

    @frees_memory
    def send_weights(self, *, version: int, dtype_name: str, bucket_bytes: int) -> Sent | None:
        """Broadcast all weights to the engines. A collective, because ZeRO-3 gathers each weight on all ranks."""
        return self._sender.send(
            self._engine.weight_metadata(),
            self._engine.weights(),
            version=version,
            dtype_name=dtype_name,
            bucket_bytes=bucket_bytes,
        )

    @frees_memory
    def save(self, path: str) -> None:
        """Save the sharded state, from which `load` continues exactly."""
        self._engine.save(path, state={"updates": self._updates})

    @frees_memory
    def load(self, path: str) -> None:
        self._updates = self._engine.load(path)["updates"]

    @frees_memory
    def export_hf(self, path: str) -> None:
        """Write a folder that transformers loads, with the weights in the dtype in which they are trained.

        A policy's folder also has a tokenizer and generation settings, and vLLM loads it; a critic is exported as a reward model.
        """
        # All ranks iterate; only rank 0 keeps the weights. It copies them: safetensors refuses ZeRO's views of one buffer.
        weights = {name: weight.to("cpu", copy=True) for name, weight in self._engine.weights() if self.rank == 0}
        head_1E = None if self._head is None else self._engine.gathered(self._head.weight).to("cpu", copy=True)
        if self.rank == 0:
            from r1ray.model.load import save_critic, save_lm, save_weights

            if head_1E is not None:
                save_critic(weights, head_1E, path, body=self._lm)
            elif self._role == "policy":
                save_lm(weights, path, lm=self._lm, source=self._model_path, template=self._template)
            else:
                save_weights(weights, path, config=self._lm.config)
        dist.barrier()


def scoring_batch(sequences: Sequence[Ints]) -> Batch:
    """One row of one rank with these sequences at temperature 1; all tokens but the first of each are wanted."""
    samples = []
    for index, token_ids_T in enumerate(sequences):
        mask_T = np.ones(len(token_ids_T), np.float32)
        mask_T[0] = 0
        samples.append(
            Sample(
                token_ids_T=token_ids_T,
                mask_T=mask_T,
                rollout_logprobs_T=np.zeros_like(mask_T),
                temperature=1.0,
                group_id="logprobs_of",
                index=index,
            )
        )
    num_tokens = sum(len(token_ids_T) for token_ids_T in sequences)
    return pack(samples, weights=[{}] * len(samples), num_ranks=1, max_tokens=num_tokens)


def _loss_arrays(row: Row) -> dict[str, np.ndarray]:
    """The arrays of the row that `LossInput` has under the same names."""
    names = [field.name for field in fields(LossInput) if field.name in Row.__dataclass_fields__]
    arrays = {name: array for name in names if (array := getattr(row, name)) is not None}
    return {"advantages_L": np.zeros_like(row.mask_L), **arrays}

"""The receiving side: a weight transfer engine inside every vLLM worker, registered with vLLM's own factory.

Why not vLLM's `nccl` engine on CUDA: it loads every chunk as it arrives, so a transfer that fails halfway leaves parameters without
storage and the engine unusable; it carries no checksum; and it exists on CUDA only. This engine keeps its interface (vLLM calls the
same four phases), its rank layout and PyNcclCommunicator. What differs:

    start_weight_update     nothing: the model is not touched
    receive_weights         all buckets into host memory; the sender's (version, checksum) is compared with what arrived; then all
                            workers of all engines agree that they have received it
    finish_weight_update    only now the reload: vLLM's layerwise lifecycle, and lm_head is packed again

So after a transfer that fails anywhere, every engine serves its old weights, and the transfer can be retried on a new communicator.
The price is one copy of the model in host memory per worker.

Importing this module in a worker registers the engine; `EXTENSION` as vLLM's `worker_extension_cls` makes every worker import it.
"""

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from vllm.distributed.weight_transfer.base import (
    WeightTransferEngine,
    WeightTransferInitInfo,
    WeightTransferUpdateInfo,
)
from vllm.distributed.weight_transfer.factory import WeightTransferEngineFactory
from vllm.model_executor.layers.utils import dispatch_cpu_unquantized_gemm
from vllm.model_executor.model_loader.reload import finalize_layerwise_reload, initialize_layerwise_reload

from r1ray.sync.buckets import Checksum, Plan, plan
from r1ray.sync.communicator import Communicator, TransferError, connect
from r1ray.sync.layout import Backend, Rendezvous

BACKEND_NAME = "r1ray"
EXTENSION = "r1ray.sync.vllm_transfer.WorkerExtension"

TRAILER_NUMBERS = 2
"""(version, checksum) as int64, broadcast after the last bucket."""


@dataclass
class InitInfo(WeightTransferInitInfo):
    backend: Backend
    host: str
    port: int
    tag: str
    rank_offset: int
    world_size: int
    timeout_s: float


@dataclass
class UpdateInfo(WeightTransferUpdateInfo):
    names: list[str]
    shapes: list[list[int]]
    dtype_name: str
    bucket_bytes: int
    version: int


class StagedTransferEngine(WeightTransferEngine[InitInfo, UpdateInfo]):
    init_info_cls = InitInfo
    update_info_cls = UpdateInfo

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._communicator: Communicator | None = None
        self._staging = torch.empty(0, dtype=torch.uint8)
        self._staged: Plan | None = None

    def init_transfer_engine(self, init_info: InitInfo) -> None:
        self.shutdown()
        rendezvous = Rendezvous(
            backend=init_info.backend,
            host=init_info.host,
            port=init_info.port,
            tag=init_info.tag,
            world_size=init_info.world_size,
            timeout_s=init_info.timeout_s,
        )
        self._communicator = connect(rendezvous, rank=init_info.rank_offset + self.parallel_config.rank)

    def start_weight_update(self) -> None:
        self._staged = None

    def update_weights(self, update_info: dict[str, Any]) -> None:
        # The base class also calls torch.accelerator.synchronize, which raises without an accelerator; nothing is on a device yet.
        self.receive_weights(self.parse_update_info(update_info))

    def receive_weights(self, update_info: UpdateInfo) -> None:
        if self._communicator is None:
            raise TransferError("there is no connection to the trainer: call init_weight_transfer first")
        shapes = list(zip(update_info.names, update_info.shapes, strict=True))
        dtype = getattr(torch, update_info.dtype_name)
        incoming = plan(shapes, dtype=dtype, bucket_bytes=update_info.bucket_bytes)
        try:
            self._receive(self._communicator, incoming, version=update_info.version)
        except BaseException:
            self.shutdown()
            raise
        self._staged = incoming

    def finish_weight_update(self) -> None:
        assert self._staged is not None, "finish_weight_update without a complete transfer"
        staged, self._staged = self._staged, None
        expected = {name for name, _ in self.model.named_parameters()}
        initialize_layerwise_reload(self.model)
        load: Callable[[Iterator[tuple[str, Tensor]]], set[str]] = self.model.load_weights  # type: ignore[assignment]
        loaded = load(staged.views(self._staging))
        missing = sorted(expected - loaded)
        if missing:
            raise RuntimeError(f"the trainer sent no weights for {', '.join(missing)}")
        finalize_layerwise_reload(self.model, self.model_config)
        pack_lm_head(self.model)

    def shutdown(self) -> None:
        if self._communicator is not None:
            self._communicator.close()
            self._communicator = None

    def _receive(self, communicator: Communicator, incoming: Plan, *, version: int) -> None:
        # Kept between updates: a new buffer would cause a page fault for each of its pages.
        if len(self._staging) != incoming.num_bytes:
            self._staging = torch.empty(incoming.num_bytes, dtype=torch.uint8, pin_memory=torch.cuda.is_available())
        checksum = Checksum()
        # One thread receives the buckets while this one adds those that have arrived to the checksum.
        thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="weights")
        try:
            buckets = [self._staging[start:end] for start, end in incoming.buckets()]
            arrivals = [thread.submit(communicator.broadcast, bucket) for bucket in buckets]
            for bucket, arrival in zip(buckets, arrivals, strict=True):
                arrival.result()
                checksum.add(bucket)
        finally:
            thread.shutdown(wait=False, cancel_futures=True)
        trailer = torch.empty(TRAILER_NUMBERS, dtype=torch.int64)
        communicator.broadcast(trailer.view(torch.uint8))
        sent, arrived = trailer.tolist(), [version, checksum.value]
        if sent != arrived:
            with suppress(RuntimeError, TimeoutError):  # others may leave before this rank has read their votes
                communicator.agree(False)
            raise TransferError(
                f"weights of version {arrived[0]} with checksum {arrived[1]:x} arrived, "
                f"but version {sent[0]} with {sent[1]:x} was sent"
            )
        if not communicator.agree(True):
            raise TransferError("another engine worker did not receive what was sent")


class WorkerExtension:
    """vLLM's worker_extension_cls. It adds nothing to the worker: vLLM imports this module to load it."""


def pack_lm_head(model: torch.nn.Module) -> None:
    """Pack lm_head.weight again: on CPU vLLM multiplies by a packed copy of it.

    The layerwise reload does not renew that copy when the weight is tied to the embedding: logits would come from the old weights
    although the checksums of all parameters match.
    """
    lm_head = getattr(model, "lm_head", None)
    weight: Tensor | None = getattr(lm_head, "weight", None)
    if lm_head is not None and weight is not None and weight.device.type == "cpu":
        dispatch_cpu_unquantized_gemm(lm_head, remove_weight=False)


if BACKEND_NAME not in WeightTransferEngineFactory._registry:
    WeightTransferEngineFactory.register_engine(BACKEND_NAME, StagedTransferEngine)

"""Memory that one process fills and others on the same device read: they exchange a handle of plain values, not the bytes.

A handle arrives on an open port, so it is never unpickled. It is verified before it is opened: it must name memory that a trainer
made on this machine or this GPU. The memory is freed when the process that made it ends, even if that process is killed: nothing
is left in /dev/shm.
"""

import os
import uuid
from typing import Any, Protocol

import torch
from torch import Tensor

Handle = dict[str, Any]


class SharedMemory(Protocol):
    tensor: Tensor
    """uint8."""
    handle: Handle
    """For `open_shared` in another process; can be written as JSON."""

    def close(self) -> None:
        """Processes that have opened the memory keep it until they drop their tensor."""
        ...


class HostMemory:
    """An anonymous file in memory, which other processes of the machine open through /proc/<pid>/fd."""

    def __init__(self, num_bytes: int) -> None:
        name = f"r1ray-{uuid.uuid4().hex}"
        self._fd = os.memfd_create(name)
        os.ftruncate(self._fd, num_bytes)
        self.tensor = _mapped(f"/proc/self/fd/{self._fd}", num_bytes)
        self.handle: Handle = {"name": name, "path": f"/proc/{os.getpid()}/fd/{self._fd}", "num_bytes": num_bytes}

    def close(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1


class DeviceMemory:
    """A block of a GPU, by CUDA IPC. Only one process may open its handle: torch counts one reader for each handle."""

    def __init__(self, num_bytes: int, device: torch.device) -> None:
        from torch.multiprocessing.reductions import reduce_tensor

        self.tensor = torch.empty(num_bytes, dtype=torch.uint8, device=device)
        shared: Any = reduce_tensor(self.tensor)[1]
        # The other values that torch pickles (classes, size, strides) are the same for every block of bytes.
        offset, block = shared[3], shared[7:10]
        self.handle: Handle = {
            "gpu": _gpu(device),
            "num_bytes": num_bytes,
            "offset": offset,
            "block": [_hex(value) for value in block],
            "counter_and_event": [_hex(value) for value in shared[11:15]],
        }

    def close(self) -> None:
        """Torch frees the block when the reader has dropped it too."""


def allocate_shared(num_bytes: int, device: torch.device) -> SharedMemory:
    return HostMemory(num_bytes) if device.type == "cpu" else DeviceMemory(num_bytes, device)


def open_shared(handle: Handle, device: torch.device) -> Tensor:
    """The memory of another process. Raises RuntimeError when it is not on this machine, or not on `device`."""
    return _open_host(handle) if device.type == "cpu" else _open_device(handle, device)


def _open_host(handle: Handle) -> Tensor:
    path = str(handle["path"])
    try:
        there = os.readlink(path)
    except OSError as error:
        there = str(error)
    if there != f"/memfd:{handle['name']} (deleted)":
        raise RuntimeError(
            f"the trainer's memory is not on this machine, or is in another container ({path}: {there}): set sync.backend=gloo"
        )
    return _mapped(path, int(handle["num_bytes"]))


def _open_device(handle: Handle, device: torch.device) -> Tensor:
    from torch.multiprocessing.reductions import rebuild_cuda_tensor

    if handle["gpu"] != _gpu(device):
        raise RuntimeError(
            f"the trainer is on GPU {handle['gpu']}, this engine on {_gpu(device)}: set sync.backend=gloo, or nccl with whole GPUs"
        )
    num_bytes = int(handle["num_bytes"])
    rebuild: Any = rebuild_cuda_tensor
    return rebuild(
        torch.Tensor,
        torch.Size([num_bytes]),
        (1,),
        int(handle["offset"]),
        torch.storage.TypedStorage,
        torch.uint8,
        device.index,
        *(_plain(value) for value in handle["block"]),
        False,  # requires_grad
        *(_plain(value) for value in handle["counter_and_event"]),
    )


def _mapped(path: str, num_bytes: int) -> Tensor:
    return torch.from_file(path, shared=True, size=num_bytes, dtype=torch.uint8)


def _gpu(device: torch.device) -> str:
    return str(torch.cuda.get_device_properties(device).uuid)


def _hex(value: Any) -> Any:
    return {"hex": value.hex()} if isinstance(value, bytes) else value


def _plain(value: Any) -> Any:
    return bytes.fromhex(value["hex"]) if isinstance(value, dict) else value

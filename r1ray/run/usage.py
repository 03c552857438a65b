"""The memory that a worker uses, for its heartbeat (`r1ray.actors.spawn`)."""

import sys
from contextlib import suppress

import psutil

GIB = 2**30


def memory_in_use() -> dict[str, float]:
    """GiB: `memory`, resident, of this process and its children; `gpu_memory`, what torch has reserved in this process.

    The device is not asked: a heartbeat must be answered while it is busy or hangs.
    """
    process = psutil.Process()
    total = process.memory_info().rss
    for child in process.children(recursive=True):  # the processes of an engine
        with suppress(psutil.Error):
            total += child.memory_info().rss
    found = {"memory": total / GIB}
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_initialized():
        found["gpu_memory"] = torch.cuda.memory_reserved() / GIB
    return found

"""Memory that processes share, and broadcasts through it: real processes without Ray and vLLM."""

import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import torch
from torch._C._distributed_c10d import PrefixStore, TCPStore

from r1ray.sync.communicator import connect, open_store
from r1ray.sync.ipc import IpcCommunicator
from r1ray.sync.layout import Rendezvous
from r1ray.sync.shared_memory import HostMemory, open_shared

CPU = torch.device("cpu")
SIZES = (100, 70_000, 8, 70_000, 16)

READER = f"""
import sys, time, torch
from r1ray.sync.communicator import connect
from r1ray.sync.layout import Rendezvous
port, rank, world, fault = int(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]), sys.argv[4]
link = connect(Rendezvous(backend="ipc", host="127.0.0.1", port=port, tag="t", world_size=world, timeout_s=5.0), rank=rank)
for number, size in enumerate({SIZES}):
    if number == 2 and fault == "die":
        sys.exit(3)
    if number == 2 and fault == "leave":
        link.close()
        time.sleep(20)
    flat = torch.zeros(size, dtype=torch.uint8)
    link.broadcast(flat)
    print(int(flat.long().sum()), flush=True)
print(link.agree(fault != "no"), flush=True)
"""


def reader(store: TCPStore, *, rank: int, world_size: int, fault: str = "") -> subprocess.Popen[str]:
    command = [sys.executable, "-c", READER, str(store.port), str(rank), str(world_size), fault]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=Path(__file__).parents[2])


def sender(store: TCPStore, *, world_size: int, timeout_s: float = 30.0) -> IpcCommunicator:
    rendezvous = Rendezvous(
        backend="ipc", host="127.0.0.1", port=store.port, tag="t", world_size=world_size, timeout_s=timeout_s
    )
    link: Any = connect(rendezvous, rank=0, store=store)
    return link


def buckets() -> list[torch.Tensor]:
    torch.manual_seed(0)
    return [torch.randint(256, (size,), dtype=torch.uint8) for size in SIZES]


@pytest.mark.parametrize("num_readers", [1, 2])
def test_every_reader_gets_every_bucket_and_votes(num_readers: int) -> None:
    store = open_store("127.0.0.1", timeout_s=30)
    readers = [reader(store, rank=1 + i, world_size=1 + num_readers) for i in range(num_readers)]
    link = sender(store, world_size=1 + num_readers)
    for bucket in buckets():
        link.broadcast(bucket)
    assert link.agree(True)
    sums = [str(int(bucket.long().sum())) for bucket in buckets()]
    for process in readers:
        assert process.communicate(timeout=20)[0].split() == [*sums, "True"]
    link.close()


def test_store_does_not_grow_with_the_data() -> None:
    store = open_store("127.0.0.1", timeout_s=30)
    process = reader(store, rank=1, world_size=2)
    link = sender(store, world_size=2)
    before = store.num_keys()
    for bucket in buckets():
        link.broadcast(bucket)
    assert link.agree(True)
    process.communicate(timeout=20)
    assert store.num_keys() == before
    link.close()


def test_one_vote_against_rejects_the_transfer_for_all() -> None:
    store = open_store("127.0.0.1", timeout_s=30)
    process = reader(store, rank=1, world_size=2, fault="no")
    link = sender(store, world_size=2)
    for bucket in buckets():
        link.broadcast(bucket)
    assert not link.agree(True)
    assert process.communicate(timeout=20)[0].split()[-1] == "False"
    link.close()


def refused(call: Callable[[], Any], match: str) -> float:
    """Seconds until the call fails."""
    start = time.monotonic()
    with pytest.raises((RuntimeError, TimeoutError), match=match):
        call()
    return time.monotonic() - start


def test_leaving_reader_is_noticed_at_once_and_dead_reader_after_the_timeout() -> None:
    for fault, words, at_least, at_most in (
        ("leave", "rank 1 has left", 0.0, 3.0),
        ("die", "rank 1 did not answer within 4 s", 4.0, 8.0),
    ):
        store = open_store("127.0.0.1", timeout_s=30)
        process = reader(store, rank=1, world_size=2, fault=fault)
        link = sender(store, world_size=2, timeout_s=30.0)
        link.timeout_s = 4.0
        first, second, third, *_ = buckets()
        link.broadcast(first)
        link.broadcast(second)
        assert at_least <= refused(lambda link=link, third=third: link.broadcast(third), words) < at_most
        process.kill()
        process.communicate()
        link.close()


def joining(store: TCPStore, *, rank: int, world_size: int, made: list[IpcCommunicator]) -> threading.Thread:
    """A reader in this process."""
    client = TCPStore("127.0.0.1", store.port, None, False, timedelta(seconds=10), wait_for_workers=False)

    def join() -> None:
        with suppress(TimeoutError, RuntimeError):
            link = IpcCommunicator(PrefixStore("t", client), rank=rank, world_size=world_size, timeout_s=5.0)
            made.append(link)

    thread = threading.Thread(target=join)
    thread.start()
    return thread


def test_sender_that_aborts_ends_the_waits_of_readers() -> None:
    store = open_store("127.0.0.1", timeout_s=30)
    made: list[IpcCommunicator] = []
    thread = joining(store, rank=1, world_size=2, made=made)
    link = sender(store, world_size=2)
    thread.join(10)
    threading.Timer(0.3, link.close).start()
    assert refused(lambda: made[0].broadcast(torch.zeros(8, dtype=torch.uint8)), "rank 0 has left") < 3
    assert refused(lambda: link.broadcast(torch.zeros(8, dtype=torch.uint8)), "communicator is closed") < 1


def test_two_readers_with_the_same_rank_are_noticed() -> None:
    store = open_store("127.0.0.1", timeout_s=30)
    made: list[IpcCommunicator] = []
    threads = [joining(store, rank=1, world_size=3, made=made) for _ in range(2)]
    assert refused(lambda: sender(store, world_size=3, timeout_s=1.0), "rank 2 did not answer within 1 s") < 3
    for thread in threads:
        thread.join(10)
    assert not made


def test_handle_is_enough_to_read_from_another_process() -> None:
    memory = HostMemory(64)
    memory.tensor.copy_(torch.arange(64, dtype=torch.uint8))
    code = (
        "import json, sys, torch; from r1ray.sync.shared_memory import open_shared; "
        "print(open_shared(json.loads(sys.argv[1]), torch.device('cpu')).tolist())"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, json.dumps(memory.handle)],
        capture_output=True,
        text=True,
        check=True,
        cwd=Path(__file__).parents[2],
    )
    assert json.loads(done.stdout) == list(range(64))
    memory.close()


def test_memory_that_does_not_match_its_handle_is_not_opened(tmp_path: Path) -> None:
    memory = HostMemory(64)
    (tmp_path / "secret").write_bytes(b"x" * 64)
    elsewhere = memory.handle | {"path": str(tmp_path / "secret")}
    another = memory.handle | {"name": "r1ray-another"}
    gone = memory.handle | {"path": f"/proc/{os.getpid()}/fd/9999"}
    for handle in (elsewhere, another, gone):
        with pytest.raises(RuntimeError, match=r"not on this machine.*set sync\.backend=gloo"):
            open_shared(handle, CPU)
    assert len(open_shared(memory.handle, CPU)) == 64
    memory.close()
    with pytest.raises(RuntimeError, match="not on this machine"):
        open_shared(memory.handle, CPU)


def test_shared_memory_is_removed() -> None:
    before = set(os.listdir("/dev/shm"))
    memory = HostMemory(1 << 20)
    assert set(os.listdir("/dev/shm")) == before
    memory.close()

"""The store at which trainer and engines meet: where it listens, and what strangers can send to it."""

import random
import socket
import time
from collections.abc import Iterator

import psutil
import pytest
from torch._C._distributed_c10d import TCPStore

from r1ray.sync.communicator import open_store, reach_store

MAGIC = b"\x00" + (0x3C85F7CE).to_bytes(4, "little")
"""With it a client of torch opens a connection."""
GARBAGE = {
    "http": b"GET / HTTP/1.1\r\nHost: a\r\n\r\n",
    "tls": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(300),
    "zeros": bytes(5000),
    "random": random.Random(0).randbytes(5000),
    "nothing": b"",
    "one byte": b"\x00",
    "wrong magic": b"\x00\xff\xff\xff\xff" + bytes(64),
    **{f"query {kind} of a huge length": MAGIC + bytes([kind]) + b"\xff" * 64 for kind in range(16)},
    **{f"query {kind} cut": MAGIC + bytes([kind]) + b"\x08\x00\x00" for kind in range(16)},
}


@pytest.fixture
def store() -> Iterator[TCPStore]:
    yield open_store("127.0.0.1", timeout_s=10)


def client(port: int) -> TCPStore:
    return reach_store("127.0.0.1", port, timeout_s=20)


def test_it_listens_on_the_address_that_engines_use_and_on_no_other(store: TCPStore) -> None:
    listening = [c for c in psutil.Process().net_connections("tcp") if c.status == psutil.CONN_LISTEN and c.laddr]
    assert [c.laddr.ip for c in listening if c.laddr.port == store.port] == ["127.0.0.1"]
    client(store.port).set("a", "b")
    assert store.get("a") == b"b"


@pytest.mark.parametrize("kind", GARBAGE, ids=GARBAGE)
def test_garbage_closes_its_own_connection_only(kind: str, store: TCPStore) -> None:
    before = client(store.port)
    with socket.create_connection(("127.0.0.1", store.port)) as stranger:
        stranger.sendall(GARBAGE[kind])
        before.set("a", "1")
        client(store.port).set("b", "2")
    assert (store.get("a"), store.get("b")) == (b"1", b"2")


def test_connections_that_say_nothing_keep_no_engine_out(store: TCPStore) -> None:
    silent = [socket.create_connection(("127.0.0.1", store.port)) for _ in range(200)]
    client(store.port).set("a", "1")
    assert store.get("a") == b"1"
    for connection in silent:
        connection.close()


def test_an_address_of_another_node_is_an_error() -> None:
    with pytest.raises(OSError, match="assign requested address"):
        open_store("192.0.2.1", timeout_s=10)


def test_a_store_that_is_gone_is_reported_within_the_timeout() -> None:
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        start = time.monotonic()
        with pytest.raises(RuntimeError):
            reach_store("127.0.0.1", closed.getsockname()[1], timeout_s=2.5)
        assert time.monotonic() - start < 10

"""The address at which the ranks of a trainer meet."""

import random
import socket
from collections.abc import Sequence

import pytest

from r1ray.actors.start import PORTS, _host_and_free_port


def test_the_port_is_free_and_outside_the_range_of_connections(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as taken, socket.socket() as free:
        ports: list[int] = []
        for listener in (taken, free):
            _, port = _host_and_free_port()
            listener.bind(("", port))
            ports.append(port)
        assert all(port in PORTS for port in ports)
        free.close()
        taken.listen()

        def sample(self: random.Random, population: Sequence[int], *, k: int) -> list[int]:
            return ports

        monkeypatch.setattr(random.SystemRandom, "sample", sample)
        assert _host_and_free_port()[1] == ports[1]
        ports.pop()
        with pytest.raises(
            RuntimeError, match="has no free port for the trainer ranks: 100 ports between 20000 and 32768"
        ):
            _host_and_free_port()

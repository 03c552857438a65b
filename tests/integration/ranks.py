"""Processes that compute together without Ray: started once, used by many tests."""

import multiprocessing
import socket
import traceback
from collections.abc import Callable
from typing import Any

TIMEOUT_S = 300


class Ranks:
    """`run(function, *args)` calls function(rank, world_size, port, *args) on every rank at once; returns results by rank."""

    def __init__(self, world_size: int) -> None:
        context = multiprocessing.get_context("spawn")
        with socket.socket() as listener:
            listener.bind(("127.0.0.1", 0))
            port = listener.getsockname()[1]
        self._pipes, self._processes = [], []
        for rank in range(world_size):
            ours, theirs = context.Pipe()
            process = context.Process(target=_serve, args=(theirs, rank, world_size, port), daemon=True)
            process.start()
            self._pipes.append(ours)
            self._processes.append(process)

    def run(self, function: Callable[..., Any], *args: Any) -> list[Any]:
        for pipe in self._pipes:
            pipe.send((function, args))
        results = []
        for rank, pipe in enumerate(self._pipes):
            if not pipe.poll(TIMEOUT_S):
                raise TimeoutError(f"rank {rank} did not answer within {TIMEOUT_S} s")
            error, result = pipe.recv()
            if error:
                raise RuntimeError(f"rank {rank} raised:\n{error}")
            results.append(result)
        return results

    def close(self) -> None:
        for process in self._processes:
            process.kill()
            process.join()


def _serve(pipe: Any, rank: int, world_size: int, port: int) -> None:
    import torch

    torch.set_num_threads(1)
    while True:
        function, args = pipe.recv()
        try:
            pipe.send((None, function(rank, world_size, port, *args)))
        except BaseException:
            pipe.send((traceback.format_exc(), None))

"""Processes that compute together without Ray: started once and used by many tests."""

import multiprocessing
import socket
import traceback
from collections.abc import Callable
from typing import Any

TIMEOUT_S = 300


class Ranks:
    """`run(function, *args)` calls function(rank, world_size, port, *args) on all ranks at the same time; returns results by
    rank."""

    def __init__(self, world_size: int) -> None:
        self._world_size = world_size
        self._pipes: list[Any] = []
        self._processes: list[Any] = []

    def run(self, function: Callable[..., Any], *args: Any) -> list[Any]:
        if not self._processes:
            self._start()
        for pipe in self._pipes:
            pipe.send((function, args))
        answers = [
            pipe.recv() if pipe.poll(TIMEOUT_S) else (f"no answer in {TIMEOUT_S} s", None) for pipe in self._pipes
        ]
        errors = [f"rank {rank} raised:\n{error}" for rank, (error, _) in enumerate(answers) if error]
        if errors:
            self.close()  # their process group may be broken, so the next test starts new ones
            raise RuntimeError("\n".join(errors))
        return [result for _, result in answers]

    def close(self) -> None:
        for process in self._processes:
            process.kill()
            process.join()
        self._processes, self._pipes = [], []

    def _start(self) -> None:
        context = multiprocessing.get_context("spawn")
        with socket.socket() as listener:
            listener.bind(("127.0.0.1", 0))
            port = listener.getsockname()[1]
        for rank in range(self._world_size):
            ours, theirs = context.Pipe()
            process = context.Process(target=_serve, args=(theirs, rank, self._world_size, port), daemon=True)
            process.start()
            self._pipes.append(ours)
            self._processes.append(process)


def _serve(pipe: Any, rank: int, world_size: int, port: int) -> None:
    import torch

    torch.set_num_threads(1)
    while True:
        function, args = pipe.recv()
        try:
            pipe.send((None, function(rank, world_size, port, *args)))
        except BaseException:
            pipe.send((traceback.format_exc(), None))

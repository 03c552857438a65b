"""C++17 programs: from source to a static binary, by g++'s own tools, each run in the sandbox like any program.

    cc1plus   source        standard input  -> assembler   standard output
    as        assembler     standard input  -> object      a file in memory
    ld        object        standard input  -> binary      a file in memory

`g++` itself, which starts these as processes, is asked once which they are and with which arguments (`-###`), without a program in
sight. So whatever compiles a model's text is one process with the walls of a Python program: it starts no other, reads the system
and its input, writes one file, and is gone at its limits.
"""

import hashlib
import os
import shlex
import shutil
import subprocess
import threading
from collections import OrderedDict
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import replace
from functools import cached_property

from r1ray.sandbox.base import OUTPUT, Ended, Limits, Native, SandboxUnavailable

REMEDY = "install g++ with its static libraries where every user may read it (Debian, Ubuntu: apt-get install g++)"
FOLDERS = "/usr/local/bin:/usr/bin:/bin"
"""Those of the system that programs see."""
INPUT = "/proc/self/fd/0"
STEPS: Sequence[Sequence[str]] = (
    ("-std=c++17", "-O2", "-w", "-fmax-errors=5", "-S", "-x", "c++", "-", "-o", "-"),
    ("-c", "-x", "assembler", INPUT, "-o", OUTPUT),
    ("-static", "-s", "-fno-use-linker-plugin", INPUT, "-o", OUTPUT),
)
"""Static, so that the binary needs nothing of the system; no plugin of the linker's, which would compile once more."""
LIMITS = Limits(cpu_s=15.0, wall_s=90.0, memory_bytes=1 << 30, output_bytes=32 << 20, file_bytes=32 << 20)
"""Of each step. A program with <bits/stdc++.h> takes 1 s and 200 MB, with regular expressions 4 s; assembler text and binary may
have 32 MB. Nothing in a compiler waits, so the wall clock only meets a machine that is too busy."""
THREADS = b"""
#include <pthread.h>
__attribute__((constructor)) static void r1ray_threads() {
    pthread_attr_t r1ray_attributes;
    pthread_attr_init(&r1ray_attributes);
    pthread_attr_setstacksize(&r1ray_attributes, 1 << 20);
    pthread_setattr_default_np(&r1ray_attributes);
}
"""
"""Below every program: else each of its threads would reserve as much stack as the first one may have."""
KEPT = 8
"""Programs of which the outcome is remembered: as many as one group of completions may be at."""
SAID_BYTES = 1 << 16


class Compiler:
    """Builds programs; `run` is how a step is run in the sandbox."""

    def __init__(self, run: Callable[[Native], Ended]) -> None:
        self._run = run
        self._lock = threading.Lock()
        self._built: OrderedDict[bytes, Future[bytes | Ended]] = OrderedDict()

    def build(self, source: bytes) -> bytes | Ended:
        """The binary, or how the build ended without one. Once for each program, whoever asks for it at the same time or after.

        `compile_error`: g++ refuses it, or it takes more memory or space than there is. `timeout`: more time. What is not the
        program's doing is not remembered. Raises SandboxUnavailable where there is no g++.
        """
        tools = self.tools  # where there are none, nobody waits for a program
        key = hashlib.sha256(source).digest()
        with self._lock:
            known, mine = self._built.get(key), Future[bytes | Ended]()
            if known is None:
                self._built[key] = mine
                while len(self._built) > KEPT:
                    self._built.popitem(last=False)
            else:
                self._built.move_to_end(key)
        if known is not None:
            return known.result()
        try:
            built = self._by(tools, source)
        except BaseException as error:
            self._forget(key)
            mine.set_exception(error)
            raise
        if isinstance(built, Ended) and (built.status == "sandbox_error" or built.starved):
            self._forget(key)
        mine.set_result(built)
        return built

    @cached_property
    def tools(self) -> Sequence[Native]:
        """The steps, without their input."""
        return tools_of_gpp()

    def _by(self, tools: Sequence[Native], source: bytes) -> bytes | Ended:
        made = source + THREADS
        for tool in tools:
            ended = self._run(replace(tool, stdin=made))
            if ended.status != "ok":
                said = ended.stderr[:SAID_BYTES]
                kept = ended.status in ("timeout", "sandbox_error")
                return replace(ended, status=ended.status if kept else "compile_error", stdout=b"", stderr=said)
            made = ended.stdout
        return made

    def _forget(self, key: bytes) -> None:
        with self._lock:
            self._built.pop(key, None)


def tools_of_gpp() -> Sequence[Native]:
    """What g++ would start for each step."""
    gpp = shutil.which("g++", path=FOLDERS)
    if gpp is None:
        raise SandboxUnavailable(f"there is no g++ in {FOLDERS} to compile C++ programs (remedy: {REMEDY})")
    found: list[Native] = []
    for step in STEPS:
        said = _asked(gpp, "-###", *step)
        # Its settings stand before; the commands are indented.
        name, *arguments = shlex.split(next(line for line in reversed(said) if line.startswith(" ")))
        if os.path.basename(name) == "collect2":  # it would start ld, and does nothing else for C++
            name = _asked(gpp, "-print-prog-name=ld")[0]
        path = shutil.which(name, path=FOLDERS)
        if path is None:
            raise SandboxUnavailable(
                f"there is no {name}, which {gpp} needs to compile C++ programs (remedy: {REMEDY})"
            )
        found.append(Native(file=path, arguments=(name, *arguments), limits=LIMITS, writes_file=OUTPUT in arguments))
    return found


def _asked(gpp: str, *arguments: str) -> list[str]:
    done = subprocess.run(
        [gpp, *arguments], stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False, env={"LC_ALL": "C"}
    )
    said = [line for line in (done.stdout + done.stderr).splitlines() if line.strip()]
    if done.returncode or not said:
        raise SandboxUnavailable(f"{gpp} {shlex.join(arguments)} failed: {' '.join(said)[-300:]} (remedy: {REMEDY})")
    return said

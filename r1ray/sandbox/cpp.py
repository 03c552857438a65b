"""C++17 programs: from source to a static binary, by g++'s own tools, each run in the sandbox like any program.

    cc1plus   source        standard input  -> assembler   standard output
    as        assembler     standard input  -> object      a file in memory
    ld        object        standard input  -> binary      a file in memory

`g++` itself would start these as processes. It is run once without a program, with `-###`, which prints the tools and their
arguments. So whatever compiles a model's text is one process, confined like a Python program: it cannot start another process, can
read the system and its input, writes one file, and is killed at its limits.
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

from r1ray.sandbox.base import OUTPUT, Executable, Limits, RunResult, SandboxUnavailable

REMEDY = "install g++ with its static libraries where every user may read it (Debian, Ubuntu: apt-get install g++)"
FOLDERS = "/usr/local/bin:/usr/bin:/bin"
"""Folders of the system that programs can read."""
INPUT = "/proc/self/fd/0"
STEPS: Sequence[Sequence[str]] = (
    ("-std=c++17", "-O2", "-w", "-fmax-errors=5", "-S", "-x", "c++", "-", "-o", "-"),
    ("-c", "-x", "assembler", INPUT, "-o", OUTPUT),
    ("-static", "-s", "-fno-use-linker-plugin", INPUT, "-o", OUTPUT),
)
"""Static, so that the binary needs no file of the system; without the linker plugin, which would compile again."""
LIMITS = Limits(cpu_s=15.0, wall_s=90.0, memory_bytes=1 << 30, output_bytes=32 << 20, file_bytes=32 << 20)
"""Of each step. A program with <bits/stdc++.h> takes 1 s and 200 MB, with regular expressions 4 s; assembler text and binary may
have 32 MB. A compiler never waits, so it only reaches the wall limit on an overloaded machine."""
THREADS = b"""
#include <pthread.h>
__attribute__((constructor)) static void r1ray_threads() {
    pthread_attr_t r1ray_attributes;
    pthread_attr_init(&r1ray_attributes);
    pthread_attr_setstacksize(&r1ray_attributes, 1 << 20);
    pthread_setattr_default_np(&r1ray_attributes);
}
"""
"""Appended to every program: otherwise each of its threads would reserve as much stack as the main thread."""
CACHE_SIZE = 8
"""Programs whose build is cached: as many as are usually scored at a time."""
MESSAGE_BYTES = 1 << 16


class Compiler:
    """Compiles programs; `run` runs a step in the sandbox."""

    def __init__(self, run: Callable[[Executable], RunResult]) -> None:
        self._run = run
        self._lock = threading.Lock()
        self._cache: OrderedDict[bytes, Future[bytes | RunResult]] = OrderedDict()

    def build(self, source: bytes) -> bytes | RunResult:
        """The binary, or the result of the step that failed. Each program is built once, also when several threads need it.

        `compile_error`: g++ rejects the program, or it exceeds the limits of memory or space. `timeout`: it exceeds the time limit.
        Failures that the program did not cause are not cached. Raises SandboxUnavailable where there is no g++.
        """
        tools = self.tools  # raises before other threads could wait for this build
        key = hashlib.sha256(source).digest()
        with self._lock:
            known, mine = self._cache.get(key), Future[bytes | RunResult]()
            if known is None:
                self._cache[key] = mine
                while len(self._cache) > CACHE_SIZE:
                    self._cache.popitem(last=False)
            else:
                self._cache.move_to_end(key)
        if known is not None:
            return known.result()
        try:
            built = self._build(tools, source)
        except BaseException as error:
            self._forget(key)
            mine.set_exception(error)
            raise
        if isinstance(built, RunResult) and (built.status == "sandbox_error" or built.starved):
            self._forget(key)
        mine.set_result(built)
        return built

    @cached_property
    def tools(self) -> Sequence[Executable]:
        """The tools of the steps, without their input."""
        return tools_of_gpp()

    def _build(self, tools: Sequence[Executable], source: bytes) -> bytes | RunResult:
        made = source + THREADS
        for tool in tools:
            result = self._run(replace(tool, stdin=made))
            if result.status != "ok":
                output = result.stderr[:MESSAGE_BYTES]
                kept = result.status in ("timeout", "sandbox_error")
                return replace(result, status=result.status if kept else "compile_error", stdout=b"", stderr=output)
            made = result.stdout
        return made

    def _forget(self, key: bytes) -> None:
        with self._lock:
            self._cache.pop(key, None)


def tools_of_gpp() -> Sequence[Executable]:
    """The tool that g++ would start for each step."""
    gpp = shutil.which("g++", path=FOLDERS)
    if gpp is None:
        raise SandboxUnavailable(f"there is no g++ in {FOLDERS} to compile C++ programs (remedy: {REMEDY})")
    found: list[Executable] = []
    for step in STEPS:
        output = _output_of(gpp, "-###", *step)
        # g++ prints its settings first; the commands are indented.
        name, *arguments = shlex.split(next(line for line in reversed(output) if line.startswith(" ")))
        if os.path.basename(name) == "collect2":  # a wrapper of ld, without further effect for C++
            name = _output_of(gpp, "-print-prog-name=ld")[0]
        path = shutil.which(name, path=FOLDERS)
        if path is None:
            raise SandboxUnavailable(
                f"there is no {name}, which {gpp} needs to compile C++ programs (remedy: {REMEDY})"
            )
        found.append(
            Executable(file=path, arguments=(name, *arguments), limits=LIMITS, writes_file=OUTPUT in arguments)
        )
    return found


def _output_of(gpp: str, *arguments: str) -> list[str]:
    done = subprocess.run(
        [gpp, *arguments], stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False, env={"LC_ALL": "C"}
    )
    output = [line for line in (done.stdout + done.stderr).splitlines() if line.strip()]
    if done.returncode or not output:
        raise SandboxUnavailable(f"{gpp} {shlex.join(arguments)} failed: {' '.join(output)[-300:]} (remedy: {REMEDY})")
    return output

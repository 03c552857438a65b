"""Sandboxed runs of programs per second, relative to `bwrap python` with the same imports and to a bare fork of the interpreter.

    python -m tests.bench.sandbox [--quick] [--out FILE]

Ours: two clients, each with its own sandbox and one slot, as in reward workers: T1 (bubblewrap, namespaces of each run) and T2
(Landlock, seccomp). Every run is a fork of an interpreter that has imported the usual modules of the standard library.
Theirs: two clients that start `bwrap python` for every run, with the arguments of the outer sandbox and the same imports; and two
that fork an interpreter that has imported the same modules, without isolation, limits or clock.

Run by root, all of this runs as an unprivileged user (65534). Repeated with numpy and sympy imported where /usr/bin/python3 has
them (Debian: apt-get install python3-numpy python3-sympy). At the end: how long an endless loop outlives its wall limit.
"""

import argparse
import functools
import json
import os
import subprocess
from pathlib import Path

from r1ray.sandbox.choose import PYTHON
from tests.bench.side_by_side import Comparison, alternate, arguments, pin, quartiles, report

CLIENTS = Path(__file__).with_name("sandbox_clients.py")
WAYS = ("T1", "T2", "bwrap", "fork")
UNPRIVILEGED = ("setpriv", "--reuid", "65534", "--regid", "65534", "--clear-groups")
PRELUDES = {"standard library": "", "numpy too": "numpy", "sympy too": "numpy,sympy"}
WANTED = {
    ("T1", "bwrap"): {"floor": 5.0, "goal": 6.5},
    ("T2", "bwrap"): {"floor": 4.5},
    ("T1", "fork"): {"floor": 0.7, "goal": 0.8},
    ("T2", "fork"): {"floor": 0.7, "goal": 0.8},
}
"""For the standard library's prelude; the others are only reported."""


def asked(*arguments: str) -> str:
    command = [*(UNPRIVILEGED if os.geteuid() == 0 else ()), PYTHON, str(CLIENTS), *arguments]
    environment = {"PATH": "/usr/bin:/bin", "PYTHONDONTWRITEBYTECODE": "1"}
    return subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True, env=environment).stdout


def compare(name: str, packages: str, *, args: argparse.Namespace, cores: list[int]) -> None:
    seconds = "1" if args.quick else "5"
    sides = {way: functools.partial(lambda way: float(asked(way, seconds, packages)), way) for way in WAYS}
    seen = alternate(sides, repetitions=args.repetitions, warmups=0 if args.quick else 1)
    for (ours, theirs), wanted in WANTED.items():
        report(
            Comparison(
                name=f"sandbox, {ours} over {theirs}, {name}",
                unit="runs/s",
                ours=seen[ours],
                theirs=seen[theirs],
                setting={"cores": cores, "clients": 2, "seconds a round": seconds, "python": PYTHON},
                **(wanted if not packages else {}),
            ),
            out=args.out,
        )


def main() -> None:
    args = arguments(__doc__).parse_args()
    cores = pin(args.cores)
    for name, packages in PRELUDES.items():
        have = subprocess.run([PYTHON, "-c", f"import {packages or 'sys'}"], capture_output=True, check=False)
        if have.returncode:
            print(f"\nsandbox, {name}: not measured, {PYTHON} has no {packages}")
        else:
            compare(name, packages, args=args, cores=cores)
    overrun_ms = sorted(json.loads(asked("kill")))
    low, middle, high = quartiles(overrun_ms)
    p99 = overrun_ms[int(0.99 * len(overrun_ms))]
    print(
        f"\nkill after a wall limit: median {middle:.1f} ms, quartiles {low:.1f} .. {high:.1f}, p99 {p99:.1f}; goal 50 (p99)"
    )


if __name__ == "__main__":
    main()

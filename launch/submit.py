"""Run r1ray on a Ray cluster: upload this folder, start `python -m r1ray.main` there, print its output, return its exit code.

    python launch/submit.py [--address URL] [--working-dir DIR] [--env NAME=VALUE] [--no-wait] -- run_dir=/shared/first [overrides]

A thin wrapper around `ray job submit`, which works as well. In addition it

- reports mistakes in the overrides before anything is uploaded;
- refuses a cluster that accepts jobs without a token;
- gives a stopped job time to save its checkpoint;
- exits with 0 if the job finished, 75 if it was stopped and has saved (submit the same command with resume=auto), 130 if Ctrl-C
  ended the log output (the job keeps running), and 1 otherwise.

The token comes from the same places as for Ray: RAY_AUTH_TOKEN, the file RAY_AUTH_TOKEN_PATH, or ~/.ray/auth_token. Everyone who
has the token can read the variables that --env sets: put keys of other services into the environment of `ray start` instead.
"""

import argparse
import asyncio
import http.client
import logging
import os
import shlex
import stat
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
import zipfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

DEFAULT_ADDRESS = "http://127.0.0.1:8265"
STOP_WAIT_S = 100
"""Seconds that a stopped job has to save before Ray kills it. Ray's default is 3."""
SAVED = "everything is saved: to continue, run the same command with resume=auto"
"""In the last line that r1ray prints after SIGTERM. Ray keeps no exit code of a job that `ray job stop` has ended."""
LIMIT_MB = 100
"""Largest working directory that a Ray dashboard accepts."""
LEFT_OUT = {".git", ".venv", "venv", "runs", "outputs", "multirun", "wandb", "node_modules"}
"""Folders that are never uploaded. Folders whose names end in cache or cache__ are not uploaded either."""
LOST_S = 120.0
"""Seconds without a connection to the dashboard after which the log output ends."""
HEAD = f"""On the head node:
  (umask 077 && ray get-auth-token --generate >/dev/null)    # once; the same file on every node and here
  RAY_AUTH_MODE=token RAY_JOB_STOP_WAIT_TIME_S={STOP_WAIT_S} ray start --head --dashboard-host 127.0.0.1
From another machine: ssh -L 8265:127.0.0.1:8265 HEAD"""


def main(arguments: Sequence[str] | None = None) -> int:
    options = parser().parse_args(arguments)
    os.environ["RAY_AUTH_MODE"] = "token"  # read when Ray is imported
    try:
        folder = working_dir(options.working_dir)
        check_token()
        check_overrides(options.overrides, folder)
        check_server(options.address)
        return submit(options, folder)
    except ValueError as error:
        print(f"submit: {error}", file=sys.stderr)
        return 1


def parser() -> argparse.ArgumentParser:
    command = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    address = os.environ.get("RAY_API_SERVER_ADDRESS", DEFAULT_ADDRESS)
    command.add_argument("--address", default=address, metavar="URL", help=f"of the dashboard; default: {address}")
    command.add_argument(
        "--working-dir", default=".", metavar="DIR", help="uploaded to every node; default: the current folder"
    )
    command.add_argument(
        "--env", action="append", default=[], metavar="NAME=VALUE", help="environment variable of driver and actors"
    )
    command.add_argument(
        "--no-wait", action="store_true", help="return after submitting instead of printing the output"
    )
    command.add_argument("overrides", nargs="*", help="Hydra overrides, after --")
    return command


def working_dir(name: str) -> Path:
    folder = Path(name).expanduser().resolve()
    if not folder.is_dir():
        raise ValueError(f"--working-dir {name} is not a folder")
    return folder


def check_overrides(overrides: Sequence[str], folder: Path) -> None:
    """Find mistakes before anything is uploaded. Paths of models and data are not checked: they may exist only on the cluster.

    Raises ValueError with all mistakes.
    """
    os.chdir(folder)  # as in the job: --config-dir, import paths and data files are relative to it
    sys.path.insert(0, str(folder))
    try:
        from r1ray.check import ConfigError
        from r1ray.cli import check_command_line
    except ImportError as error:
        print(f"submit: the overrides are not checked: {error}", file=sys.stderr)
        return
    try:
        run_dirs = [run.config.run_dir for run in check_command_line(overrides)]
    except ConfigError as error:
        wrong = [mistake for mistake in error.mistakes if mistake.key.rpartition(".")[2] not in ("run_dir", "path")]
        if wrong:
            raise ConfigError(wrong) from None
        run_dirs = [str(mistake.value) for mistake in error.mistakes if mistake.key == "run_dir"]
    relative = [run_dir for run_dir in run_dirs if not Path(run_dir).is_absolute()]
    if relative:
        raise ValueError(
            f"run_dir={relative[0]} would be lost: a job runs in a temporary copy of the working directory. "
            "Give an absolute path on storage that all nodes share: run_dir=/SHARED/FOLDER"
        )


def check_token() -> None:
    """Raises ValueError without a token, or when other users of this machine can read its file."""
    if os.environ.get("RAY_AUTH_TOKEN"):
        return
    file = Path(os.environ.get("RAY_AUTH_TOKEN_PATH") or "~/.ray/auth_token").expanduser().resolve()
    os.environ["RAY_AUTH_TOKEN_PATH"] = str(file)  # absolute: check_overrides changes the current folder
    if not file.is_file() or not file.read_text().strip():
        raise ValueError(
            f"there is no token in {file}: copy the head node's file there (chmod 600), or give its path with "
            f"RAY_AUTH_TOKEN_PATH=FILE. {HEAD}"
        )
    if stat.S_IMODE(file.stat().st_mode) & 0o077:
        raise ValueError(f"other users can read the token and so run code on the cluster: chmod 600 {file}")


def check_server(address: str) -> None:
    """Raises ValueError when no Ray dashboard is at this address, or when it accepts jobs without a token.

    Anyone who can connect to a dashboard without a token can run code on the cluster.
    """
    if not address.startswith(("http://", "https://")):
        raise ValueError(f"--address {address} is not the URL of a dashboard: --address {DEFAULT_ADDRESS}")
    try:
        with urllib.request.urlopen(f"{address.rstrip('/')}/api/jobs/", timeout=20):
            pass
    except urllib.error.HTTPError as error:
        if error.code not in (401, 403):
            raise ValueError(f"{address} is not a Ray dashboard: /api/jobs/ returns {error.code}") from None
    except (OSError, http.client.HTTPException) as error:
        reason = getattr(error, "reason", error)
        raise ValueError(f"no Ray dashboard at {address} ({reason}). {HEAD}") from None
    else:
        raise ValueError(
            f"{address} accepts jobs without a token, so anyone who can connect to it can run code there. Restart Ray with a "
            f"token. {HEAD}"
        )


def submit(options: argparse.Namespace, folder: Path) -> int:
    from ray.exceptions import AuthenticationError
    from ray.job_submission import JobSubmissionClient

    logging.disable(logging.INFO)  # Ray's messages about uploads and connections
    for name in ("RAY_ADDRESS", "RAY_API_SERVER_ADDRESS"):
        os.environ.pop(name, None)  # they would override the address that was checked
    env_vars = {"RAY_JOB_STOP_WAIT_TIME_S": str(STOP_WAIT_S)} | pairs(options.env)
    with tempfile.TemporaryDirectory() as aside:
        package = pack(folder, Path(aside) / "working_dir.zip")
        try:
            client = JobSubmissionClient(options.address)
            job = client.submit_job(
                entrypoint=shlex.join(["python", "-m", "r1ray.main", *options.overrides]),
                runtime_env={"working_dir": str(package), "env_vars": env_vars},
            )
        except AuthenticationError:
            raise ValueError(
                f"{options.address} refuses this token: copy the head node's ~/.ray/auth_token here, or give its path with "
                "RAY_AUTH_TOKEN_PATH=FILE"
            ) from None
        except (RuntimeError, OSError) as error:
            raise ValueError(f"{options.address} did not accept the job: {error}") from None
    commands = {verb: f"ray job {verb} --address {options.address} {job}" for verb in ("logs", "status", "stop")}
    print(f"submit: {job}; to stop it: {commands['stop']}", file=sys.stderr)
    if options.no_wait:
        return 0
    try:
        return asyncio.run(follow(client, job))
    except KeyboardInterrupt:
        print("\nsubmit: the job keeps running:", *commands.values(), sep="\n  ", file=sys.stderr)
        return 130


def pairs(settings: Sequence[str]) -> dict[str, str]:
    for setting in settings:
        if "=" not in setting:
            raise ValueError(f"--env {setting} has no value: --env NAME=VALUE")
    return dict(setting.split("=", 1) for setting in settings)


def pack(folder: Path, package: Path) -> Path:
    """Write a zip file of the working directory. Ray would only find out that a folder is too large after reading all of it.

    Raises ValueError when the folder is too large, naming its largest entries.
    """
    files = list(files_of(folder))
    sizes: dict[str, int] = {}
    for file in files:
        entry = file.relative_to(folder).parts[0]
        sizes[entry] = sizes.get(entry, 0) + file.stat().st_size
    if sum(sizes.values()) > LIMIT_MB * 2**20:
        largest = sorted(sizes, key=lambda entry: -sizes[entry])[:3]
        named = ", ".join(f"{entry} {sizes[entry] / 2**20:.0f} MB" for entry in largest)
        raise ValueError(
            f"--working-dir {folder} holds {sum(sizes.values()) / 2**20:.0f} MB, more than the limit of {LIMIT_MB} MB ({named}): "
            "put data and models on storage that all nodes share, exclude other files with .gitignore, or give a smaller folder "
            "with --working-dir"
        )
    with zipfile.ZipFile(package, "w", zipfile.ZIP_DEFLATED, strict_timestamps=False) as archive:
        for file in files:
            archive.write(file, file.relative_to(folder))
        if not files:  # Ray refuses a package without files
            archive.writestr(".empty", "")
    return package


def files_of(folder: Path) -> Iterator[Path]:
    """In a git checkout the files that git tracks or would add; elsewhere all files. Without environments, runs and caches."""
    listed = ["git", "-C", str(folder), "ls-files", "--cached", "--others", "--exclude-standard", "-z"]
    try:
        found = subprocess.run(listed, capture_output=True, check=True).stdout.decode()
    except (OSError, subprocess.CalledProcessError):
        found = ""
    if not found:  # no checkout, or a folder that git ignores
        yield from _walk(folder)
    for name in sorted(set(found.split("\0")) - {""}):
        if not any(_left_out(part) for part in Path(name).parts[:-1]) and (folder / name).is_file():
            yield folder / name


def _walk(folder: Path) -> Iterator[Path]:
    for root, folders, names in os.walk(folder):
        folders[:] = sorted(name for name in folders if not _left_out(name))
        yield from (Path(root, name) for name in sorted(names) if Path(root, name).is_file())


def _left_out(name: str) -> bool:
    return name in LEFT_OUT or name.endswith(("cache", "cache__"))


async def follow(client: Any, job: str) -> int:
    """Print the job's output until it has ended, reconnecting when the connection breaks. Returns the exit code."""
    import aiohttp  # not at the top, so that mistakes in the overrides are reported without loading Ray's client

    printed, last, lost = 0, "", None
    while True:
        seen = 0
        try:
            async for text in client.tail_job_logs(job):  # always starts at the beginning
                seen += len(text)
                new = text[len(text) - max(0, min(len(text), seen - printed)) :]
                print(new, end="", flush=True)
                printed, last = max(printed, seen), (last + new)[-4000:]
            info, lost = client.get_job_info(job), None
        except (RuntimeError, OSError, aiohttp.ClientError) as error:
            lost = lost or time.monotonic()
            if time.monotonic() - lost > LOST_S:
                raise ValueError(
                    f"the dashboard has been out of reach for {LOST_S:.0f} s ({error}); the job may still be running"
                ) from None
            info = None
        if info is not None and info.status.is_terminal():
            return exit_code(info, last)
        await asyncio.sleep(1)


def exit_code(info: Any, last: str) -> int:
    """The exit code for a job that has ended; `last` is the end of its output."""
    if info.status == "SUCCEEDED":
        return 0
    saved = info.driver_exit_code == 75 or (info.status == "STOPPED" and SAVED in last)
    how = info.status.lower() + (" after saving; resume=auto continues it" if saved else "")
    # With an exit code, the driver has printed the reason.
    why = f": {info.message}" if info.driver_exit_code is None else f", exit code {info.driver_exit_code}"
    print(f"submit: the job has {how}{why}", file=sys.stderr)
    return 75 if saved else 1


if __name__ == "__main__":
    sys.exit(main())

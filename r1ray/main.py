"""`python -m r1ray.main`: compose, check, then run the stages.

Exit codes: 0 finished; 1 failed while running, the message has the cause and the log to read; 2 a mistake in the configuration,
nothing was started; 75 stopped by SIGTERM or Ctrl-C: to continue, run the same command with resume=auto. The message says whether
everything is saved.
"""

import os
import sys
import traceback
from contextlib import suppress

from r1ray.check import CheckedRun
from r1ray.cli import run_cli
from r1ray.failures import ResultLost, TrainersLost, WorkerDied, WorkerUnresponsive
from r1ray.plugin_errors import users_traceback
from r1ray.run import stop

LOST = (ResultLost, TrainersLost, WorkerDied, WorkerUnresponsive)


def main(checked: CheckedRun) -> None:
    """Run the stages. The imports are here so that the command line answers before torch and Ray are loaded."""
    stop.install_handler()
    from r1ray.run.directory import open_run
    from r1ray.stages.pipeline import run_stages

    try:
        run = open_run(checked.config.run_dir, raw=checked.raw, overrides=checked.overrides)
    except ValueError as error:
        sys.exit(f"r1ray: {error}")
    except OSError as error:
        sys.exit(f"r1ray: run_dir={checked.config.run_dir} cannot be used: {error}")
    try:
        run_stages(checked, run)
    except stop.Stopped as error:
        run.event("run_stopped", reason=str(error))
        without = " and without fault=..." if checked.config.fault else ""
        print(
            f"r1ray: {error}; everything is saved: to continue, run the same command with resume=auto{without}",
            file=sys.stderr,
        )
        sys.exit(stop.EXIT_CODE)
    except Exception as error:
        log = run.log("driver", 0)
        with suppress(OSError):  # a full disk must not hide the cause
            log.write_text(traceback.format_exc())
        run.event("run_failed", error=f"{type(error).__name__}: {error}")
        if os.environ.get("HYDRA_FULL_ERROR") == "1":
            raise
        if stop.stop_requested() and isinstance(error, LOST):  # the signal may have ended workers too
            print(
                f"r1ray: {stop.stop_reason()}, but the last step could not be saved: {error}; resume=auto continues from the last "
                "checkpoint",
                file=sys.stderr,
            )
            sys.exit(stop.EXIT_CODE)
        if shown := users_traceback(error):
            print(shown, file=sys.stderr)
        sys.exit(f"r1ray: {error}\nThe traceback is in {log}, the output of the workers in {log.parent}")


if __name__ == "__main__":
    sys.exit(run_cli(main))

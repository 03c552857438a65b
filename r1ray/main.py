"""`python -m r1ray.main`: compose, check, then run the stages.

Exit codes: 0 finished, 1 a failure while running, 2 a mistake in the configuration or a cluster too small (nothing was trained).
"""

import sys

from r1ray.check import CheckedRun
from r1ray.cli import run_cli


def main(checked: CheckedRun) -> None:
    """One checked run. Imported here: the command line answers before torch and Ray are loaded."""
    from r1ray.stages.pipeline import run_stages

    run_stages(checked)


if __name__ == "__main__":
    sys.exit(run_cli(main))

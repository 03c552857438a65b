#!/usr/bin/env bash
# Sets up .venv (once) and runs the tests. --all adds the tests that take minutes; other arguments go to pytest: test.sh -k packing
set -euo pipefail
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
bash "$root/launch/setup.sh"
cd "$root"
export PATH="$root/.venv/bin:$PATH"

select=(-m "not slow")
args=()
paths=()
for arg in "$@"; do
    case $arg in
        --all) select=() ;;
        tests/*) paths+=("$arg") ;;
        *) args+=("$arg") ;;
    esac
done

code=5 # pytest's code for: no test matches
run() {
    local ended=0
    python -m pytest "${select[@]}" "${args[@]}" "$@" || ended=$?
    case $ended in
        5) ;;
        0) if [ "$code" -eq 5 ]; then code=0; fi ;;
        *) code=$ended ;;
    esac
}

if [ ${#paths[@]} -gt 0 ]; then
    run "${paths[@]}"
else
    # Unit tests use one core each. The others start Ray, engines and trainers, which need the whole machine.
    OMP_NUM_THREADS=1 run tests/unit --numprocesses "$(env -u OMP_NUM_THREADS nproc)" --maxprocesses 8
    run tests/integration tests/e2e
fi
exit "$code"

#!/usr/bin/env bash
# Sets up .venv (once) and runs the tests. --all adds the tests that take minutes; other arguments go to pytest: test.sh -k packing
set -euo pipefail
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
bash "$root/launch/setup.sh"
cd "$root"
export PATH="$root/.venv/bin:$PATH"

select=(-m "not slow")
args=()
for arg in "$@"; do
    if [ "$arg" = --all ]; then select=(); else args+=("$arg"); fi
done
exec python -m pytest "${select[@]}" "${args[@]}"

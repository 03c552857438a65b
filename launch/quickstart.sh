#!/usr/bin/env bash
# Sets up .venv (once) and trains the built-in model on CPU. Arguments are Hydra overrides: quickstart.sh name=second seed=1
set -euo pipefail
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
bash "$root/launch/setup.sh"
cd "$root"
export PATH="$root/.venv/bin:$PATH"
exec python -m r1ray.main "$@"

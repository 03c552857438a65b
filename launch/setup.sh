#!/usr/bin/env bash
# Creates .venv with the pinned CPU packages and r1ray itself (editable). Run by quickstart.sh and test.sh.
# Later runs only compare a stamp: no network, a few milliseconds.
#
#   PYTHON=...          the interpreter to use; default: the first Python 3.11 or 3.12 on PATH
#   PIP_FIND_LINKS=...  a folder with the CPU wheel of torch; default: torch comes from PyTorch's index
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

pins=launch/constraints-cpu.txt
stamp=.venv/.r1ray-stamp
unfinished=.venv/.r1ray-unfinished
torch_index=https://download.pytorch.org/whl/cpu
uv_version=0.13.8

say() { printf 'setup: %s\n' "$*" >&2; }
fail() { say "$@"; exit 1; }

# Two runs at the same time (quickstart in one window, tests in another) must not write to the same environment.
exec 9<launch/setup.sh
if command -v flock >/dev/null && ! flock --nonblock 9; then
    say "another setup of this checkout is running; waiting for it to finish"
    flock 9
fi

# The folder is part of the stamp: a copied checkout must not import from the original.
want=$(cat pyproject.toml "$pins" launch/setup.sh <(pwd -P) | sha256sum | cut -d' ' -f1)
if [ -x .venv/bin/python ] && [ ! -e "$unfinished" ] && [ "$(cat "$stamp" 2>/dev/null)" = "$want" ]; then
    exit 0
fi

find_python() {
    local candidate candidates=(python python3 python3.11 python3.12)
    if [ -n "${PYTHON:-}" ]; then candidates=("$PYTHON"); fi
    for candidate in "${candidates[@]}"; do
        if "$candidate" -c 'import sys; sys.exit(sys.version_info[:2] not in ((3, 11), (3, 12)))' >/dev/null 2>&1; then
            echo "$candidate"
            return
        fi
    done
    fail "needs Python 3.11 or 3.12, but '${candidates[0]}' is $("${candidates[0]}" --version 2>&1 || true). Install Python 3.11, or pass its path: PYTHON=/path/to/python3.11 $0"
}

# uv does not read pip's configuration: pass on the folders, indexes and certificates that pip would use.
export_pip_sources() {
    eval "$(.venv/bin/python - <<'PY'
import ast, os, shlex, subprocess, sys

listing = subprocess.run([sys.executable, "-m", "pip", "config", "list"], capture_output=True, text=True).stdout
found = {}
for line in sorted(listing.splitlines(), key=lambda line: line.startswith(":env:")):  # environment variables override files
    key, _, value = line.partition("=")
    found[key.rpartition(".")[2]] = ast.literal_eval(value)
names = {"find-links": "UV_FIND_LINKS", "extra-index-url": "UV_EXTRA_INDEX_URL", "index-url": "UV_DEFAULT_INDEX", "cert": "SSL_CERT_FILE"}
for key, name in names.items():
    if key in found and name not in os.environ:
        separator = "," if key == "find-links" else " "
        print(f"export {name}={shlex.quote(separator.join(found[key].split()))}")
PY
)"
    # As pip does: consider every index. Versions are pinned, so this is safe.
    export UV_INDEX_STRATEGY=unsafe-best-match UV_PYTHON_DOWNLOADS=never
}

install() {
    # Hide uv's list of installed packages (200 lines), show its progress.
    if [ -x .venv/bin/uv ] && .venv/bin/uv pip install --python .venv/bin/python --no-deps "$@" 2>&1 | sed '/^ [-+~] /d' >&2; then
        return
    fi
    say "uv failed; falling back to pip"
    .venv/bin/python -m pip install --no-deps "$@" | sed '/^Requirement already satisfied/d'
}

if [ -d .venv ] && { [ -e "$unfinished" ] || ! .venv/bin/python -c 'import pip' >/dev/null 2>&1; }; then
    say "the last setup did not finish: creating .venv from scratch"
    rm -rf .venv
fi
if [ ! -d .venv ]; then
    [ "$(uname -sm)" = "Linux x86_64" ] || fail "the pinned packages are for Linux on x86-64; this machine is $(uname -sm)"
    python=$(find_python)
    "$python" -c 'import venv, ensurepip' 2>/dev/null || fail "$python cannot create virtual environments: install its venv package (Debian, Ubuntu: apt-get install python3-venv)"
    "$python" -c 'import ctypes; ctypes.CDLL("libnuma.so.1")' 2>/dev/null || fail "vLLM's CPU build needs libnuma (Debian, Ubuntu: apt-get install libnuma1)"
    say "creating .venv with $("$python" --version)"
    mkdir .venv && touch "$unfinished"
    "$python" -m venv .venv
fi
touch "$unfinished"
export_pip_sources
.venv/bin/python -m pip install --quiet "uv==$uv_version" || say "pip could not install uv $uv_version: falling back to pip, which is slower"

# The pinned list includes all dependencies, so nothing is resolved and nothing else is installed.
say "installing $(grep -c '==' "$pins") pinned packages"
torch=$(grep '^torch==' "$pins")
if [ -z "${UV_FIND_LINKS:-}" ] || ! install "$torch"; then
    install --extra-index-url "$torch_index" "$torch"
fi
install -r "$pins"
install --no-build-isolation -e .

# vLLM's imports take 23 s without bytecode and 9 s with it, and Python only caches bytecode where it may write.
# Some packages contain templates that are not valid Python: errors about them are ignored.
say "compiling bytecode"
.venv/bin/python -m compileall -q -j 0 .venv/lib >/dev/null 2>&1 || true

rm "$unfinished"
echo "$want" >"$stamp"
say "done"

#!/usr/bin/env bash
# Sets up .venv from requirements.txt and constraints.txt (or VENV=... from LOCK=requirements-modern.txt). Checks what must
# be on the machine before anything is downloaded; when nothing changed since the last run it ends within a second.
set -euo pipefail
cd "$(dirname "$0")/.."

fail() { echo "error: $*" >&2; exit 2; }

VENV=${VENV:-.venv}
LOCK=${LOCK:-requirements.txt}
[ -f "$LOCK" ] || fail "LOCK=$LOCK: there is no such file; the locks are $(echo requirements*.txt)"
lock() { grep -E "^$1==" "$LOCK"; }
with_horovod=$(lock horovod || true)
PYTHON=${PYTHON:-}
if [ -z "$PYTHON" ]; then
    for candidate in python3.11 python3 python; do
        if command -v "$candidate" >/dev/null && "$candidate" -c 'import sys; sys.exit(sys.version_info[:2] != (3, 11))'; then
            PYTHON=$candidate
            break
        fi
    done
fi
[ -n "$PYTHON" ] || fail "Python 3.11 is missing (Debian 12: apt install python3.11 python3.11-venv); or name one: make PYTHON=/path/to/python3.11"
"$PYTHON" -c 'import sys; sys.exit(sys.version_info[:2] != (3, 11))' 2>/dev/null || fail "$PYTHON is not Python 3.11, which the pinned packages need; install python3.11 or set PYTHON="
"$PYTHON" -c 'import venv, ensurepip' 2>/dev/null || fail "Python's venv module is missing (Debian: apt install python3.11-venv)"

stamp=$({ cat "$LOCK" constraints.txt setup.cfg scripts/setup.sh; "$PYTHON" -VV; pwd; echo "${HOROVOD_NCCL_HOME:-}"; } | sha256sum | cut -c1-16)

java_bin=${JAVA_HOME:+$JAVA_HOME/bin/}java
command -v "$java_bin" >/dev/null || fail "Java is missing; Spark needs a JDK 17 (Debian 12: apt install openjdk-17-jre-headless)"
if [ "$(cat "$VENV/.cocu-stamp" 2>/dev/null)" = "$stamp" ]; then
    exit 0
fi
java_version=$("$java_bin" -version 2>&1 | sed -n 's/.*version "\([0-9]*\).*/\1/p' | head -1)
[ "${java_version:-0}" -ge 17 ] || fail "Java ${java_version:-of an unknown version} is too old; Spark 4 needs 17 or 21 (Debian 12: apt install openjdk-17-jre-headless)"
for tool in ${with_horovod:+g++ cmake make}; do
    command -v $tool >/dev/null || fail "$tool is missing; Horovod is compiled once (Debian: apt install build-essential cmake)"
done

echo "setting up $VENV (some minutes the first time, mostly downloads)"
started=$(date +%s)
[ -x "$VENV/bin/python" ] || "$PYTHON" -m venv "$VENV"
rm -f "$VENV/.cocu-stamp"
python=$PWD/$VENV/bin/python
export PIP_DISABLE_PIP_VERSION_CHECK=1

# What a lock names, constraints.txt does not hold at the version of requirements.txt.
awk -F== 'function name(word) { sub(/\[.*/, "", word); gsub(/[_.]/, "-", word); return tolower(word) }
    /^(#|$)/ { next } NR == FNR { named[name($1)]; next } !(name($1) in named)' "$LOCK" constraints.txt > "$VENV/constraints.txt"

# Horovod compiles against torch, so torch comes first; everything builds without isolation.
"$python" -m pip install -q -c "$VENV/constraints.txt" $(lock torch) $(lock numpy) $(lock setuptools) wheel cloudpickle psutil pyyaml packaging cffi

# The wheel fits one torch build and one Python, and is kept outside of the clone for the next one.
torch_version=$("$python" -c 'import torch; print(torch.__version__)')
wheels=${XDG_CACHE_HOME:-$HOME/.cache}/cocu-spark/wheels/torch-$torch_version-$(uname -m)-gcc$(g++ -dumpversion 2>/dev/null || true)
# With GPU operations it is another wheel. Without, GPUs' tensors are exchanged by way of the host's memory.
gpu=(HOROVOD_WITHOUT_NCCL=1)
if command -v nvcc >/dev/null && [ -n "${HOROVOD_NCCL_HOME:-}" ]; then
    gpu=(HOROVOD_GPU_OPERATIONS=NCCL)
    wheels+=-nccl
elif [ -n "$with_horovod" ] && command -v nvcc >/dev/null; then
    echo "  nvcc is here and HOROVOD_NCCL_HOME is not set: Horovod is built without GPU operations"
fi
log=$VENV/horovod-build.log
build_horovod() {
    local scratch
    scratch=$(mktemp -d)
    # Horovod 0.28.1 asks for C++14, the headers of torch 2 for C++17; the flag that comes last counts.
    printf '#!/bin/sh\nexec g++ "$@" -std=c++17\n' > "$scratch/cxx17"
    chmod +x "$scratch/cxx17"
    env HOROVOD_WITH_PYTORCH=1 HOROVOD_WITH_GLOO=1 HOROVOD_WITHOUT_MPI=1 HOROVOD_WITHOUT_TENSORFLOW=1 HOROVOD_WITHOUT_MXNET=1 \
        "${gpu[@]}" CXX="$scratch/cxx17" CXXFLAGS=-w MAKEFLAGS="-j$(nproc)" \
        "$python" -m pip wheel -q --no-deps --no-build-isolation -w "$scratch" $(lock horovod) > "$log" 2>&1
    mkdir -p "$wheels"
    # One rename: a wheel in the cache is a whole one, also when two clones build at once.
    mv "$scratch"/horovod-*.whl "$wheels/"
    rm -rf "$scratch"
}
building=
if [ -n "$with_horovod" ] && ! ls "$wheels"/horovod-*.whl >/dev/null 2>&1; then
    echo "  building Horovod's wheel (kept in $wheels)"
    build_horovod &
    building=$!
fi
grep -vE '^(horovod|torch)==' "$LOCK" > "$VENV/requirements-rest.txt"
"$python" -m pip install -q --no-build-isolation -c "$VENV/constraints.txt" -r "$VENV/requirements-rest.txt"
if [ -n "$building" ]; then
    wait "$building" || fail "Horovod did not build; see $log"
fi
if [ -n "$with_horovod" ]; then
    "$python" -m pip install -q --no-deps "$wheels"/horovod-*.whl
fi
"$python" -m pip install -q --no-deps --no-build-isolation -e .
"$python" -m pip check >/dev/null || "$python" -m pip check
echo "$stamp" > "$VENV/.cocu-stamp"
echo "set up in $(( $(date +%s) - started )) s"

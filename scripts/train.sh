#!/usr/bin/env bash
# Trains with what fits this machine: one process a GPU by horovodrun, or one process without it.
# NP=4 sets the number of processes, HOSTS=a:4,b:4 spreads them over machines.
set -euo pipefail
cd "$(dirname "$0")/.."
gpus=$( (nvidia-smi -L 2>/dev/null || true) | grep -c '^GPU' || true)
NP=${NP:-$(( gpus > 1 ? gpus : 1 ))}
if [ "$NP" -gt 1 ] || [ -n "${HOSTS:-}" ]; then
    exec horovodrun -np "$NP" -H "${HOSTS:-localhost:$NP}" python -m training.train "$@"
fi
exec python -m training.train "$@"

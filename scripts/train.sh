#!/usr/bin/env bash
# Trains with what fits this machine: one process a GPU by horovodrun, or one process without it.
# HOSTS=a:4,b:4 spreads it over machines, a process a slot; NP=4 sets the number of processes.
set -euo pipefail
cd "$(dirname "$0")/.."

refuse() { echo "error: $1" >&2; exit 2; }

cards() { # GPUs that processes here can use
    if [ -n "${CUDA_VISIBLE_DEVICES+set}" ]; then
        tr ',' '\n' <<<"$CUDA_VISIBLE_DEVICES" | awk '/^ *-1/ {exit} /[^ ]/ {n++} END {print n + 0}'
    else
        (nvidia-smi -L 2>/dev/null || true) | grep -c '^GPU' || true
    fi
}

slots() { # sum of the slots of host:slots,host:slots; a host alone has one
    local entry sum=0
    for entry in ${1//,/ }; do
        case $entry in
            *:*) [[ ${entry##*:} =~ ^[1-9][0-9]*$ ]] || refuse "HOSTS=$1: '$entry' must be host:slots, e.g. gpu1:4"
                sum=$((sum + ${entry##*:})) ;;
            *) sum=$((sum + 1)) ;;
        esac
    done
    echo "$sum"
}

gpus=$(cards)
if [ -n "${HOSTS:-}" ]; then
    most=$(slots "$HOSTS")
    [ "$most" -gt 0 ] || refuse "HOSTS=$HOSTS names no host; write host:slots,host:slots"
else
    most=$gpus
fi
NP=${NP:-$((most > 1 ? most : 1))}
[[ $NP =~ ^[1-9][0-9]*$ ]] || refuse "NP=$NP is no number of processes; write e.g. NP=4, or leave it out"
if [ -n "${HOSTS:-}" ] && [ "$NP" -gt "$most" ]; then
    refuse "NP=$NP is more than the $most slots of HOSTS=$HOSTS; name more slots, or leave NP out"
elif [ -z "${HOSTS:-}" ] && [ "$gpus" -gt 0 ] && [ "$NP" -gt "$gpus" ]; then
    refuse "NP=$NP is more than the $gpus GPUs here; write NP=$gpus, or name other machines by HOSTS"
fi
if [ "$NP" -gt 1 ] || [ -n "${HOSTS:-}" ]; then
    exec horovodrun -np "$NP" -H "${HOSTS:-localhost:$NP}" python -m training.train "$@"
fi
exec python -m training.train "$@"

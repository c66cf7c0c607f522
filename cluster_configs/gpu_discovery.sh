#!/usr/bin/env bash
# Tells Spark which GPUs this host has, as {"name": "gpu", "addresses": ["0", "1"]}; none where nvidia-smi is
# missing or sees none. Spark runs it on every worker (spark.worker.resource.gpu.discoveryScript) or executor
# (spark.executor.resource.gpu.discoveryScript). Where CUDA_VISIBLE_DEVICES narrows the view, the addresses
# count what is visible, as CUDA does.
set -uo pipefail
if [ -n "${CUDA_VISIBLE_DEVICES+set}" ]; then
    count=$(tr ',' '\n' <<< "$CUDA_VISIBLE_DEVICES" | grep -c '[^[:space:]]')
    addresses=$(seq 0 $((count - 1)))
else
    addresses=$(nvidia-smi --query-gpu=index --format=csv,noheader 2>/dev/null | grep -E '^[0-9]+$')
fi
printf '{"name": "gpu", "addresses": [%s]}\n' "$(sed 's/.*/"&"/' <<< "$addresses" | grep '[0-9]' | paste -sd, -)"

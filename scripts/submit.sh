#!/usr/bin/env bash
# Submits a job to a cluster with the packed environment; prints the command it runs.
#   scripts/submit.sh KIND DEVICE [JOB] [spark-submit options] -- --config FILE [key=value ...]
# KIND: standalone | yarn | kubernetes; DEVICE: cpu | gpu; JOB: pipeline (default), doctor, embed_images, ...
# standalone and kubernetes need MASTER (spark://host:7077, k8s://https://host:6443).
set -euo pipefail
fail() { echo "error: $*" >&2; exit 2; }
root=$(cd "$(dirname "$0")/.." && pwd)
[ $# -ge 2 ] || fail "scripts/submit.sh KIND DEVICE [JOB] [options] -- --config FILE [key=value ...]"
kind=$1 device=$2
shift 2
conf=$root/cluster_configs/$kind/$device/spark-defaults.conf
[ -f "$conf" ] || fail "no $kind/$device in cluster_configs; there is $(cd "$root/cluster_configs" && echo */*/ | tr -d '\n')"
job=pipeline
case ${1:-} in -* | '') ;; *) job=$1; shift ;; esac
[ -f "$root/spark_jobs/$job.py" ] || fail "no job $job in spark_jobs"
options=()
while [ $# -gt 0 ] && [ "$1" != -- ]; do options+=("$1"); shift; done
[ $# -gt 1 ] || fail "say what to work on after --: -- --config configs/cc3m.yaml workspace=s3a://bucket/cocu"
shift

command=("${SPARK_SUBMIT:-$root/.venv/bin/spark-submit}" --properties-file "$conf")
package=$root/dist
ship=(--archives "$package/environment.tar.gz#environment" --py-files "$package/cocu.zip"
    --conf "spark.pyspark.driver.python=${DRIVER_PYTHON:-$root/.venv/bin/python}")
script=$root/spark_jobs/$job.py
case $kind in
    standalone)
        [ -n "${MASTER:-}" ] || fail "MASTER is not set: MASTER=spark://host:7077"
        command+=(--master "$MASTER" "${ship[@]}")
        ;;
    yarn)
        [ -n "${HADOOP_CONF_DIR:-}${YARN_CONF_DIR:-}" ] || fail "HADOOP_CONF_DIR is not set: the folder with yarn-site.xml"
        command+=("${ship[@]}")
        if [ "$device" = gpu ]; then command+=(--files "$root/cluster_configs/gpu_discovery.sh"); fi
        ;;
    kubernetes)
        [ -n "${MASTER:-}" ] || fail "MASTER is not set: MASTER=k8s://https://host:6443"
        # Environment and code are in the image.
        command+=(--master "$MASTER" --conf "spark.kubernetes.executor.podTemplateFile=$root/cluster_configs/kubernetes/executor-pod.yaml")
        script=local:///opt/cocu/spark_jobs/$job.py
        ;;
    local) command+=(--conf "spark.pyspark.python=${DRIVER_PYTHON:-$root/.venv/bin/python}") ;;
esac
command+=(${options[@]+"${options[@]}"} "$script" "$@")
# Credentials are in the environment, so the command can be shown.
printf '%q ' "${command[@]}"
echo
exec "${command[@]}"

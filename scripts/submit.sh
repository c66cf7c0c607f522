#!/usr/bin/env bash
# Submits a job to a cluster with the packed environment; prints the command it runs.
#   scripts/submit.sh KIND DEVICE [JOB] [--print] [spark-submit options] -- --config FILE [key=value ...]
# KIND: local | standalone | yarn | kubernetes; DEVICE: cpu | gpu; JOB: pipeline (default), doctor, embed_images, ...
# standalone and kubernetes need MASTER (spark://host:7077, k8s://https://host:6443).
# --print runs nothing: every setting that spark-submit would be given, under the file or option that it is from, and
# the command. The output is itself a file for spark-submit --properties-file.
set -euo pipefail
fail() { echo "error: $*" >&2; exit 2; }
root=$(cd "$(dirname "$0")/.." && pwd)
configs=$root/cluster_configs
[ $# -ge 2 ] || fail "scripts/submit.sh KIND DEVICE [JOB] [--print] [options] -- --config FILE [key=value ...]"
kind=$1 device=$2
shift 2
case $kind-$device in
    local-[cg]pu | standalone-[cg]pu | yarn-[cg]pu | kubernetes-[cg]pu) ;;
    *) fail "no $kind/$device in cluster_configs; there is local, standalone, yarn and kubernetes, each cpu and gpu" ;;
esac
job=pipeline
case ${1:-} in -* | '') ;; *) job=$1; shift ;; esac
[ -f "$root/spark_jobs/$job.py" ] || fail "no job $job in spark_jobs"
options=() show=
while [ $# -gt 0 ] && [ "$1" != -- ]; do
    if [ "$1" = --print ]; then show=yes; else options+=("$1"); fi
    shift
done
if [ $# -gt 1 ]; then shift; elif [ -n "$show" ]; then set --; else
    fail "say what to work on after --: -- --config configs/cc3m.yaml workspace=s3a://bucket/cocu"
fi

# The layers, from the general to the particular; the last one that names a setting wins.
layers=("$configs/base.conf")
if [ "$kind" != local ]; then layers+=("$configs/cluster.conf" "$configs/$device.conf"); fi
layers+=("$configs/$kind/spark.conf")
if [ -f "$configs/$kind/$device.conf" ]; then layers+=("$configs/$kind/$device.conf"); fi

needs_master() {
    [ -n "${MASTER:-}" ] || { [ -n "$show" ] && MASTER=$1; } || fail "MASTER is not set: MASTER=$1"
    added+=("spark.master=$MASTER")
}

# An image holds this folder's configs/ and no other file of this machine.
in_the_image() {
    local value=$1 here
    case $value in /opt/cocu/*) echo "$value"; return ;; esac
    here=$(cd "$(dirname "$value")" 2>/dev/null && pwd)/$(basename "$value")
    case $here in "$root"/configs/*) [ -f "$here" ] && { echo "/opt/cocu/configs/${here#"$root"/configs/}"; return; } ;; esac
    fail "--config $value is not in the image: put it into configs/ and build the image again, or name its path there (/opt/cocu/...)"
}

package=$root/dist
python=${DRIVER_PYTHON:-$root/.venv/bin/python}
ship=(--archives "$package/environment.tar.gz#environment" --py-files "$package/cocu.zip")
added=() more=() script=$root/spark_jobs/$job.py arguments=("$@")
case $kind in
    local) added+=("spark.pyspark.python=$python") ;;
    standalone)
        needs_master spark://host:7077
        more=("${ship[@]}") added+=("spark.pyspark.driver.python=$python")
        ;;
    yarn)
        [ -n "${HADOOP_CONF_DIR:-}${YARN_CONF_DIR:-}$show" ] || fail "HADOOP_CONF_DIR is not set: the folder with yarn-site.xml"
        more=("${ship[@]}") added+=("spark.pyspark.driver.python=$python")
        if [ "$device" = gpu ]; then more+=(--files "$configs/gpu_discovery.sh"); fi
        ;;
    kubernetes)
        # Environment and code are in the image.
        needs_master k8s://https://host:6443
        added+=("spark.kubernetes.executor.podTemplateFile=$configs/kubernetes/executor-pod.yaml")
        script=local:///opt/cocu/spark_jobs/$job.py
        for (( at = 0; at < ${#arguments[@]}; at++ )); do
            case ${arguments[at]} in
                --config | -c) if (( at + 1 < ${#arguments[@]} )); then arguments[at + 1]=$(in_the_image "${arguments[at + 1]}"); fi ;;
                --config=*) value=$(in_the_image "${arguments[at]#--config=}"); arguments[at]=--config=$value ;;
            esac
        done
        ;;
esac

# Settings given as options of spark-submit, as key=value.
given() {
    local name
    while [ $# -gt 0 ]; do
        case $1 in
            --conf | -c) echo "${2:-}" ;;
            --conf=*) echo "${1#--conf=}" ;;
            --master) echo "spark.master=${2:-}" ;;
            --deploy-mode) echo "spark.submit.deployMode=${2:-}" ;;
            --name) echo "spark.app.name=${2:-}" ;;
            --driver-memory | --driver-cores | --executor-memory | --executor-cores) name=${1#--}; echo "spark.${name//-/.}=${2:-}" ;;
            --num-executors) echo "spark.executor.instances=${2:-}" ;;
            --total-executor-cores) echo "spark.cores.max=${2:-}" ;;
        esac
        shift
    done
}

# key=value lines of all layers in their order, each as: origin, tab, key, tab, value.
settings() {
    local layer
    for layer in "${layers[@]}"; do
        sed -En "s|^[[:space:]]*([^#[:space:]][^[:space:]=]*)[[:space:]=]+(.*[^[:space:]])[[:space:]]*\$|${layer#"$root"/}\t\1\t\2|p" "$layer"
    done
    printf '%s\n' ${added[@]+"${added[@]}"} | sed -En 's|^([^=]+)=(.*)$|scripts/submit.sh\t\1\t\2|p'
    given ${options[@]+"${options[@]}"} | sed -En 's|^([^=]+)=(.*)$|command line\t\1\t\2|p'
}

# One line a setting, under the origin that won; in the order of the origins.
effective() {
    settings | awk -F'\t' '{ if (!($1 in seen)) { seen[$1] = 1; origins[++n] = $1 }; origin[$2] = $1; value[$2] = $3; if (!($2 in known)) { known[$2] = 1; keys[++m] = $2 } }
        END { for (i = 1; i <= n; i++) { head = 0; for (k = 1; k <= m; k++) if (origin[keys[k]] == origins[i]) {
            if (!head++) print "# " origins[i]; printf "%-44s %s\n", keys[k], value[keys[k]] } } }'
}

# The layers as one file: spark-submit takes one. What is given as an option wins over it.
mkdir -p "$package"
properties=$package/spark-$kind-$device.conf
(options=() added=(); effective) > "$properties.$$"
mv "$properties.$$" "$properties"
command=("${SPARK_SUBMIT:-$root/.venv/bin/spark-submit}" --properties-file "$properties" ${more[@]+"${more[@]}"})
for setting in ${added[@]+"${added[@]}"}; do
    case $setting in spark.master=*) command+=(--master "${setting#*=}") ;; *) command+=(--conf "$setting") ;; esac
done
command+=(${options[@]+"${options[@]}"} "$script" "${arguments[@]}")
if [ -n "$show" ]; then
    effective
    # shellcheck disable=SC2016
    { printf '# %s\n# ' command; printf '%q ' "${command[@]}"; echo; }
    exit 0
fi
# Credentials are in the environment, so the command can be shown.
printf '%q ' "${command[@]}"
echo
exec "${command[@]}"

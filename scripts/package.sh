#!/usr/bin/env bash
# Builds what a cluster needs: dist/environment.tar.gz (the virtual environment, relocatable) for --archives
# and dist/cocu.zip (this project's packages) for --py-files.
#
# Every executor unpacks the archive, so what the Spark jobs do not import stays behind: Spark's own jars
# (executors have theirs), training, evaluation and development tools, headers and tests. PACKAGE=all keeps
# everything except the jars.
set -euo pipefail
cd "$(dirname "$0")/.."
VENV=${VENV:-.venv}
PACKAGE=${PACKAGE:-jobs}
mkdir -p dist
"$VENV/bin/python" scripts/zip_code.py dist/cocu.zip
# The project is installed in place, which means nothing elsewhere: cocu.zip carries the code.
left_out=('*/__editable__*' '*.pyc' '*/pyspark/jars/*' '*/pyspark/examples/*' '*/torch/include/*' '*/torch/test/*'
    '*/torch/bin/protoc*' '*/torch/bin/test_*' '*/torch/bin/*StoreTest')
if [ "$PACKAGE" = jobs ]; then
    for name in transformers tokenizers hf_xet mmcv mmengine mmseg cv2 opencv_python.libs opencv_python_headless.libs \
        tensorboard tensorboard_data_server grpc horovod petastorm zmq pyzmq.libs pytest _pytest xdist execnet moto botocore boto3 s3transfer duckdb webdataset wids ruff pip setuptools \
        pkg_resources wheel sklearn scikit_learn.libs scipy scipy.libs networkx pydantic pydantic_core yapf \
        yapf_third_party tests examples future past libfuturize libpasteurize venv_pack; do
        left_out+=("*/site-packages/$name/*")
    done
    left_out+=('*/bin/ruff' '*/site-packages/_duckdb*' '*/timm/models/_pruned/*')
fi
arguments=()
for pattern in "${left_out[@]}"; do
    arguments+=(--exclude "$pattern")
done
stamp="$(cat "$VENV/.cocu-stamp") $PACKAGE $(sha256sum < scripts/package.sh | cut -c1-12)"
if [ -f dist/environment.tar.gz ] && [ "$(cat dist/environment.stamp 2>/dev/null)" = "$stamp" ]; then
    echo "dist/environment.tar.gz (unchanged)"
    exit 0
fi
rm -f dist/environment.stamp
# Level 1: torch hardly compresses, and every further level costs minutes.
"$VENV/bin/venv-pack" -q -p "$VENV" -o dist/environment.new.tar.gz --force --compress-level 1 "${arguments[@]}"
mv dist/environment.new.tar.gz dist/environment.tar.gz
echo "$stamp" > dist/environment.stamp
echo "dist/environment.tar.gz ($(du -h dist/environment.tar.gz | cut -f1))"

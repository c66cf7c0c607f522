#!/usr/bin/env bash
# Builds what a cluster needs: dist/environment.tar.gz (the virtual environment, relocatable) for --archives
# and dist/cocu.zip (this project's packages) for --py-files.
set -euo pipefail
cd "$(dirname "$0")/.."
VENV=${VENV:-.venv}
mkdir -p dist
rm -f dist/cocu.zip
"$VENV/bin/python" - <<'PY'
import zipfile
from pathlib import Path

folders = ["configs", "curation", "models", "spark_jobs", "training", "evaluation", "demo"]
with zipfile.ZipFile("dist/cocu.zip", "w", zipfile.ZIP_DEFLATED) as archive:
    for folder in folders:
        for file in sorted(Path(folder).rglob("*")):
            if file.is_file() and "__pycache__" not in file.parts:
                archive.write(file)
print("dist/cocu.zip")
PY
stamp=$(cat "$VENV/.cocu-stamp")
if [ -f dist/environment.tar.gz ] && [ "$(cat dist/environment.stamp 2>/dev/null)" = "$stamp" ]; then
    echo "dist/environment.tar.gz (unchanged)"
    exit 0
fi
# Level 1: torch hardly compresses, and every further level costs minutes. The editable install of this
# project points into this folder and stays behind; cocu.zip carries the code.
"$VENV/bin/venv-pack" -q -p "$VENV" -o dist/environment.tar.gz --force --compress-level 1 --exclude '*/__editable__*' --exclude '*.pyc'
echo "$stamp" > dist/environment.stamp
echo "dist/environment.tar.gz ($(du -h dist/environment.tar.gz | cut -f1))"

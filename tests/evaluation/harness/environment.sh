#!/bin/sh
# An environment with lmms-eval and this checkout, and with what golden.py compares metrics to (8 GB with torch for CUDA):
#     sh tests/evaluation/harness/environment.sh DIRECTORY
#     VLMKIT_LMMS=DIRECTORY pytest -n0 -m lmms tests/evaluation
set -e
test -n "$1" || { echo "name a directory for the environment" >&2; exit 2; }
here=$(cd "$(dirname "$0")/../../.." && pwd)
python3 -m venv "$1"
"$1/bin/pip" install "lmms-eval==0.7.3" "filelock<4" -e "$here"  # of filelock it takes a file that 4 has no more
"$1/bin/pip" install --no-deps "anls==0.0.2" "rouge-score==0.1.2" "torchmetrics==1.9.0" lightning-utilities absl-py

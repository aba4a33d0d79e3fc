#!/bin/sh
# An environment with VLMEvalKit, its checkout (run.py is in no package) and this checkout (8 GB with torch for CUDA):
#     sh tests/evaluation/harness/vlmevalkit.sh DIRECTORY
#     VLMKIT_VLMEVALKIT=DIRECTORY pytest -n0 -m vlmevalkit tests/evaluation
set -e
test -n "$1" || { echo "name a directory for the environment" >&2; exit 2; }
here=$(cd "$(dirname "$0")/../../.." && pwd)
python3 -m venv "$1"
git clone https://github.com/open-compass/VLMEvalKit "$1/VLMEvalKit"
git -C "$1/VLMEvalKit" checkout e8e78f05f3080fe28154f2130321f17951c3be94
# It imports rouge_score without asking for it.
"$1/bin/pip" install "$1/VLMEvalKit" rouge_score -e "$here"

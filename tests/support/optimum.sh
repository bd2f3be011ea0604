#!/bin/sh
# `export --exporter optimum` next to the default exporter; optimum is in an environment of its own.
set -eu
BIN=${BIN:-.venv/bin}
PYTHON=${PYTHON:-python3}
FRESH=$PWD/.venv-optimum
WORK=$(mktemp -d)
trap 'rm -rf "$WORK" "$FRESH"' EXIT

"$PYTHON" -m venv "$FRESH"
# An older pip looks for minutes for what fits together.
"$FRESH/bin/pip" install --quiet --disable-pip-version-check --upgrade "pip>=25.1,<27"
"$FRESH/bin/pip" install --quiet --disable-pip-version-check --editable ".[optimum]" \
  optimum-onnx==0.1.0 torch==2.13.0 transformers==4.57.6
PYTHONPATH=tests/support "$BIN/python" tests/support/optimum_main.py make "$WORK"
for exporter in default optimum; do
  bin=$BIN
  [ $exporter = default ] || bin=$FRESH/bin
  "$bin/sentimill" export "$WORK/mine" "$WORK/$exporter" --on "$WORK/held-out.jsonl" --exporter $exporter \
    --precision int8 --precision fp16
done
PYTHONPATH=tests/support "$BIN/python" tests/support/optimum_main.py compare "$WORK"

#!/bin/sh
# `serve --open-inference`, asked by Triton's own client from an environment of its own.
set -eu
BIN=${BIN:-.venv/bin}
PYTHON=${PYTHON:-python3}
FRESH=$PWD/.venv-triton
WORK=$(mktemp -d)
SERVER=
trap 'set +e; kill $SERVER 2>/dev/null; wait; rm -rf "$WORK" "$FRESH"' EXIT

"$PYTHON" -m venv "$FRESH"
"$FRESH/bin/pip" install --quiet --disable-pip-version-check "tritonclient[grpc]==2.73.0"
PYTHONPATH=tests/support "$BIN/python" -c "
import sys
from pathlib import Path
from tiny_bundle import write_tiny_bundle
write_tiny_bundle(Path(sys.argv[1]))
" "$WORK/tiny"
"$BIN/sentimill" serve --bundle "$WORK/tiny" --port 0 --metrics-port 0 --threads 1 --open-inference \
  2>"$WORK/log" &
SERVER=$!
until ADDRESS=$(sed -n 's/^serving .* on //p' "$WORK/log") && [ -n "$ADDRESS" ]; do
  kill -0 $SERVER || { cat "$WORK/log" >&2; exit 1; }
  sleep 0.1
done
"$FRESH/bin/python" tests/support/triton_main.py "$ADDRESS"

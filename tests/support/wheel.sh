#!/bin/sh
# The wheel alone, with the `cpu` extra, in a fresh environment: run time needs no torch.
set -eu
BIN=${BIN:-.venv/bin}
PYTHON=${PYTHON:-python3}
FRESH=$PWD/.venv-wheel
WORK=$(mktemp -d)
trap 'rm -rf "$WORK" "$FRESH"' EXIT

rm -rf "$FRESH" dist
"$BIN/python" -m build --wheel --outdir dist >/dev/null
"$PYTHON" -m venv "$FRESH"
"$FRESH/bin/pip" install --quiet --disable-pip-version-check --constraint constraints.txt "$(ls dist/*.whl)[cpu]"

PYTHONPATH=tests/support "$BIN/python" -c "
import sys
from pathlib import Path
from tiny_bundle import write_tiny_bundle
write_tiny_bundle(Path(sys.argv[1]))
" "$WORK/tiny"

cd "$WORK"
"$FRESH/bin/python" -c "
import importlib.util as u
found = [name for name in ('torch', 'transformers', 'datasets', 'onnx') if u.find_spec(name)]
assert not found, f'the cpu extra brought {found}'
"
ANSWER=$("$FRESH/bin/sentimill" classify "good battery" --bundle tiny)
echo "$ANSWER"
case "$ANSWER" in positive*) ;; *) echo "wheel gave a wrong answer" >&2; exit 1 ;; esac
ANSWER=$("$FRESH/bin/sentimill" classify "It broke after a day and nobody answered my mails.")
echo "$ANSWER"
case "$ANSWER" in negative*) echo "wheel ok" ;; *) echo "the reference gave a wrong answer" >&2; exit 1 ;; esac

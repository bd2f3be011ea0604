#!/bin/sh
# Train, serve, call, score a CSV, look at the metrics. `make demo` runs it.
set -eu
BIN=${BIN:-.venv/bin}
BUNDLE=bundles/demo
export HF_HUB_OFFLINE=1

step() { printf '\n\033[1m%s\033[0m\n' "$*"; }

mkdir -p demo
if [ -f "$BUNDLE/manifest.json" ]; then
  step "1. The trained model is there already: $BUNDLE (remove the folder to train it again)"
else
  step "1. Train the included model on the starter reviews, into $BUNDLE"
  "$BIN/sentimill" train --reviews starter --out "$BUNDLE"
fi
"$BIN/sentimill" bundle verify "$BUNDLE"

step "2. Serve it"
"$BIN/sentimill" serve --bundle "$BUNDLE" --port 0 --metrics-port 0 2>demo/serve.log &
SERVER=$!
trap 'kill $SERVER 2>/dev/null || true' EXIT INT TERM
until grep -q '^metrics on' demo/serve.log; do
  kill -0 $SERVER 2>/dev/null || { cat demo/serve.log >&2; exit 1; }
  sleep 0.2
done
ADDRESS=$(sed -n 's/^serving .* on //p' demo/serve.log)
METRICS=$(sed -n 's/^metrics on //p' demo/serve.log)
echo "$ADDRESS, $METRICS"

step "3. Call it over gRPC"
"$BIN/sentimill" classify --server "$ADDRESS" \
  "The battery died in a week." \
  "Not bad at all, I would buy it again." \
  "It is a kettle. It boils water." \
  "Oh great, another update that breaks everything."

step "4. Score a CSV"
"$BIN/python" -m sentimill_train.data.starter demo/reviews.csv
"$BIN/sentimill" score demo/reviews.csv demo/scored.csv --bundle "$BUNDLE" --overwrite
head -4 demo/scored.csv

step "5. Metrics"
"$BIN/python" - "$METRICS" <<'PY'
import sys
import urllib.request

lines = urllib.request.urlopen(sys.argv[1]).read().decode().splitlines()
wanted = ("sentimill_requests_total", "sentimill_texts_total", "sentimill_useful_tokens_total",
          "sentimill_engine_seconds_sum", "sentimill_model_info")
print("\n".join(line for line in lines if line.startswith(wanted)))
PY

kill -TERM $SERVER
wait $SERVER
trap - EXIT INT TERM
step "Done. Next:"
cat <<NEXT
  $BIN/sentimill classify "Works as promised." --bundle $BUNDLE
  $BIN/sentimill serve --bundle $BUNDLE
  $BIN/sentimill train --reviews your-reviews.csv --out bundles/mine
NEXT

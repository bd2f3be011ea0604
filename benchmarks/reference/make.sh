#!/bin/sh
# Makes the reference student from review sets and labels: `make reference`. Each step is skipped where what it makes is
# there, so a run that was stopped goes on at the step that it was in. About two and a half hours on two cores.
set -eu
BIN=${BIN:-.venv/bin}
DATA=${DATA:?name the folder of review sets: make reference DATA=... PSEUDO=... SUITE=...}
PSEUDO=${PSEUDO:?name the shares of whole reviews: PSEUDO=.../frontier-labels.jsonl}
SUITE=${SUITE:?name the suite whose originals are left out: SUITE=.../imdb_cad_pairs.jsonl.gz}
WORK=${WORK:-bundles/reference-work}
OUT=${OUT:-bundles/reference}

step() { printf '\n\033[1m%s\033[0m\n' "$*"; }

mkdir -p "$WORK"
if [ ! -f "$WORK/mix/held-out.jsonl" ]; then
  step "1. Mix the reviews"
  "$BIN/python" -m benchmarks.reference.mix --data "$DATA" --pseudo "$PSEUDO" --suite "$SUITE" --out "$WORK/mix"
fi
if [ ! -f "$WORK/broad/manifest.json" ]; then
  step "2. Learn all of them, read short"
  "$BIN/sentimill" train --reviews "$WORK/mix/broad.jsonl" "$WORK/mix/held-out.jsonl" --out "$WORK/broad" \
    --base all-MiniLM-L6-v2 --epochs 1 --train-tokens 96 --dropout 0 --train-embeddings --batch-tokens 4096 \
    --learning-rate 1.4e-4 --no-baselines
fi
if [ ! -f "$WORK/trimmed/tokenizer.json" ]; then
  step "3. Keep the words that reviews use"
  "$BIN/sentimill" trim "$WORK/broad" "$WORK/trimmed" --on "$WORK/mix/broad.jsonl" --keep 14000
fi
if [ ! -f "$WORK/fine/manifest.json" ]; then
  step "4. Learn the rows with a teacher's shares again, and a part of the rest, read longer"
  "$BIN/sentimill" train --reviews "$WORK/mix/fine.jsonl" "$WORK/mix/held-out.jsonl" --out "$WORK/fine" \
    --name reference --base "$WORK/trimmed" --epochs 1 --train-tokens 128 --dropout 0 --train-embeddings \
    --batch-tokens 4096 --learning-rate 7e-5 --no-interpolate --no-baselines --notes benchmarks/reference/CARD.md
fi
step "5. Make it small, where it answers as before"
"$BIN/sentimill" export "$WORK/fine" "$OUT" --compact --float-values --on "$WORK/mix/held-out.jsonl"

#!/bin/sh
# Makes the reference student from review sets and labels: `make reference`. Each step is skipped where its result exists,
# so a run that was stopped continues. On one GPU of 2026 the assistant and its answers take minutes, on two CPU cores days:
# without a GPU, start from a student and a file of answers that were made on one (STUDENT=, LOGITS=), which leaves step 5 on.
set -eu
BIN=${BIN:-.venv/bin}
DATA=${DATA:?name the folder of review sets: make reference DATA=... PSEUDO=... SUITE=...}
PSEUDO=${PSEUDO:?name the shares of whole reviews: PSEUDO=.../frontier-labels.jsonl}
SUITE=${SUITE:?name the suite whose originals are left out: SUITE=.../imdb_cad_pairs.jsonl.gz}
HARD_LABELS=${HARD_LABELS:-}                 # more shares by position: .../hard-labels.tsv
own=benchmarks/reference/own
OWN=${OWN-$own/*.jsonl}                      # more texts with shares
PACKAGED=${PACKAGED-starter hard-kinds}      # reviews that come with Sentimill
WORK=${WORK:-bundles/reference-work}
OUT=${OUT:-bundles/reference}
ASSISTANT_BASE=${ASSISTANT_BASE:-all-mpnet-base-v2}
STUDENT_BASE=${STUDENT_BASE:-all-MiniLM-L6-v2}
PIECES=${PIECES:-14000}
ANCHORS=${ANCHORS:-30000}
LOGITS=${LOGITS:-$WORK/logits.parquet}       # the assistant's answers, kept by the hash of the text
STUDENT=${STUDENT:-$WORK/student}            # what step 5 continues
BATCH_TOKENS=${BATCH_TOKENS:-32768}          # of steps 2 and 4
FINE_BATCH_TOKENS=${FINE_BATCH_TOKENS:-2048}
EPOCHS=${EPOCHS:-8}                          # passes of the student over all texts
FINE_EPOCHS=${FINE_EPOCHS:-3}
MAX_TOKENS=${MAX_TOKENS:-256}
HALF=${HALF:-}                               # a folder: also make the half-depth student there
EXPORT=${EXPORT:-$BIN/sentimill export --compact --float-values}

step() { printf '\n\033[1m%s\033[0m\n' "$*"; }
train() { "$BIN/sentimill" train --max-tokens "$MAX_TOKENS" --no-baselines --train-embeddings "$@"; }

mkdir -p "$WORK"
mix="$WORK/mix"
if [ ! -f "$mix/held-out.jsonl" ]; then
  step "1. Put the rows together"
  # shellcheck disable=SC2086 # several files
  "$BIN/python" -m benchmarks.reference.mix --data "$DATA" --pseudo "$PSEUDO" --suite "$SUITE" --out "$mix" \
    --anchors "$ANCHORS" --packaged $PACKAGED ${HARD_LABELS:+--hard-labels "$HARD_LABELS"} ${OWN:+--own $OWN}
fi
if [ ! -d "$STUDENT" ] && [ ! -f "$WORK/assistant/manifest.json" ]; then
  step "2. Train the assistant on labels and shares"
  train --reviews "$mix/assistant.jsonl" "$mix/held-out.jsonl" --out "$WORK/assistant" --base "$ASSISTANT_BASE" \
    --weight-column weight --soft-weight 1 --epochs 2 --learning-rate 4e-5 --batch-tokens "$BATCH_TOKENS"
fi
if [ ! -d "$STUDENT" ] && [ ! -f "$WORK/trimmed/tokenizer.json" ]; then
  step "3. Keep the words that reviews use"
  "$BIN/sentimill" trim "$STUDENT_BASE" "$WORK/trimmed" --on "$mix/texts.jsonl" --keep "$PIECES"
fi
if [ ! -d "$STUDENT" ]; then
  step "4. The student learns the assistant's answers to all texts"
  train --reviews "$mix/texts.jsonl" "$mix/held-out.jsonl" --out "$STUDENT" --base "$WORK/trimmed" \
    --teacher-bundle "$WORK/assistant" --teacher-logits "$LOGITS" --soft-weight 1 --distil-temperature 1 \
    --distil-temperature 2 --epochs "$EPOCHS" --patience "$EPOCHS" --learning-rate 3e-4 --dropout 0 \
    --batch-tokens "$BATCH_TOKENS"
fi
if [ ! -f "$WORK/fine/manifest.json" ]; then
  step "5. It learns the frontier shares and the hard kinds, with anchors, and is blended with the student of step 4"
  train --reviews "$mix/fine.jsonl" "$mix/held-out.jsonl" --out "$WORK/fine" --name reference --base "$STUDENT" \
    --teacher-logits "$LOGITS" --teacher-share 0.25 --soft-weight 1 --distil-temperature 1 --distil-temperature 2 \
    --epochs "$FINE_EPOCHS" --learning-rate 1e-4 --dropout 0 --train-tokens 112 --no-replay --target-error 0.1 \
    --batch-tokens "$FINE_BATCH_TOKENS" --notes benchmarks/reference/CARD.md
fi
if [ -n "$HALF" ] && [ ! -f "$HALF/manifest.json" ]; then
  step "6. Half of its layers learn the answers of the whole"
  train --reviews "$mix/texts.jsonl" "$mix/held-out.jsonl" --out "$HALF" --name reference-small --base "$WORK/fine" \
    --preset minilm-l3 --teacher-bundle "$WORK/fine" --soft-weight 1 --epochs "$EPOCHS" --learning-rate 3e-4 \
    --dropout 0 --batch-tokens "$BATCH_TOKENS"
fi
step "7. Make it small, where it answers as before"
# shellcheck disable=SC2086 # options
$EXPORT "$WORK/fine" "$OUT" --on "$mix/held-out.jsonl"

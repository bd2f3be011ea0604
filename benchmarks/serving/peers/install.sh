#!/bin/sh
# An environment of its own for each peer, from the package index: sh benchmarks/serving/peers/install.sh FOLDER
set -eu
FOLDER=${1:?name a folder for the environments}
PYTHON=${PYTHON:-python3}
# MLServer 1.7.1 asks uvloop for an event loop that newer ones no longer make.
for peer in mosec==0.9.8 litserve==0.2.19 "mlserver==1.7.1 uvloop<0.22" nvidia-pytriton==0.7.0 bentoml==1.4.40 \
  "ray[serve]==2.60.0"; do
  name=$(printf %s "${peer%%=*}" | tr -d "[]") && home=$FOLDER/${name#nvidia-}
  [ -f "$home/.ready" ] && continue
  "$PYTHON" -m venv "$home"
  "$home/bin/pip" install --quiet --disable-pip-version-check onnxruntime tokenizers numpy $peer
  touch "$home/.ready"
done
# Infinity, and transformers' pipeline beside it: optimum 1.24 is the last that they share.
home=$FOLDER/infinity
if [ ! -f "$home/.ready" ]; then
  "$PYTHON" -m venv "$home"
  "$home/bin/pip" install --quiet --disable-pip-version-check torch==2.13.0 onnxruntime \
    "infinity-emb[optimum,server]==0.0.77" optimum==1.24.0 "transformers<4.49" "click<8.2"
  touch "$home/.ready"
fi

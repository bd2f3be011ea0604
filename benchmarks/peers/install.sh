#!/bin/sh
# An environment of its own for each peer, from the package index: sh benchmarks/peers/install.sh FOLDER
set -eu
FOLDER=${1:?name a folder for the environments}
PYTHON=${PYTHON:-python3}
for peer in mosec==0.9.8 litserve==0.2.19 mlserver==1.7.1 nvidia-pytriton==0.7.0 bentoml==1.4.40; do
  name=${peer%%=*} && home=$FOLDER/${name#nvidia-}
  [ -f "$home/.ready" ] && continue
  "$PYTHON" -m venv "$home"
  "$home/bin/pip" install --quiet --disable-pip-version-check onnxruntime tokenizers numpy "$peer"
  touch "$home/.ready"
done

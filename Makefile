# make demo   set up, draw with the models that are included, train on handwritten digits for some minutes
# make test   set up, run the tests
# make lint   style and types
# make bench  speed of training, and of the fused ops, on this machine
# make cuda-check  compile the CUDA kernels for every kind of GPU; needs nvcc, but no GPU
# make venv   set up only: .venv with everything in it
#
# TORCH says which PyTorch to install where there is none. `make venv TORCH=torch` takes the newest.

PYTHON ?= python3
TORCH ?= torch==2.13.0
VENV := .venv
PY := $(VENV)/bin/python
STAMP := $(VENV)/.complete

.PHONY: venv demo test lint bench cuda-check
.DEFAULT_GOAL := test

venv: $(STAMP)

$(STAMP): pyproject.toml .ci/make_venv.py
	@command -v $(PYTHON) >/dev/null || \
		{ echo "Error: no $(PYTHON) here. On Debian or Ubuntu: sudo apt-get install python3 python3-venv python3-pip"; exit 1; }
	@$(PYTHON) .ci/make_venv.py $(VENV) "$(TORCH)"
	@$(PY) -c "from ops.build import available; available('cpu')"
	@touch $@

demo: venv
	@echo "Three models come with the engine. What two of them draw:"
	$(PY) generate.py --network faces64 --seeds 0-31 --outdir out/faces --grid 8x4
	$(PY) generate.py --network digits32 --seeds 0-39 --class 0-9 --outdir out/digits --grid 10x4
	$(PY) style_mixing.py --network faces64 --rows 0-3 --cols 4-9 --styles middle --outdir out/mixed
	@echo; echo "Look at out/faces/grid.png, out/digits/grid.png and out/mixed/grid.png."
	@echo "Now a new one grows before your eyes; its images appear every minute. Ctrl-C ends it whenever you like."
	$(PY) train.py --outdir runs --data mnist --cfg digits32
	@run=$$(ls -td runs/*-mnist-digits32 | head -n 1); \
		echo; echo "The images are in $$run: fakes*.png, and growth.webp shows how they grew."

test: venv
	$(PY) -m pytest

lint: venv
	$(PY) -m ruff check .
	$(PY) -m ruff format --check .
	$(PY) -m mypy

bench: venv
	$(PY) benchmarks/train_step.py --resolution 64 --batch 16
	$(PY) benchmarks/ops.py --seconds 0.5 --shape 16x64x64x64

cuda-check: venv
	$(PY) -m pytest tests/ops/cuda/test_compiles.py -m "" -n 0 -s -q

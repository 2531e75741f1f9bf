# make test: everything that must pass. make demo: the sprite experiment from nothing to its figures.
# make bench: all benchmarks, and the tables and plots of them. All make their own environment in .venv.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
export PATH := $(abspath $(BIN)):$(PATH)

RUN ?= runs/sprites
DEMO_ARGS ?=
BENCH_ARGS ?=
BENCH_THREADS ?= 1 2
# The C++ tests take a third longer to build with kernels for AVX-512, which not every machine can run.
TEST_AVX512 ?= $(shell grep -qs avx512bw /proc/cpuinfo && echo ON || echo OFF)
# TEST_FLAGS="-O1 -g1" has line numbers in what a sanitizer reports, and takes a sixth longer to build.
TEST_FLAGS ?= -O1
CPP := $(wildcard csrc/*/*.h csrc/*/*.cpp csrc/*/*/*.h csrc/*/*/*.cpp csrc/*/*/*.cuh csrc/*/*/*.cu tests/csrc/*.h tests/csrc/*.cpp bench/*.cpp bench/*/*.h bench/*/*.cpp)
PY := causalvae_fast tests bench examples setup.py

.PHONY: env build test lint types test-cpp test-python demo bench gpu scaling format clean

env: $(VENV)/.installed

$(VENV)/.installed: pyproject.toml constraints.txt setup.py
	@echo "installing into $(VENV): one or two minutes"
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --constraint constraints.txt 'setuptools>=77' cmake ninja pybind11
	$(BIN)/pip install --quiet --constraint constraints.txt --no-build-isolation --editable '.[dev]'
	touch $@

# Compiles what changed in csrc/.
build: env
	$(BIN)/python setup.py --quiet build_ext --inplace

test: lint types test-cpp test-python

lint: env
	$(BIN)/ruff check $(PY)
	$(BIN)/ruff format --check $(PY)
	$(BIN)/clang-format --dry-run --Werror $(CPP)

types: env
	$(BIN)/mypy

test-cpp: env
	cmake -S . -B build/tests -G Ninja -DCMAKE_BUILD_TYPE=RelWithDebInfo "-DCMAKE_CXX_FLAGS_RELWITHDEBINFO=$(TEST_FLAGS)" \
	  -DCAUSALVAE_FAST_TESTS=ON -DCAUSALVAE_FAST_SANITIZE=ON -DCAUSALVAE_FAST_PYTHON=OFF -DCAUSALVAE_FAST_CUDA=OFF \
	  -DCAUSALVAE_FAST_AVX512=$(TEST_AVX512)
	cmake --build build/tests
	ctest --test-dir build/tests --parallel 2 --output-on-failure

test-python: build
	$(BIN)/python -m pytest -n 2 --dist worksteal
	$(BIN)/python -m pytest --doctest-modules causalvae_fast

demo: build
	$(BIN)/causalvae-fast train sprites --out $(RUN) --overwrite $(DEMO_ARGS)
	$(BIN)/causalvae-fast evaluate $(RUN)
	$(BIN)/causalvae-fast figures $(RUN)
	$(BIN)/causalvae-fast extrapolate $(RUN)

# JAX and GPyTorch, which only benchmarks need.
$(VENV)/.installed-bench: $(VENV)/.installed
	$(BIN)/pip install --quiet --constraint constraints.txt --no-build-isolation --editable '.[bench]'
	touch $@

# One to two hours for each number of threads. BENCH_ARGS="-k 'sem_kl and float32' --bench-seconds 1" runs a part of it.
# A contender that fails does not keep the others' rows from the report.
bench: build $(VENV)/.installed-bench
	status=0; for threads in $(BENCH_THREADS); do \
	  $(BIN)/python -m pytest bench -q --bench-threads $$threads --benchmark-columns=median,iqr,rounds $(BENCH_ARGS) || status=$$?; \
	done; $(BIN)/python bench/report.py --readme README.md && exit $$status

# On a machine with a CUDA device, in its own environment, without a network.
gpu:
	PYTHON=$(PYTHON) bench/gpu.sh

# Ten to fifteen minutes; goes on where it was interrupted.
scaling: build $(VENV)/.installed-bench
	$(BIN)/python bench/scaling.py

format: env
	$(BIN)/ruff check --fix $(PY)
	$(BIN)/ruff format $(PY)
	$(BIN)/clang-format -i $(CPP)

clean:
	rm -rf $(VENV) build *.egg-info causalvae_fast/*.so

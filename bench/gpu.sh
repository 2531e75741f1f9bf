#!/usr/bin/env bash
# On a machine with a CUDA device, torch, triton, nvcc, cmake, pybind11, ninja and pytest, and no network: builds the
# package in place, runs the GPU tests and compute-sanitizer, then the benchmark; in under nine minutes.
#
#   OUT=folder bench/gpu.sh      # results, bench/results/gpu by default
#
# A step that fails, or takes longer than it may, does not keep the others from running, except for the build. The
# last lines say how each one ended; the exit code is that of the first that failed.
set -uo pipefail
cd "$(dirname "$0")/.."
OUT=${OUT:-bench/results/gpu}
PYTHON=${PYTHON:-python3}
mkdir -p "$OUT"
export PYTHONPATH="$PWD" CAUSALVAE_FAST_CUDA=ON
status=0
summary=""

# step NAME SECONDS COMMAND...: runs it, its output into a file too.
step() {
  local name=$1 limit=$2 start=$SECONDS code
  shift 2
  echo "== $name"
  timeout --kill-after=10 "$limit" "$@" 2>&1 | tee "$OUT/$name.log" | tail -n 25
  code=${PIPESTATUS[0]}
  summary+="$(printf '%-10s %4d s  exit code %d' "$name" $((SECONDS - start)) "$code")"$'\n'
  if [ "$status" -eq 0 ]; then status=$code; fi
  return "$code"
}

if step build 200 "$PYTHON" setup.py --quiet build_ext --inplace; then
  step doctor 60 "$PYTHON" -m causalvae_fast doctor
  step tests 150 "$PYTHON" -m pytest -q -m gpu tests/ops
  if command -v compute-sanitizer > /dev/null; then
    step memcheck 60 compute-sanitizer --tool memcheck --error-exitcode 9 \
      "$PYTHON" -m pytest -q -p no:cacheprovider tests/ops/test_cuda_gpu.py -k "test_reference and B17 and (d5 or d33) and float32"
  else
    summary+="memcheck   left out: there is no compute-sanitizer"$'\n'
  fi
  step benchmark 120 "$PYTHON" bench/gpu_bench.py --out "$OUT/gpu.jsonl"
fi
echo "== summary"
printf '%s' "$summary"
exit "$status"

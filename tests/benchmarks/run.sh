#!/usr/bin/env bash
# All CPU benchmarks, side by side with their peers; about 25 minutes, on a quiet machine.
# Figures are kept in results/benchmarks/cpu.json with machine, versions and commit; of a selection
# (file names as arguments) in selected.json, which is not committed. On a processor with AVX-512
# all runs again without it, into cpu-avx2.json: twice the time.
set -euo pipefail
cd "$(dirname "$0")/../.."
mkdir -p results/benchmarks
kept=cpu
if [ $# -gt 0 ]; then kept=selected; fi

# One warning is lightly's own; the peers' other warnings are not ours to fail on either.
bench() {
  local file=$1
  shift
  "${PYTHON:-python}" -m pytest "${@:-tests/benchmarks}" -m benchmark -s -W default \
    --dist=no --benchmark-enable \
    --benchmark-json "results/benchmarks/$file.json"
}

bench "$kept" "$@"
if grep -qw avx512f /proc/cpuinfo; then
  export ATEN_CPU_CAPABILITY=avx2 DNNL_MAX_CPU_ISA=AVX2 MKL_ENABLE_INSTRUCTIONS=AVX2
  bench "$kept-avx2" "$@"
fi

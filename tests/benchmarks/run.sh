#!/usr/bin/env bash
# All CPU benchmarks, side by side with their peers; about 25 minutes, on a quiet machine.
# Figures are kept in results/benchmarks/cpu.json with machine, versions and commit; of a selection
# (file names as arguments) in selected.json, which is not committed.
set -euo pipefail
cd "$(dirname "$0")/../.."
mkdir -p results/benchmarks
kept=cpu
if [ $# -gt 0 ]; then kept=selected; fi
# One warning is lightly's own; the peers' other warnings are not ours to fail on either.
"${PYTHON:-python}" -m pytest "${@:-tests/benchmarks}" -m benchmark -s -W default \
  --benchmark-json "results/benchmarks/$kept.json"

#!/usr/bin/env bash
# The end-to-end tests on a real one-node SLURM: once with accounting, once without. Needs root.
set -euo pipefail
cd "$(dirname "$0")/../../.."
python=${PYTHON:-python}

slurm/cluster.sh install
trap 'slurm/cluster.sh down' EXIT
eval "$(slurm/cluster.sh env)"
export OMP_NUM_THREADS=1

slurm/cluster.sh up
"$python" -m pytest tests/launch/slurm/test_cluster.py -m slurm
slurm/cluster.sh up --without-accounting
"$python" -m pytest tests/launch/slurm/test_cluster.py -m slurm -k "study or blocks or cancel"

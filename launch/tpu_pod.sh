#!/bin/bash
# Every worker of a TPU pod slice:  launch/tpu_pod.sh NAME ZONE configs/mnist5k.py /mnt/shared/runs/mnist5k
# The last is a folder that all workers share. The clone must be in ~/asvae_jax on each
# worker, with an environment in .venv: python3 -m venv .venv && .venv/bin/pip install '.[samples]' 'jax[tpu]'.
set -euo pipefail
name=$1 zone=$2 config=$3 workdir=$4

# All workers at once: a program on one worker alone waits for the others for ever. JAX_PLATFORMS makes a busy TPU an
# error instead of a slow run on the CPU; exec lets SIGTERM reach Python.
gcloud compute tpus tpu-vm ssh "$name" --zone="$zone" --worker=all --command="
  cd ~/asvae_jax && JAX_PLATFORMS=tpu exec .venv/bin/python -m asvae_jax.main --distributed --expect-platform=tpu --config=$config --workdir=$workdir"

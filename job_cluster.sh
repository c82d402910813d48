#!/usr/bin/env bash
# One run on several nodes: starts Ray on every node that SLURM gives, runs, and ends Ray with the run.
#
#   sbatch --nodes=4 job_cluster.sh model=densenet121 dataset=cifar10 dataset.path=/shared/cifar10 num_clients=100
#   sbatch --nodes=2 --gpus-per-node=4 job_cluster.sh device=cuda client_resources.gpus=0.25 ...
#
# The arguments are those of `tracefl run`. PYTHON names the interpreter (default: .venv/bin/python, else
# python). Submit it from the repository: the checkout, the environment and the runs' folders must be on a file system
# that all nodes share. See docs/cluster.md.
#SBATCH --job-name=tracefl
#SBATCH --nodes=2
#SBATCH --ntasks-per-node=1
#SBATCH --cpus-per-task=8
#SBATCH --time=24:00:00
#SBATCH --signal=B:USR2@300
#SBATCH --output=logs/%x-%j.out
set -euo pipefail

if [ -z "${SLURM_JOB_ID:-}" ]; then
  echo "job_cluster.sh: SLURM_JOB_ID is not set; submit it: sbatch --nodes=2 job_cluster.sh key=value ..." >&2
  exit 2
fi
python=${PYTHON:-.venv/bin/python}
command -v "$python" > /dev/null || python=python
cpus=${SLURM_CPUS_PER_TASK:-1}
nodes=$SLURM_JOB_NUM_NODES
export FLWR_TELEMETRY_ENABLED=0 RAY_USAGE_STATS_ENABLED=0 PYTHONPATH=$PWD/TraceFL${PYTHONPATH:+:$PYTHONPATH}
# Ray answers the processes of this job alone: they inherit the token.
RAY_AUTH_TOKEN=$("$python" -c 'import secrets; print(secrets.token_hex(32))')
export RAY_AUTH_MODE=token RAY_AUTH_TOKEN
export SRUN_CPUS_PER_TASK=$cpus # srun no longer takes it from sbatch

ray() { "$python" -m ray.scripts.scripts "$@"; }

# The job's own ports, so that two jobs on one node do not meet. Nodes with several networks: RAY_HEAD_IP names one.
port=$((20000 + SLURM_JOB_ID % 10000 * 2))
host=${RAY_HEAD_IP:-$(hostname -I | cut -d' ' -f1)}
address=$host:$port
own_ports=(--min-worker-port=0 --max-worker-port=0 --disable-usage-stats)

started=()
# shellcheck disable=SC2329 # the trap calls it
finish() { # Ray runs in the foreground of its steps, so it ends with them
  for step in "${started[@]}"; do kill "$step" 2> /dev/null || true; done
  wait
}
trap finish EXIT

# The script runs on the first node of the job; Ray's head is a step beside it.
srun --overlap --nodes=1 --ntasks=1 --nodelist="$SLURMD_NODENAME" \
  "$python" -m ray.scripts.scripts start --head --block --node-ip-address="$host" --port="$port" \
  --ray-client-server-port=$((port + 1)) --num-cpus="$cpus" --include-dashboard=false "${own_ports[@]}" > /dev/null &
started+=($!)

for _ in $(seq 60); do
  ray status --address "$address" > /dev/null 2>&1 && break
  sleep 1
done

if [ "$nodes" -gt 1 ]; then
  srun --overlap --nodes=$((nodes - 1)) --ntasks=$((nodes - 1)) --exclude="$SLURMD_NODENAME" \
    "$python" -m ray.scripts.scripts start --block --address="$address" --num-cpus="$cpus" \
    "${own_ports[@]}" > /dev/null &
  started+=($!)
fi

nodes_there() {
  "$python" - "$address" 2> /dev/null << 'PYTHON'
import sys

import ray

ray.init(address=sys.argv[1], log_to_driver=False)
print(sum(node["Alive"] for node in ray.nodes()))
PYTHON
}
there=0
for _ in $(seq 60); do
  there=$(nodes_there || echo 0)
  [ "$there" -ge "$nodes" ] && break
  sleep 1
done
if [ "$there" -lt "$nodes" ]; then
  echo "job_cluster.sh: $there of $nodes nodes joined Ray at $address; see the log of the job" >&2
  exit 1
fi
echo "Ray at $address: $there nodes, $cpus CPUs each"

case " $* " in # a requeued job goes on where it was, unless it is told otherwise
  *" resume="*) ;;
  *) set -- resume=true "$@" ;;
esac
# SLURM warns this shell alone (B: above); the run must hear of it too, and be waited for.
"$python" -m tracefl run ray.address="$address" "$@" &
run=$!
trap 'kill -USR2 "$run" 2> /dev/null' USR2
trap 'kill -TERM "$run" 2> /dev/null' TERM
status=0
wait "$run" || status=$?
while kill -0 "$run" 2> /dev/null; do # a trap ends the wait before the run ends
  status=0
  wait "$run" || status=$?
done
exit "$status"

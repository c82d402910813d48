#!/usr/bin/env bash
# Figure 3 of the paper: 60 runs at Dirichlet alpha 0.1 to 1.0. GPT on two sets of texts, DenseNet-121 on four of images;
# 100 clients, 10 a round, 15 rounds.
#
#     bash job_dirichlet_exps.sh [INDEX] [--list | --count | --status | --smoke] [group=choice ...] [key=value ...]
#     sbatch --array=0-59%4 job_dirichlet_exps.sh device=cuda client_resources.gpus=0.1
#
# Runs go on where they stopped. SLURM warns 300 s before the time limit; the run then finishes its round and ends with
# 75: submit again to go on. What sbatch itself is given outdoes these lines: sbatch --gres=gpu:1 --cpus-per-task=16 ...
#SBATCH --job-name=tracefl-dirichlet
#SBATCH --output=logs/%x-%A_%a.out
#SBATCH --open-mode=append
#SBATCH --requeue
#SBATCH --signal=B:USR2@300
#SBATCH --time=24:00:00
#SBATCH --cpus-per-task=2
set -euo pipefail
# The checkout is the working directory: SLURM runs a copy of this file from elsewhere.
if [[ ! -f TraceFL/jobs.sh ]]; then
    echo "tracefl: $PWD is not TraceFL's checkout; cd there first, or give sbatch --chdir=CHECKOUT" >&2
    exit 2
fi
source TraceFL/jobs.sh dirichlet "$@"

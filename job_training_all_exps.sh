#!/usr/bin/env bash
# Figure 2 of the paper: 36 runs. ResNet-18 and DenseNet-121 on four sets of images, GPT and BERT on two of texts, at
# Dirichlet alpha 0.1, 0.2 and 0.3; 100 clients, 10 a round, 25 or 50 rounds.
#
#     bash job_training_all_exps.sh [INDEX] [--list | --count | --status | --smoke] [group=choice ...] [key=value ...]
#     sbatch --array=0-35%4 job_training_all_exps.sh device=cuda client_resources.gpus=0.1
#
# Runs go on where they stopped. SLURM warns 300 s before the time limit; the run then finishes its round and ends with
# 75: submit again to go on. What sbatch itself is given outdoes these lines: sbatch --gres=gpu:1 --cpus-per-task=16 ...
#SBATCH --job-name=tracefl-training
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
source TraceFL/jobs.sh training "$@"

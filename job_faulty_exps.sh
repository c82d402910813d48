#!/usr/bin/env bash
# Table I and Figure 6 of the paper: 18 runs that find a client with flipped labels from the global model's mispredictions,
# beside FedDebug and simpler rules. DenseNet-121 on four sets of images, GPT on two of texts, alpha 0.3, 0.7 and 1.0;
# 10 clients, all taking part, 15 rounds. --extended adds 48 at alpha 0.3, runs 18 to 65: 10, 30 and 50 % of the labels
# flipped, 2 and 3 faulty clients, a backdoor, random labels, a free rider.
#
#     bash job_faulty_exps.sh [INDEX] [--list | --count | --status | --smoke] [--extended] [group=choice ...] [key=value ...]
#     sbatch --array=0-17%4 job_faulty_exps.sh device=cuda client_resources.gpus=0.1
#     sbatch --array=0-65%4 job_faulty_exps.sh --extended device=cuda client_resources.gpus=0.1
#
# Runs go on where they stopped. SLURM warns 300 s before the time limit; the run then finishes its round and ends with
# 75: submit again to go on. What sbatch itself is given outdoes these lines: sbatch --gres=gpu:1 --cpus-per-task=16 ...
#SBATCH --job-name=tracefl-faulty
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
source TraceFL/jobs.sh faulty "$@"

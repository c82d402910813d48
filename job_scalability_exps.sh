#!/usr/bin/env bash
# Table III and Figure 5 of the paper: 10 runs of GPT on DBpedia. 200 to 1,000 clients; 20 to 50 of 400 a round; 100
# rounds.
#
#     bash job_scalability_exps.sh [INDEX] [--list | --count | --status | --smoke] [group=choice ...] [key=value ...]
#     sbatch --array=0-9%4 job_scalability_exps.sh device=cuda client_resources.gpus=0.1
#
# Runs go on where they stopped. SLURM warns 300 s before the time limit; the run then finishes its round and ends with
# 75: submit again to go on. What sbatch itself is given outdoes these lines: sbatch --gres=gpu:1 --cpus-per-task=16 ...
#SBATCH --job-name=tracefl-scalability
#SBATCH --output=logs/%x-%A_%a.out
#SBATCH --open-mode=append
#SBATCH --requeue
#SBATCH --signal=B:USR2@300
#SBATCH --time=48:00:00
#SBATCH --cpus-per-task=2
set -euo pipefail
# The checkout is the working directory: SLURM runs a copy of this file from elsewhere.
if [[ ! -f TraceFL/jobs.sh ]]; then
    echo "tracefl: $PWD is not TraceFL's checkout; cd there first, or give sbatch --chdir=CHECKOUT" >&2
    exit 2
fi
source TraceFL/jobs.sh scalability "$@"

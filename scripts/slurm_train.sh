#!/usr/bin/env bash
# Train one run as a SLURM job that is saved and requeued before its time limit and then resumed.
#
#     sbatch scripts/slurm_train.sh model=ldc3 data=cifar100
#     sbatch --array=0-2 scripts/slurm_train.sh model=ldc3 data=cifar100     # seeds 0, 1 and 2
#     sbatch --time=01:00:00 --gres=gpu:1 scripts/slurm_train.sh ...         # options of sbatch first
#
# docs/clusters.md explains each line and shows a run.

#SBATCH --job-name=lwbench
#SBATCH --ntasks=1
#SBATCH --cpus-per-task=4
#SBATCH --time=04:00:00
#SBATCH --signal=USR1@300
#SBATCH --requeue
#SBATCH --open-mode=append
set -u

most_restarts=${LWBENCH_MOST_RESTARTS:-50}
export SRUN_CPUS_PER_TASK=${SLURM_CPUS_PER_TASK:-1} # srun does not take it from sbatch since 22.05
if [ -n "${SLURM_ARRAY_TASK_ID:-}" ]; then
    set -- "$@" "seed=$SLURM_ARRAY_TASK_ID"
fi

srun lwbench train "$@"
code=$?

# 75: SIGUSR1 arrived, the state is saved and the run is unfinished. Every other code is final.
if [ "$code" -eq 75 ] && [ "${SLURM_RESTART_COUNT:-0}" -lt "$most_restarts" ]; then
    scontrol requeue "$SLURM_JOB_ID"
fi
exit "$code"

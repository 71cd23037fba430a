#!/bin/bash
# Pretrain an encoder on several nodes; the same line again goes on where it stopped, to the same weights.
#
#   sbatch pipelines/slurm/pretrain.sh /shared/stores /shared/runs/base [more arguments of brainmu pretrain]
#
# Five minutes before its time is up SLURM sends SIGUSR1: the run saves itself after the step in hand and has the job queued again. A job that is
# preempted or loses a node is queued again by --requeue, and goes on from the last checkpoint (every save_minutes of the config).
#SBATCH --job-name=brainmu-pretrain
#SBATCH --nodes=2
#SBATCH --ntasks-per-node=4
#SBATCH --gpus-per-node=4
#SBATCH --cpus-per-task=8
#SBATCH --mem=0
#SBATCH --time=24:00:00
#SBATCH --signal=USR1@300
#SBATCH --requeue
#SBATCH --open-mode=append
#SBATCH --output=brainmu-pretrain-%j.log
set -euo pipefail

stores=${1:?"usage: sbatch pretrain.sh STORES OUT [arguments of brainmu pretrain]"}
out=${2:?"the folder for the run is missing"}
shift 2

# One task a GPU: --devices and --nodes must say the same as #SBATCH above.
exec srun --kill-on-bad-exit=1 brainmu pretrain "$stores" --out "$out" --config pretrain/base --resume \
    --nodes "$SLURM_JOB_NUM_NODES" --devices "$SLURM_NTASKS_PER_NODE" --strategy ddp "$@"

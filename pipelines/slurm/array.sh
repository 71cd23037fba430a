#!/bin/bash
# One recording a task of a SLURM array. SOURCES holds a path a line (no header); stores go to OUT/<id>.zarr.
#
#   sbatch --array=1-$(wc -l < sources.txt) pipelines/slurm/array.sh sources.txt /shared/stores [more arguments of brainmu preprocess]
#
# A task that is preempted, killed for memory or runs out of time goes on where it stopped: submit the same line again (with --requeue
# SLURM does so by itself). What is already complete is found so in the time that checksums take.
#SBATCH --job-name=brainmu
#SBATCH --cpus-per-task=4
#SBATCH --mem=4G
#SBATCH --time=04:00:00
#SBATCH --requeue
#SBATCH --open-mode=append
#SBATCH --output=brainmu-%A_%a.log
set -euo pipefail

sources=${1:?"usage: sbatch --array=1-N array.sh SOURCES.txt OUT [arguments of brainmu preprocess]"}
out=${2:?"the folder for the stores is missing"}
shift 2
source=$(sed -n "${SLURM_ARRAY_TASK_ID:?"is set by sbatch --array"}p" "$sources")
[ -n "$source" ] || { echo "$sources has no line $SLURM_ARRAY_TASK_ID" >&2; exit 2; }

# exec: SLURM's signals reach brainmu itself.
exec brainmu preprocess "$source" --out "$out" --jobs "${SLURM_CPUS_PER_TASK:-1}" --quiet "$@"

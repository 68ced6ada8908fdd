#!/bin/bash
# A run on two nodes of Slurm, which ends before its time is up and goes on in the next one, until it is finished:
#   sbatch examples/slurm.sh --model x1_0 --epochs 360 --data /data/imagenet
#SBATCH --job-name=pplcnet
#SBATCH --nodes=2
#SBATCH --ntasks-per-node=1
#SBATCH --gpus-per-node=4
#SBATCH --cpus-per-task=32
#SBATCH --time=24:00:00
#SBATCH --requeue
#SBATCH --open-mode=append
# Two minutes before the end, to this script alone.
#SBATCH --signal=B:USR1@120
set -u

# The job keeps its number when it is queued again, so that the same line begins the run and resumes it. All nodes end
# by themselves: one that has saved, or is done, must not have Slurm kill the others.
srun --ntasks-per-node=1 --kill-on-bad-exit=0 --wait=0 \
    "${PYTHON:-.venv/bin/python}" run_bench.py --nnodes auto --run-name "job-$SLURM_JOB_ID" --resume "$@" &
step=$!

# The run saves its state when it gets the signal, which srun passes on to every node.
time_is_up=0 interrupted=0
trap 'time_is_up=1; interrupted=1; kill -USR1 "$step"' USR1

# A trapped signal ends wait, but not srun.
while
    interrupted=0
    wait "$step"
    code=$?
    ((interrupted))
do :; done

# 75: a checkpoint was saved. A job that somebody cancelled ends with it, too, and stays cancelled.
if ((time_is_up && code == 75)); then
    scontrol requeue "$SLURM_JOB_ID"
fi
exit "$code"

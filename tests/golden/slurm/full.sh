#!/bin/bash

# Parameters
#SBATCH --account=my-project
#SBATCH --array=0-1%2
#SBATCH --chdir=OUT/code/SNAPSHOT
#SBATCH --comment=mto-bench:TOKEN
#SBATCH --cpus-per-task=10
#SBATCH --error=OUT/jobs/%A_%a_0_log.err
#SBATCH --gpus-per-node=4
#SBATCH --job-name=bench-pretrain
#SBATCH --mem=245760MB
#SBATCH --nodes=2
#SBATCH --ntasks-per-node=4
#SBATCH --open-mode=append
#SBATCH --output=OUT/jobs/%A_%a_0_log.out
#SBATCH --partition=gpu
#SBATCH --requeue
#SBATCH --signal=USR2@120
#SBATCH --time=1440
#SBATCH --wckey=submitit

# setup
module load cuda
export PYTHONPATH=OUT/code/SNAPSHOT${PYTHONPATH:+:$PYTHONPATH}

# command
export SUBMITIT_EXECUTOR=slurm
srun --unbuffered --output OUT/jobs/%A_%a_%t_log.out --error OUT/jobs/%A_%a_%t_log.err --cpus-per-task=10 --kill-on-bad-exit=1 PYTHON -u -m submitit.core._submit OUT/jobs


# teardown
code=$?
ended=OUT/jobs/TOKEN"${SLURM_ARRAY_TASK_ID:+_$SLURM_ARRAY_TASK_ID}.exit"
echo "$code" >> "$ended"
if [ "$code" -eq 137 ] || [ "$code" -eq 140 ]; then
  if [ "$(grep -cx -e 137 -e 140 "$ended")" -le 2 ]; then
    for try in $(seq 30); do scontrol requeue "$SLURM_JOB_ID" && sleep 60; sleep 10; done
  fi
fi
exit "$code"
#!/bin/bash

# Parameters
#SBATCH --account=my-project
#SBATCH --array=0-1%2
#SBATCH --chdir=OUT/code/SNAPSHOT
#SBATCH --comment=mto-bench:TOKEN
#SBATCH --cpus-per-task=10
#SBATCH --dependency=aftercorr:100
#SBATCH --error=OUT/jobs/%A_%a_0_log.err
#SBATCH --gpus-per-node=4
#SBATCH --job-name=bench-cell
#SBATCH --kill-on-invalid-dep=yes
#SBATCH --mem=245760MB
#SBATCH --nodes=2
#SBATCH --ntasks-per-node=4
#SBATCH --open-mode=append
#SBATCH --output=OUT/jobs/%A_%a_0_log.out
#SBATCH --partition=gpu
#SBATCH --requeue
#SBATCH --signal=USR2@120
#SBATCH --time=720
#SBATCH --wckey=submitit

# setup
module load cuda
export PYTHONPATH=OUT/code/SNAPSHOT${PYTHONPATH:+:$PYTHONPATH}

# command
export SUBMITIT_EXECUTOR=slurm
srun --unbuffered --output OUT/jobs/%A_%a_%t_log.out --error OUT/jobs/%A_%a_%t_log.err --cpus-per-task=10 --kill-on-bad-exit=1 PYTHON -u -m submitit.core._submit OUT/jobs


# teardown
code=$?
ended=OUT/jobs/TOKEN"${SLURM_ARRAY_TASK_ID:+_$SLURM_ARRAY_TASK_ID}.exit"
echo "$code" >> "$ended"
if [ "$code" -eq 137 ] || [ "$code" -eq 140 ]; then
  if [ "$(grep -cx -e 137 -e 140 "$ended")" -le 2 ]; then
    for try in $(seq 30); do scontrol requeue "$SLURM_JOB_ID" && sleep 60; sleep 10; done
  fi
fi
exit "$code"
#!/bin/bash

# Parameters
#SBATCH --account=my-project
#SBATCH --chdir=OUT/code/SNAPSHOT
#SBATCH --comment=mto-bench:TOKEN
#SBATCH --cpus-per-task=10
#SBATCH --dependency=afterany:100:101
#SBATCH --error=OUT/jobs/%j_0_log.err
#SBATCH --job-name=bench-report
#SBATCH --mem=8192MB
#SBATCH --nodes=1
#SBATCH --ntasks-per-node=1
#SBATCH --open-mode=append
#SBATCH --output=OUT/jobs/%j_0_log.out
#SBATCH --partition=gpu
#SBATCH --requeue
#SBATCH --signal=USR2@60
#SBATCH --time=60
#SBATCH --wckey=submitit

# setup
module load cuda
export PYTHONPATH=OUT/code/SNAPSHOT${PYTHONPATH:+:$PYTHONPATH}

# command
export SUBMITIT_EXECUTOR=slurm
srun --unbuffered --output OUT/jobs/%j_%t_log.out --error OUT/jobs/%j_%t_log.err --cpus-per-task=10 --kill-on-bad-exit=1 PYTHON -u -m submitit.core._submit OUT/jobs


# teardown
code=$?
ended=OUT/jobs/TOKEN"${SLURM_ARRAY_TASK_ID:+_$SLURM_ARRAY_TASK_ID}.exit"
echo "$code" >> "$ended"
if [ "$code" -eq 137 ] || [ "$code" -eq 140 ]; then
  if [ "$(grep -cx -e 137 -e 140 "$ended")" -le 2 ]; then
    for try in $(seq 30); do scontrol requeue "$SLURM_JOB_ID" && sleep 60; sleep 10; done
  fi
fi
exit "$code"
#!/usr/bin/env bash
# Run slurm_train.sh on a SLURM of this machine until its time limit has stopped a run, which is requeued,
# resumed and finished, and compare the run with one that nothing stopped. Takes about five minutes.
#
#     bash scripts/slurm_demo.sh             needs what slurm_local.sh needs
set -euo pipefail

here=$(cd "$(dirname "$0")" && pwd)
[[ ${SLURM_CONF:-} == /tmp/lwbench-slurm.* ]] || exec bash "$here/slurm_local.sh" bash "$0"
work=$(mktemp -d /tmp/lwbench-demo.XXXXXX)
trap 'rm -rf "$work"' EXIT
run=(model=ldc3 epochs=50)
export OMP_NUM_THREADS=1 LWBENCH_MOST_RESTARTS=8
mkdir "$work"/{jobs,plain}
cd "$work/jobs"
begin=$SECONDS
options=(--parsable --time=2 --signal=USR1@50 --cpus-per-task=1)
first=$(sbatch "${options[@]}" --output=train.log "$here/slurm_train.sh" "${run[@]}")
next=$(sbatch --parsable --kill-on-invalid-dep=yes --dependency="afterok:$first" --output=eval.log \
    --wrap 'exec srun lwbench eval run=$(dirname outputs/digits/ldc3/*/result.json)')
echo "\$ sbatch ${options[*]:1} scripts/slurm_train.sh ${run[*]}"
last=
while squeue -h -j "$first,$next" -t PENDING,RUNNING,COMPLETING | grep -q .; do
    now=$(scontrol -o show job "$first" | grep -oE '(JobState|Restarts|ExitCode)=[^ ]*' | tr '\n' ' ')
    if [ "$now" != "$last" ]; then echo "$((SECONDS - begin)) s: $now" && last=$now; fi
    sleep 1
done
for job in "$first" "$next"; do
    scontrol -o show job "$job" | grep -oE '(JobId|JobState|Restarts|ExitCode)=[^ ]*' | tr '\n' ' '
    echo
done
echo "--- the training's output"
cat train.log
echo "--- the output of the job that waited for it"
cat eval.log

lwbench train "${run[@]}" out=../plain >/dev/null
columns() { cut -d, -f1-7 "$1"/digits/ldc3/*/metrics.csv; } # the last ones are times
diff <(columns outputs) <(columns ../plain)
echo "--- equal to the run that nothing stopped: metrics.csv but for times"

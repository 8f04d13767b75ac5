#!/usr/bin/env bash
# Run slurm_train.sh on a SLURM of one node until its time limit has stopped a run, which is requeued,
# resumed and finished, and compare the run with one that nothing stopped. Takes about five minutes.
#
#     bash scripts/slurm_demo.sh             needs root, and: apt-get install slurm-wlm munge
#
# Everything is in a temporary folder and listens on the loopback only; all of it is stopped at the end.
set -euo pipefail

scripts=$(cd "$(dirname "$0")" && pwd)
work=$(mktemp -d /tmp/lwbench-slurm.XXXXXX)
host=$(hostname -s)
run=(model=ldc3 epochs=50)
export SLURM_CONF=$work/slurm.conf OMP_NUM_THREADS=1 LWBENCH_MOST_RESTARTS=8
mkdir "$work"/{log,state,spool,jobs,plain}
chmod 755 "$work" # munged asks for a socket that every user can reach
cd "$work"

stop() {
    scancel --me 2>/dev/null || true
    for _ in $(seq 20); do # a job's processes would outlive the daemons
        jobs=$(squeue -h 2>/dev/null) && [ -n "$jobs" ] || break
        sleep 1
    done
    for name in slurmd slurmctld munged; do
        if [ -f "$work/$name.pid" ]; then kill "$(cat "$work/$name.pid")" || true; fi
    done
    sleep 1
    cd / && rm -rf "$work"
}
trap stop EXIT

cat >slurm.conf <<CONF
ClusterName=lwbench
SlurmctldHost=$host(127.0.0.1)
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
AuthInfo=socket=$work/munge.sock,cred_expire=5
CommunicationParameters=NoCtldInAddrAny,NoInAddrAny
ProctrackType=proctrack/pgid
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
SchedulerType=sched/backfill
SchedulerParameters=sched_interval=2,bf_interval=2
ReturnToService=2
MpiDefault=none
JobRequeue=1
KillWait=5
MinJobAge=600
StateSaveLocation=$work/state
SlurmdSpoolDir=$work/spool
SlurmctldPidFile=$work/slurmctld.pid
SlurmdPidFile=$work/slurmd.pid
SlurmctldLogFile=$work/log/slurmctld.log
SlurmdLogFile=$work/log/slurmd.log
NodeName=$host NodeAddr=127.0.0.1 CPUs=$(nproc) State=UNKNOWN
PartitionName=main Nodes=ALL Default=YES MaxTime=60 State=UP
CONF
(umask 077 && head -c 128 /dev/urandom >munge.key)
munged --socket="$work/munge.sock" --key-file="$work/munge.key" --pid-file="$work/munged.pid" \
    --log-file="$work/log/munged.log" --seed-file="$work/munge.seed"
slurmctld -f "$SLURM_CONF"
slurmd -f "$SLURM_CONF"
for _ in $(seq 30); do
    sinfo -h -o %T 2>/dev/null | grep -q idle && break
    sleep 1
done
if ! sinfo -h -o %T | grep -q idle; then tail "$work"/log/* >&2 && exit 1; fi

cd jobs
begin=$SECONDS
options=(--parsable --time=2 --signal=USR1@50 --cpus-per-task=1)
first=$(sbatch "${options[@]}" --output=train.log "$scripts/slurm_train.sh" "${run[@]}")
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

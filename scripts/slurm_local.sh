#!/usr/bin/env bash
# Start a SLURM of two nodes on this machine, run a command in it, and stop it.
#
#     bash scripts/slurm_local.sh lwbench train -m model=mb0 epochs=2 seed=0,1 launcher=slurm
#     bash scripts/slurm_local.sh             the proof: 12 runs, time limits, a node set down
#
# Needs root, and: apt-get install slurm-wlm munge. Everything is in a temporary folder and listens on
# the loopback only; all of it is stopped at the end, after LIMIT seconds (900) at the latest.
set -euo pipefail

work=$(mktemp -d /tmp/lwbench-slurm.XXXXXX)
host=$(hostname -s)
export SLURM_CONF=$work/slurm.conf OMP_NUM_THREADS=1
mkdir "$work"/{log,state,spool-n1,spool-n2}
chmod 755 "$work" # munged asks for a socket that every user can reach

stop() {
    trap '' INT TERM
    scancel --me 2>/dev/null || true
    for _ in $(seq 20); do # a job's processes would outlive the daemons
        jobs=$(squeue -h 2>/dev/null) && [ -n "$jobs" ] || break
        sleep 1
    done
    for name in slurmd-n1 slurmd-n2 slurmctld munged; do
        if [ -f "$work/$name.pid" ]; then kill "$(cat "$work/$name.pid")" || true; fi
    done
    sleep 1
    rm -rf "$work"
}
trap stop EXIT

cat >"$SLURM_CONF" <<CONF
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
SlurmdTimeout=10
StateSaveLocation=$work/state
SlurmdSpoolDir=$work/spool-%n
SlurmctldPidFile=$work/slurmctld.pid
SlurmdPidFile=$work/slurmd-%n.pid
SlurmctldLogFile=$work/log/slurmctld.log
SlurmdLogFile=$work/log/slurmd-%n.log
NodeName=n1 NodeHostname=$host NodeAddr=127.0.0.1 Port=17001 CPUs=1 RealMemory=4000 State=UNKNOWN
NodeName=n2 NodeHostname=$host NodeAddr=127.0.0.1 Port=17002 CPUs=1 RealMemory=4000 State=UNKNOWN
PartitionName=main Nodes=ALL Default=YES MaxTime=60 State=UP
CONF
(umask 077 && head -c 128 /dev/urandom >"$work/munge.key")
munged --socket="$work/munge.sock" --key-file="$work/munge.key" --pid-file="$work/munged.pid" \
    --log-file="$work/log/munged.log" --seed-file="$work/munge.seed"
slurmctld -f "$SLURM_CONF"
slurmd -f "$SLURM_CONF" -N n1
slurmd -f "$SLURM_CONF" -N n2
for _ in $(seq 30); do
    [ "$(sinfo -h -N -o %T 2>/dev/null | grep -c idle)" = 2 ] && break
    sleep 1
done
if [ "$(sinfo -h -N -o %T | grep -c idle)" != 2 ]; then tail "$work"/log/* >&2 && exit 1; fi

if [ $# -gt 0 ]; then
    code=0
    timeout --foreground "${LIMIT:-900}" "$@" || code=$?
    exit "$code"
fi

# The proof
lwbench() { timeout --foreground "${LIMIT:-900}" python -m lwbench "$@"; }
mkdir "$work/jobs" && cd "$work/jobs"
cat >mine.yaml <<'TABLE'
source: a study of 12 runs
columns: {top1: {kind: top1, data: digits}}
rows:
  - {label: mb0, run: model=mb0 epochs=2}
  - {label: mb0 64, run: model=mb0 epochs=2 batch_size=64}
  - {label: mb0 256, run: model=mb0 epochs=2 batch_size=256}
  - {label: mb0 fast, run: model=mb0 epochs=2 optimizer.lr=0.02}
  - {label: mb0 slow, run: model=mb0 epochs=2 optimizer.lr=0.01}
  - {label: long, run: model=ldc0 epochs=LONG}
TABLE
sed -i "s/LONG/${LONG:-14}/" mine.yaml
study=(table=mine.yaml seeds=2)
slurm=(launcher=slurm launcher.time=1 launcher.signal_before=12)

set_down() { # a node, as soon as a run is finished while others are being made
    until [ "$(find outputs -name result.json 2>/dev/null | wc -l)" -ge "${AFTER:-3}" ]; do sleep 1; done
    scontrol update nodename=n1 state=down reason=proof && echo "--- node n1 was set down"
    sleep 12
    # a node that answers may have come back by itself, and resuming it is then an error
    scontrol update nodename=n1 state=resume 2>/dev/null || true
}
set_down &
lwbench reproduce "${study[@]}" "${slurm[@]}" launcher.wait=false >submitted.txt
grep -E "^(#|[0-9]+ runs|submitted)" submitted.txt
lwbench reproduce "${study[@]}" "${slurm[@]}"
wait

echo "--- starts of each run"
for file in outputs/digits/*/*/env.json; do
    starts=$(grep -c '"started"' "$file")
    echo "$starts $(dirname "$file")"
done | sort -rn
echo "--- asked again"
lwbench reproduce "${study[@]}" "${slurm[@]}" | grep -E "^(#|[0-9]+ runs|submitted)"
lwbench table table=mine.yaml format=csv >slurm.csv
mkdir ../plain && cp mine.yaml ../plain # the table names the runs' directories
(cd ../plain && lwbench reproduce "${study[@]}" >/dev/null)
(cd ../plain && lwbench table table=mine.yaml format=csv) >plain.csv
diff slurm.csv plain.csv
columns() { for file in "$1"/digits/*/*/metrics.csv; do cut -d, -f1-7 "$file"; done; } # without times
diff <(columns outputs) <(cd ../plain && columns outputs)
cat slurm.csv
echo "--- equal to the table and the metrics of the runs that were made locally"

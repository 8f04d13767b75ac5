#!/usr/bin/env bash
# Start a SLURM of two nodes on this machine, run a command in it, and stop it.
#
#     bash scripts/slurm_local.sh lwbench train -m model=mb0 epochs=2 seed=0,1 launcher=slurm
#
# Needs root, and: apt-get install slurm-wlm munge. SLURM's files are in a temporary folder and it
# listens on the loopback only; it is stopped at the end, after LIMIT seconds (1800) at the latest.
set -euo pipefail

if [ $# = 0 ]; then sed -n '2,/^set/s/^# \{0,1\}//p' "$0" >&2 && exit 2; fi

# its ports are fixed: another one waits
[ -n "${LWBENCH_LOCKED:-}" ] || LWBENCH_LOCKED=1 exec flock -o /tmp/lwbench-slurm.lock bash "$0" "$@"

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

code=0
timeout --foreground "${LIMIT:-1800}" "$@" || code=$?
exit "$code"

#!/usr/bin/env bash
# Make a study of 12 runs on a SLURM of two nodes, one of which is set down meanwhile, while two runs
# are longer than the time limit; compare its table and its metrics with those of local runs.
#
#     bash scripts/slurm_study.sh             takes about ten minutes; needs what slurm_local.sh needs
set -euo pipefail

here=$(cd "$(dirname "$0")" && pwd)
[[ ${SLURM_CONF:-} == /tmp/lwbench-slurm.* ]] || exec bash "$here/slurm_local.sh" bash "$0"
work=$(mktemp -d /tmp/lwbench-study.XXXXXX)
trap 'rm -rf "$work"' EXIT
lwbench() { python -m lwbench "$@"; }
export OMP_NUM_THREADS=1

# A job has 60 to 90 s before the signal: the long runs train for about 120 s.
lwbench train model=ldc0 epochs=1 "out=$work/timed" >/dev/null
long=$(python -c 'import json, sys; print(5 + int(120 / json.load(open(sys.argv[1]))["seconds"]))' \
    "$work"/timed/digits/ldc0/*/result.json)
mkdir "$work"/{cluster,plain}
cd "$work/cluster"
cat >mine.yaml <<TABLE
source: a study of 12 runs
columns: {top1: {kind: top1, data: digits}}
rows:
  - {label: mb0, run: model=mb0 epochs=2}
  - {label: mb0 64, run: model=mb0 epochs=2 batch_size=64}
  - {label: mb0 256, run: model=mb0 epochs=2 batch_size=256}
  - {label: mb0 fast, run: model=mb0 epochs=2 optimizer.lr=0.02}
  - {label: mb0 slow, run: model=mb0 epochs=2 optimizer.lr=0.01}
  - {label: long, run: model=ldc0 epochs=$long}
TABLE
cp mine.yaml ../plain
study=(table=mine.yaml seeds=2)
slurm=(launcher=slurm launcher.time=2 launcher.signal_before=30)

set_down() { # a node, as soon as three runs are finished while others are being made
    until [ "$(find outputs -name result.json 2>/dev/null | wc -l)" -ge 3 ]; do sleep 1; done
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
    echo "$(grep -c '"started"' "$file") $(dirname "$file")"
done | sort -rn
echo "--- asked again"
lwbench reproduce "${study[@]}" "${slurm[@]}" | grep -E "^(#|[0-9]+ runs|submitted)"
lwbench table table=mine.yaml format=csv >slurm.csv
cd ../plain # the table names the runs' directories
lwbench reproduce "${study[@]}" jobs=2 >/dev/null
lwbench table table=mine.yaml format=csv >plain.csv
diff ../cluster/slurm.csv plain.csv
columns() { for file in outputs/digits/*/*/metrics.csv; do cut -d, -f1-7 "$file"; done; } # no times
diff <(cd ../cluster && columns) <(columns)
cat plain.csv
echo "--- equal to the table and the metrics of the runs that were made locally"
stopped=$(grep -l "exit code 75" ../cluster/outputs/.slurm/*/*.log | wc -l)
echo "--- $stopped runs were stopped before the time limit, requeued and resumed"
[ "$stopped" -ge 2 ]

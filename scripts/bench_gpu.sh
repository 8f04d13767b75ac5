#!/usr/bin/env bash
# Verify and measure lwbench on a GPU within a time limit, and leave results that can be committed.
#
#     scripts/bench_gpu.sh [minutes=25] [device=cuda] [dry=false] [out=outputs]
#
# In this order: the tests marked `gpu`; train steps against a plain PyTorch loop; as many cells of
# ldc/4, CIFAR-10 at 224 px, as fit. Runs that are not finished in time are saved, and the same
# command resumes them. Left under <out>/measured: finished runs and gpu/ with what was printed.
# dry=true: the same steps in small sizes (digits at 32 px), also with device=cpu. Not yet run on a GPU.
set -u

minutes=25 device=cuda dry=false out=outputs
for word in "$@"; do
  case $word in
  minutes=*[!0-9]* | minutes=) echo "$word: minutes must be a whole number" >&2; exit 2 ;;
  minutes=* | device=* | dry=true | dry=false | out=?*) declare "$word" ;;
  *) echo "$word: known are minutes=, device=, dry=true|false and out=" >&2; exit 2 ;;
  esac
done
here=$(cd "$(dirname "$0")/.." && pwd)
python=${PYTHON:-python}
end=$((SECONDS + 60 * minutes))
results=$out/measured/gpu
mkdir -p "$results" || exit 2

# left SECONDS: what is left of the time, at most SECONDS, at least 1
left() {
  local rest=$((end - SECONDS - 15)) # the last seconds are for the archive
  ((rest < 1)) && rest=1
  ((rest > $1)) && rest=$1
  echo "$rest"
}

{
  date -u +%FT%TZ
  git -C "$here" rev-parse HEAD 2>/dev/null
  nvidia-smi --query-gpu=name,driver_version --format=csv,noheader 2>/dev/null || echo "no GPU"
} >"$results/machine.txt"
if [ "$device" != cpu ] && ! "$python" -c "import sys, torch; sys.exit(not torch.cuda.is_available())"; then
  echo "no GPU is available; device=cpu dry=true tries the script" >&2
  exit 2
fi

echo "== tests marked gpu"
timeout "$(left 300)" "$python" -m pytest -q -m gpu "$here/tests/test_cuda_graph.py" \
  "$here/tests/test_deform.py" "$here/tests/test_pipeline.py" 2>&1 | tail -n 40 | tee "$results/tests.txt"

echo "== train steps"
tiny=()
[ $dry = true ] && tiny=(--tiny)
timeout "$(left 420)" "$python" "$here/scripts/gpu_steps.py" --device "$device" "${tiny[@]}" |
  tee "$results/steps.jsonl"

echo "== cells of ldc/4"
command=(reproduce table=ldc/4 columns=cifar10_top1 seeds=1)
[ $dry = true ] && command=(train -m model=mb0,ldc0 data=digits epochs=1)
# SIGTERM: the runs are saved, and the same command resumes them; SIGKILL only if that hangs
timeout -k 10 "$(left 86400)" "$python" -m lwbench "${command[@]}" "device=$device" "out=$out" 2>&1 |
  tail -n 60 | tee "$results/cells.txt"

"$python" "$here/scripts/archive.py" "$out"
echo "results: $results and $out/measured; took $((SECONDS / 60)) min $((SECONDS % 60)) s"

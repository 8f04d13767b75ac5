#!/usr/bin/env bash
# The deformable stem's own table of docs/deployment.md: conv, DC and LDC at equal width.
# The layer alone (3 -> 16 channels, 3 x 3, stride 2) and the networks, at 224 px, batch 1, one thread.
#
#     scripts/stem_latency.sh [key=value ...]        such as seconds=60 or out=outputs/measured
set -euo pipefail
here=$(dirname "$0")
runtimes=runtime=eager,compile,onnx
python -m lwbench bench model=file model.path="$here/stems.py" model.function=stem model.stem=conv,dc,ldc $runtimes "$@"
python -m lwbench bench model=mb0,dc0,ldc0 $runtimes "$@"

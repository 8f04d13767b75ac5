#!/usr/bin/env bash
# Real runs under random signals until the time is over, then compared with undisturbed ones.
#
#     bash scripts/soak.sh                     ten minutes
#     bash scripts/soak.sh --minutes 1 --seed 7
exec python "$(dirname "$0")/soak.py" "$@"

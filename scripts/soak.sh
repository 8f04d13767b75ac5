#!/usr/bin/env bash
# Send random signals to real runs for some minutes, then compare the runs with undisturbed ones.
#
#     bash scripts/soak.sh                     ten minutes
#     bash scripts/soak.sh --minutes 1 --seed 7
exec python "$(dirname "$0")/soak.py" "$@"

#!/usr/bin/env bash
# Reproduce every published table, one line each: train the missing runs, then print the table.
# Tables without accuracies are only counted. Data sets are downloaded, except ImageNet (data.root=).
#
#     bash scripts/tables.sh dry_run=true      what would run
#     bash scripts/tables.sh jobs=2 seeds=3    everything; it takes very long, so run single lines
set -u

lwbench reproduce table=dcnn/5-2 "$@"
lwbench reproduce table=dcnn/5-3 "$@"
lwbench reproduce table=dcnn/5-10 "$@"
lwbench table table=dcnn/5-11
lwbench table table=dcnn/5-12
lwbench table table=dcnn/5-13
lwbench table table=hsnet/1
lwbench reproduce table=hsnet/2 "$@"
lwbench reproduce table=hsnet/3 "$@"
lwbench reproduce table=hsnet/4 "$@"
lwbench reproduce table=hsnet/5 "$@"
lwbench reproduce table=ldc/4 "$@"
lwbench reproduce table=mbv1/resolution "$@"
lwbench reproduce table=mbv1/width "$@"
lwbench reproduce table=resmb/2 "$@"
lwbench reproduce table=resmb/3 "$@"
lwbench reproduce table=resmb/4 "$@"

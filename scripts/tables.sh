#!/usr/bin/env bash
# Every published table with one line: the missing runs, then the table. Lines without accuracies
# only count. Data sets: data.root=..., or downloaded (ImageNet: see conf/data/imagenet.yaml).
#
#     bash scripts/tables.sh dry_run=true      what would run
#     bash scripts/tables.sh jobs=2 seeds=3    all of it; a line at a time is wiser
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

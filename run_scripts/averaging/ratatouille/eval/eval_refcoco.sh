#!/usr/bin/env bash
# Finds the boxes of the expressions of RefCOCO+ with ratatouille's average, and scores them.
#
# usage: bash run_scripts/averaging/ratatouille/eval/eval_refcoco.sh [KEY=VALUE ...]
#   The settings are those of run_scripts/refcoco/eval/eval_refcoco.sh.
CHECKPOINT=${CHECKPOINT:-logs/ofa/pretrained_models/average_models/refcocoplus_ratacapsnlivqagroundofapt.pt}
RESULTS=${RESULTS:-results/refcocoplus_ratatouille}
ACC_THRESH=${ACC_THRESH:-0.5}
AREAS=${AREAS-}
source "$(dirname "${BASH_SOURCE[0]}")/../../../refcoco/eval/eval_refcocoplus.sh"

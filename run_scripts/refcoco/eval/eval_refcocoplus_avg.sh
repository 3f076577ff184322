#!/usr/bin/env bash
# Finds the boxes of the RefCOCO+ validation expressions with averages of two models at several weights.
#
# usage: bash run_scripts/refcoco/eval/eval_refcocoplus_avg.sh [KEY=VALUE ...]
#   CHECKPOINT    the averages, separated by commas; the other settings are those of
#                 run_scripts/refcoco/eval/eval_refcoco.sh
DATASET=refcocoplus
DATA=${DATA:-data/ofa/${DATASET}_data/${DATASET}_val.tsv}
CHECKPOINT=${CHECKPOINT:-$(printf "logs/ofa/pretrained_models/average_models/avg_postfuse_refvqa_l%s.pt," 0.{00,20,40,60,80} 1.00)}
RESULTS=${RESULTS:-results/${DATASET}_avg}
AREAS=${AREAS-}
source "$(dirname "${BASH_SOURCE[0]}")/eval_refcoco.sh"

#!/usr/bin/env bash
# Finds the boxes of the expressions of RefCOCO+, as run_scripts/refcoco/eval/eval_refcoco.sh, whose settings it has.
#
# usage: bash run_scripts/refcoco/eval/eval_refcocoplus.sh [KEY=VALUE ...]
DATASET=refcocoplus
CHECKPOINT=${CHECKPOINT:-logs/ofa/pretrained_models/average_models/avg_postratafuse.pt}
source "$(dirname "${BASH_SOURCE[0]}")/eval_refcoco.sh"

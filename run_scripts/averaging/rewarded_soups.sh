#!/usr/bin/env bash
# Rewarded soups: mixes two models that were trained with different rewards (run_scripts/refcoco/scst) in several
# proportions, and shows what each mixture can do for small and for large objects.
#
# usage: bash run_scripts/averaging/rewarded_soups.sh [KEY=VALUE ...]
#   FIRST, SECOND  the models (default: rewarded for small boxes, for large boxes)
#   The other settings are those of run_scripts/averaging/interpolate.sh, as REFCOCOPLUS_DATA and
#   REFCOCOPLUS_AREAS (what is small and large).
MODELS=logs/ofa/checkpoints/refcocoplus
FIRST=${FIRST:-$MODELS/unival_refcocoplus_acc0_5small_lreinf5/checkpoint_best.pt}
SECOND=${SECOND:-$MODELS/unival_refcocoplus_acc0_5large_lreinf5/checkpoint_best.pt}
SWEEP=${SWEEP:-0:1:0.1}
FOLDER=${FOLDER:-logs/ofa/checkpoints/rewarded_soups}
TASKS=${TASKS:-refcocoplus}
REFCOCOPLUS_ACC_THRESH=${REFCOCOPLUS_ACC_THRESH:-0.5}
REFCOCOPLUS_AREAS=${REFCOCOPLUS_AREAS---min-area-size 100000 --max-area-size 30000}
REFCOCOPLUS_METRIC=${REFCOCOPLUS_METRIC:-score_small,score_large}
source "$(dirname "${BASH_SOURCE[0]}")/interpolate.sh"

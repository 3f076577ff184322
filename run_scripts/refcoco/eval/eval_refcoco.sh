#!/usr/bin/env bash
# Finds the boxes of expressions and scores them: RESULTS/<file>_predict.json, accuracies at several overlaps.
#
# usage: bash run_scripts/refcoco/eval/eval_refcoco.sh [KEY=VALUE ...]
#   DATASET       refcoco, refcocoplus or refcocog: in the names of files
#   ACC_THRESH    overlaps (IoU) from which a box is right, separated by commas; score is the accuracy at the first
#   AREAS         flags: boxes above and below which areas in square pixels are large and small; empty: not told
#   MAX_IMAGE_SIZE  pixels that the bins of a coordinate span, as in training      NO_REPEAT
source "$(dirname "${BASH_SOURCE[0]}")/../../common.sh"
evaluation_settings "$@"

DATASET=${DATASET:-refcoco}
FOLDER=data/ofa/${DATASET}_data
DATA=${DATA:-$FOLDER/${DATASET}_val.tsv,$FOLDER/${DATASET}_testA.tsv,$FOLDER/${DATASET}_testB.tsv}
CHECKPOINT=${CHECKPOINT:-logs/ofa/checkpoints/$DATASET/unival_$DATASET/checkpoint_best.pt}
RESULTS=${RESULTS:-results/$DATASET}

# shellcheck disable=SC2086  # AREAS holds several words
evaluate refcoco --selected-cols "${SELECTED_COLS:-0,4,2,3}" --batch-size "${BATCH_SIZE:-16}" --max-src-length 80 \
    --patch-image-size "${PATCH_IMAGE_SIZE:-512}" --max-image-size "${MAX_IMAGE_SIZE:-512}" \
    --min-len 4 --max-len-a 0 --max-len-b 4 --no-repeat-ngram-size "${NO_REPEAT:-3}" \
    --acc-thresh "${ACC_THRESH:-0.4,0.5,0.6,0.7,0.8,0.9}" ${AREAS---min-area-size 100000 --max-area-size 30000}

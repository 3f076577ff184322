#!/usr/bin/env bash
# Says of statements whether pictures imply them, and scores the answers: RESULTS/<file>_predict.json.
#
# usage: bash run_scripts/snli_ve/eval/eval_snli_ve.sh [KEY=VALUE ...]
#   PROMPT_TYPE   none, src or prev_output, as in training
#   EXTRA=--add-caption also tells the encoder the caption of the picture, as in training
source "$(dirname "${BASH_SOURCE[0]}")/../../common.sh"
evaluation_settings "$@"

FOLDER=data/ofa/snli_ve_data
DATA=${DATA:-$FOLDER/snli_ve_dev.tsv,$FOLDER/snli_ve_test.tsv}
CHECKPOINT=${CHECKPOINT:-logs/ofa/pretrained_models/average_models/avg_postratafuse.pt}
RESULTS=${RESULTS:-results/snli_ve}

evaluate snli_ve --selected-cols "${SELECTED_COLS:-0,2,3,4,5}" --batch-size "${BATCH_SIZE:-8}" --max-src-length 80 \
    --patch-image-size "${PATCH_IMAGE_SIZE:-480}" \
    --prompt-type "${PROMPT_TYPE:-prev_output}"

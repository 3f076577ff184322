#!/usr/bin/env bash
# Answers questions about pictures and scores the answers: RESULTS/<file>_predict.json, ready for the VQA server.
#
# usage: bash run_scripts/vqa/eval/eval_vqa.sh [KEY=VALUE ...]
#   ANSWERS       the answers to choose from, JSON or text; `unival data convert-answers` makes it of the original's pickle
#   PROMPT_TYPE   none, src or prev_output, as in training      INFERENCE_TYPE  allcand or beamsearch
#   ZERO_SHOT     flags: --zero-shot or --noconstraints; empty for a checkpoint that was finetuned for questions
#   IMAGES        flags: --read-from-img-path if the pictures are paths below IMAGE_DIR
#   TASK          vqa_gen or video_vqa_gen
source "$(dirname "${BASH_SOURCE[0]}")/../../common.sh"
evaluation_settings "$@"

FOLDER=data/ofa/vqa_data
DATA=${DATA:-$FOLDER/vqa_test.tsv}
ANSWERS=${ANSWERS:-$FOLDER/trainval_ans2label.json}
CHECKPOINT=${CHECKPOINT:-logs/ofa/checkpoints/pretrain/unival_s2_hs/checkpoint1.pt}
RESULTS=${RESULTS:-results/vqa}

need "$ANSWERS" "ANSWERS"
# shellcheck disable=SC2086  # IMAGES and ZERO_SHOT hold several words
evaluate "${TASK:-vqa_gen}" --selected-cols "${SELECTED_COLS:-0,5,2,3,4}" --ans2label-file "$ANSWERS" \
    --batch-size "${BATCH_SIZE:-32}" --valid-batch-size "${VALID_BATCH_SIZE:-8}" --max-src-length 80 \
    --patch-image-size "${PATCH_IMAGE_SIZE:-480}" ${IMAGES:-} \
    --prompt-type "${PROMPT_TYPE:-prev_output}" --val-inference-type "${INFERENCE_TYPE:-beamsearch}" \
    --unnormalized --temperature 1.0 ${ZERO_SHOT---zero-shot}

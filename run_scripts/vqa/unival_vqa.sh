#!/usr/bin/env bash
# Finetunes UnIVAL for questions about pictures (VQA v2: 20 epochs, 480 px, 16 pictures a GPU on 8 GPUs).
#
# usage: bash run_scripts/vqa/unival_vqa.sh [KEY=VALUE ...]
#   ANSWERS       the answers to choose from, JSON or text; `unival data convert-answers` makes it of the original's pickle
#   PROMPT_TYPE   none, src or prev_output      VAL_INFERENCE_TYPE  allcand or beamsearch      MAX_OBJECT_LENGTH
#   VALID_BATCH_SIZE  accepted, as the flag is: answers are scored in bounded memory anyway
#   LOSS          criterion and flags of its own
#   FREEZE        flags: what is not trained; empty: nothing
#   EMA           flags: average of the weights, which validation uses; empty: none
#   TASK          vqa_gen or video_vqa_gen
#   MEDIA_FLAGS   flags: how films are read, as --use-dataaug
source "$(dirname "${BASH_SOURCE[0]}")/../common.sh"
finetune_settings "$@"

FOLDER=data/ofa/vqa_data
DATA=${DATA:-$(printf "$FOLDER/vqa_train_%d.tsv," {1..10})$FOLDER/vqa_val.tsv}
ANSWERS=${ANSWERS:-$FOLDER/trainval_ans2label.json}
INIT_FROM=${INIT_FROM-logs/ofa/checkpoints/pretrain/unival_s2_hs/checkpoint1.pt}
SAVE_DIR=${SAVE_DIR:-logs/ofa/checkpoints/vqa/unival_vqa}
FREEZE=${FREEZE---freeze-encoder-embedding --freeze-decoder-embedding}
EMA=${EMA---store-ema --uses-ema --ema-fp32 --ema-decay 0.9999 --ema-start-update 0}

need "$ANSWERS" "ANSWERS"
# shellcheck disable=SC2086  # LOSS, FREEZE, EMA and MEDIA_FLAGS hold several words
finetune "${TASK:-vqa_gen}" --selected-cols "${SELECTED_COLS:-0,5,2,3,4}" --ans2label-file "$ANSWERS" \
    --criterion ${LOSS:-adjust_label_smoothed_cross_entropy} --label-smoothing "${LABEL_SMOOTHING:-0.1}" \
    --batch-size "${BATCH_SIZE:-16}" --update-freq "${UPDATE_FREQ:-1}" --max-epoch "${MAX_EPOCH:-20}" \
    --lr "${LR:-1e-4}" --warmup-ratio "${WARMUP_RATIO:-0.04}" \
    --max-src-length 80 --max-tgt-length 30 --max-object-length "${MAX_OBJECT_LENGTH:-30}" \
    --patch-image-size "${PATCH_IMAGE_SIZE:-480}" --resnet-type "${RESNET_TYPE:-resnet101}" \
    $FREEZE $EMA ${MEDIA_FLAGS:-} --valid-batch-size "${VALID_BATCH_SIZE:-20}" \
    --prompt-type "${PROMPT_TYPE:-prev_output}" --val-inference-type "${VAL_INFERENCE_TYPE:-beamsearch}" \
    --eval-args '{"beam":5,"unnormalized":true,"temperature":1.0,"stop_on_max_len":true}' \
    --best-checkpoint-metric vqa_score --validate-interval-updates "${VALIDATE_INTERVAL_UPDATES:-2000}"

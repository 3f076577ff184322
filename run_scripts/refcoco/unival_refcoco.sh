#!/usr/bin/env bash
# Finetunes UnIVAL for visual grounding (RefCOCO: 10 epochs, 512 px, 8 pictures a GPU x 4 batches on 8 GPUs).
#
# usage: bash run_scripts/refcoco/unival_refcoco.sh [KEY=VALUE ...]
#   DATASET       refcoco, refcocoplus or refcocog: in the names of files
#   ACC_THRESH    overlap (IoU) from which a box is right
#   MAX_IMAGE_SIZE  pixels that the bins of a coordinate span; at least PATCH_IMAGE_SIZE
source "$(dirname "${BASH_SOURCE[0]}")/../common.sh"
finetune_settings "$@"

DATASET=${DATASET:-refcoco}
FOLDER=data/ofa/${DATASET}_data
DATA=${DATA:-$(printf "$FOLDER/${DATASET}_train_%d.tsv," {1..10})$FOLDER/${DATASET}_val.tsv}
INIT_FROM=${INIT_FROM-logs/ofa/checkpoints/pretrain/unival_s2_hs/checkpoint1.pt}
SAVE_DIR=${SAVE_DIR:-logs/ofa/checkpoints/$DATASET/unival_$DATASET}

finetune refcoco --selected-cols "${SELECTED_COLS:-0,4,2,3}" \
    --criterion adjust_label_smoothed_cross_entropy --label-smoothing "${LABEL_SMOOTHING:-0.1}" \
    --batch-size "${BATCH_SIZE:-8}" --update-freq "${UPDATE_FREQ:-4}" --max-epoch "${MAX_EPOCH:-10}" \
    --lr "${LR:-5e-5}" --warmup-ratio "${WARMUP_RATIO:-0.06}" \
    --max-src-length 80 --max-tgt-length 20 \
    --patch-image-size "${PATCH_IMAGE_SIZE:-512}" --max-image-size "${MAX_IMAGE_SIZE:-512}" \
    --eval-acc --acc-thresh "${ACC_THRESH:-0.5}" \
    --eval-args '{"beam":5,"min_len":4,"max_len_a":0,"max_len_b":4}' \
    --best-checkpoint-metric score --validate-interval-updates "${VALIDATE_INTERVAL_UPDATES:-2000}"

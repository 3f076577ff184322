#!/usr/bin/env bash
# Finetunes UnIVAL for visual entailment (SNLI-VE: 10 epochs, 480 px, 8 pictures a GPU x 4 batches on 8 GPUs).
#
# usage: bash run_scripts/snli_ve/unival_snli_ve.sh [KEY=VALUE ...]
#   PROMPT_TYPE   none, src or prev_output
#   EXTRA=--add-caption also tells the encoder the caption of the picture
source "$(dirname "${BASH_SOURCE[0]}")/../common.sh"
finetune_settings "$@"

FOLDER=data/ofa/snli_ve_data
DATA=${DATA:-$FOLDER/snli_ve_train.tsv,$FOLDER/snli_ve_dev.tsv}
INIT_FROM=${INIT_FROM-logs/ofa/checkpoints/pretrain/unival_s2_hs/checkpoint1.pt}
SAVE_DIR=${SAVE_DIR:-logs/ofa/checkpoints/snli_ve/unival_snli_ve}

finetune snli_ve --selected-cols "${SELECTED_COLS:-0,2,3,4,5}" \
    --criterion adjust_label_smoothed_cross_entropy --label-smoothing "${LABEL_SMOOTHING:-0.0}" \
    --batch-size "${BATCH_SIZE:-8}" --update-freq "${UPDATE_FREQ:-4}" --max-epoch "${MAX_EPOCH:-10}" \
    --lr "${LR:-5e-5}" --warmup-ratio "${WARMUP_RATIO:-0.06}" \
    --max-src-length 80 --max-tgt-length 20 --patch-image-size "${PATCH_IMAGE_SIZE:-480}" \
    --prompt-type "${PROMPT_TYPE:-prev_output}" \
    --best-checkpoint-metric snli_score --validate-interval-updates "${VALIDATE_INTERVAL_UPDATES:-50000}"

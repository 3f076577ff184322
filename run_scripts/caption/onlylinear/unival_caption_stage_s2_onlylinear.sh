#!/usr/bin/env bash
# Trains only the projections of pictures for captions (25 epochs), from the weights of the second pretraining stage.
#
# usage: bash run_scripts/caption/onlylinear/unival_caption_stage_s2_onlylinear.sh [KEY=VALUE ...]
#   CIDER_DF      document frequencies (.json); empty: counted in the validation file
#   FREEZE        flags: what is not trained; empty: nothing
source "$(dirname "${BASH_SOURCE[0]}")/../../common.sh"
finetune_settings "$@"

FOLDER=data/ofa/caption_data
DATA=${DATA:-$(printf "$FOLDER/caption_stage1_train_%d.tsv," {1..10})$FOLDER/caption_val.tsv}
INIT_FROM=${INIT_FROM-logs/ofa/checkpoints/pretrain/unival_s2_hs/checkpoint3.pt}
SAVE_DIR=${SAVE_DIR:-logs/ofa/checkpoints/caption/unival_caption_stage_s2_onlylinear}
EMBEDDINGS="--freeze-encoder-embedding --freeze-decoder-embedding"
TRUNKS="--freeze-image-encoder --freeze-video-encoder --freeze-audio-encoder"
FREEZE=${FREEZE-$EMBEDDINGS --freeze-encoder --freeze-decoder $TRUNKS}

df=()
[[ -n ${CIDER_DF:-} ]] && df+=(--eval-cider-cached-tokens "$CIDER_DF")
# shellcheck disable=SC2086  # FREEZE holds several words
finetune caption --selected-cols "${SELECTED_COLS:-0,4,2}" $FREEZE \
    --criterion adjust_label_smoothed_encouraging_loss --label-smoothing "${LABEL_SMOOTHING:-0.1}" --log-end 0.75 \
    --drop-worst-ratio 0.05 --drop-worst-after 6000 --drop-best-ratio 0.05 --drop-best-after 6000 \
    --batch-size "${BATCH_SIZE:-16}" --update-freq "${UPDATE_FREQ:-2}" --max-epoch "${MAX_EPOCH:-25}" \
    --lr "${LR:-5e-4}" --warmup-ratio "${WARMUP_RATIO:-0.06}" \
    --max-src-length 80 --max-tgt-length 20 --patch-image-size "${PATCH_IMAGE_SIZE:-480}" \
    --eval-cider --eval-args '{"beam":5,"unnormalized":true,"temperature":1.0,"stop_on_max_len":true}' \
    --best-checkpoint-metric cider --validate-interval-updates "${VALIDATE_INTERVAL_UPDATES:-2000}" "${df[@]}"

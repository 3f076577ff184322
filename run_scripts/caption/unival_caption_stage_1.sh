#!/usr/bin/env bash
# Finetunes UnIVAL for captions with cross entropy (COCO: 10 epochs, 480 px, 16 pictures a GPU on 8 GPUs).
#
# usage: bash run_scripts/caption/unival_caption_stage_1.sh [KEY=VALUE ...]
#   CIDER_DF      document frequencies (.json); empty: counted in the validation file
#   EVAL_ARGS     how captions are searched in validation, as JSON
#   FREEZE        flags: what is not trained; empty: nothing
#   TASK          caption, video_caption or audio_caption
#   MEDIA_FLAGS   flags: how films or sounds are read, as --use-dataaug
source "$(dirname "${BASH_SOURCE[0]}")/../common.sh"
finetune_settings "$@"

FOLDER=data/ofa/caption_data
DATA=${DATA:-$(printf "$FOLDER/caption_stage1_train_%d.tsv," {1..10})$FOLDER/caption_val.tsv}
INIT_FROM=${INIT_FROM-logs/ofa/checkpoints/pretrain/unival_s2_hs/checkpoint1.pt}
SAVE_DIR=${SAVE_DIR:-logs/ofa/checkpoints/caption/unival_caption_stage_1}
SAVE_INTERVAL_UPDATES=${SAVE_INTERVAL_UPDATES:-2000}
FREEZE=${FREEZE---freeze-encoder-embedding --freeze-decoder-embedding}
SEARCH='{"beam":5,"stop_on_max_len":true,"max_len_b":22,"no_repeat_ngram_size":3}'

df=()
[[ -n ${CIDER_DF:-} ]] && df+=(--eval-cider-cached-tokens "$CIDER_DF")
# shellcheck disable=SC2086  # FREEZE and MEDIA_FLAGS hold several words
finetune "${TASK:-caption}" --selected-cols "${SELECTED_COLS:-0,4,2}" $FREEZE ${MEDIA_FLAGS:-} \
    --criterion adjust_label_smoothed_encouraging_loss --label-smoothing "${LABEL_SMOOTHING:-0.1}" --log-end 0.75 \
    --drop-worst-ratio 0.05 --drop-worst-after 6000 --drop-best-ratio 0.05 --drop-best-after 6000 \
    --batch-size "${BATCH_SIZE:-16}" --update-freq "${UPDATE_FREQ:-1}" --max-epoch "${MAX_EPOCH:-10}" \
    --lr "${LR:-1e-5}" --warmup-ratio "${WARMUP_RATIO:-0.06}" \
    --max-src-length 80 --max-tgt-length 20 --patch-image-size "${PATCH_IMAGE_SIZE:-480}" \
    --eval-cider --eval-args "${EVAL_ARGS:-$SEARCH}" \
    --best-checkpoint-metric cider --validate-interval-updates "${VALIDATE_INTERVAL_UPDATES:-0}" "${df[@]}"

#!/usr/bin/env bash
# Trains captions further with CIDEr-D as the reward, after unival_caption_stage_1.sh. UnIVAL has published no such
# training; the settings are OFA's second stage (3 epochs, 480 px, 2 pictures a GPU x 4 batches on 8 GPUs).
#
# usage: bash run_scripts/caption/scst/unival_caption_stage_2.sh [KEY=VALUE ...]
#   SCST_DF       document frequencies of the reward (.json); empty: counted in the training files, a row a picture
#   CIDER_DF      document frequencies of validation (.json); empty: counted in the validation file
#   SCST_ARGS     how captions are searched for the reward, as JSON; at least two a picture
#   FREEZE        flags: what is not trained; empty: nothing
source "$(dirname "${BASH_SOURCE[0]}")/../../common.sh"
finetune_settings "$@"

FOLDER=data/ofa/caption_data
DATA=${DATA:-$FOLDER/caption_stage2_train.tsv,$FOLDER/caption_val.tsv}
INIT_FROM=${INIT_FROM-logs/ofa/checkpoints/caption/unival_caption_stage_1/checkpoint_best.pt}
SAVE_DIR=${SAVE_DIR:-logs/ofa/checkpoints/caption/unival_caption_stage_2}
SAVE_INTERVAL_UPDATES=${SAVE_INTERVAL_UPDATES:-500}
DROPOUT=${DROPOUT:-0.0}
DROP_PATH=${DROP_PATH:-0.0}
FREEZE=${FREEZE---freeze-encoder-embedding --freeze-decoder-embedding}
SEARCH='{"beam":5,"max_len_b":16,"no_repeat_ngram_size":3}'

df=()
[[ -n ${SCST_DF:-} ]] && df+=(--scst-cider-cached-tokens "$SCST_DF")
[[ -n ${CIDER_DF:-} ]] && df+=(--eval-cider-cached-tokens "$CIDER_DF")
# shellcheck disable=SC2086  # FREEZE holds several words
finetune caption --selected-cols "${SELECTED_COLS:-1,4,2}" $FREEZE \
    --criterion scst_reward_criterion --scst --scst-args "${SCST_ARGS:-$SEARCH}" \
    --batch-size "${BATCH_SIZE:-2}" --update-freq "${UPDATE_FREQ:-4}" --max-epoch "${MAX_EPOCH:-3}" \
    --lr "${LR:-1e-5}" --end-learning-rate 2e-7 --warmup-ratio "${WARMUP_RATIO:-0.06}" \
    --max-src-length 80 --max-tgt-length 20 --patch-image-size "${PATCH_IMAGE_SIZE:-480}" \
    --eval-cider --eval-args "$SEARCH" --best-checkpoint-metric cider \
    --validate-interval-updates "${VALIDATE_INTERVAL_UPDATES:-500}" "${df[@]}"

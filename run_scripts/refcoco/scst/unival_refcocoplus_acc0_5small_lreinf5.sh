#!/usr/bin/env bash
# Rewarded soups: trains UnIVAL's RefCOCO+ model further with a reward for boxes of small objects only (10 epochs, 512
# px, 8 pictures a GPU x 4 batches on 8 GPUs). The other scripts of this folder reward other sizes.
#
# usage: bash run_scripts/refcoco/scst/unival_refcocoplus_acc0_5small_lreinf5.sh [KEY=VALUE ...]
#   MAX_AREA      objects below this area (square pixels of the original picture) are small; empty: no limit
#   MIN_AREA      objects above this area are large; empty: no limit
#   MEDIUM=1      reward the sizes between the limits instead of those outside
#   LAMBDA        weight of the reward beside the cross entropy of the right box; 0: the reward alone
#   ACC_THRESH    overlap (IoU) from which a box is right
#   SCST_ARGS     how boxes are searched for the reward, as JSON
#   DATASET       refcoco, refcocoplus or refcocog: in the names of files
#   MAX_IMAGE_SIZE  pixels that the bins of a coordinate span; at least PATCH_IMAGE_SIZE
source "$(dirname "${BASH_SOURCE[0]}")/../../common.sh"
finetune_settings "$@"

DATASET=${DATASET:-refcocoplus}
DATA=${DATA:-data/ofa/${DATASET}_data/${DATASET}_train.tsv,data/ofa/${DATASET}_data/${DATASET}_val.tsv}
INIT_FROM=${INIT_FROM-logs/ofa/checkpoints/$DATASET/unival_$DATASET/10_3e-5_512/checkpoint_best.pt}
SAVE_DIR=${SAVE_DIR:-logs/ofa/checkpoints/$DATASET/$(basename "$0" .sh)}
SEARCH='{"beam":5,"min_len":4,"max_len_a":0,"max_len_b":4}'
MAX_AREA=${MAX_AREA-30000}

sizes=()
[[ -n $MAX_AREA ]] && sizes+=(--max-area-size "$MAX_AREA")
[[ -n ${MIN_AREA:-} ]] && sizes+=(--min-area-size "$MIN_AREA")
[[ -n ${MEDIUM:-} ]] && sizes+=(--medium-area)

finetune refcoco --selected-cols "${SELECTED_COLS:-0,4,2,3}" \
    --criterion refcoco_scst_reward_criterion --scst --scst-args "${SCST_ARGS:-$SEARCH}" \
    --lambda-reinforce "${LAMBDA:-5.0}" "${sizes[@]}" \
    --batch-size "${BATCH_SIZE:-8}" --update-freq "${UPDATE_FREQ:-4}" --max-epoch "${MAX_EPOCH:-10}" \
    --lr "${LR:-3e-5}" --warmup-ratio "${WARMUP_RATIO:-0.06}" \
    --max-src-length 80 --max-tgt-length 20 --patch-image-size "${PATCH_IMAGE_SIZE:-512}" \
    --max-image-size "${MAX_IMAGE_SIZE:-512}" --eval-acc --acc-thresh "${ACC_THRESH:-0.5}" --eval-args "$SEARCH" \
    --best-checkpoint-metric score --validate-interval-updates "${VALIDATE_INTERVAL_UPDATES:-2000}"

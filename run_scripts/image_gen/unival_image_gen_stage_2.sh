#!/usr/bin/env bash
# Trains pictures from text further with CLIP as the reward, stage 2 of 2, from stage 1 (COCO: 5000 updates, codes of 256 px,
# 4 captions a GPU on 8 GPUs, 5 pictures a caption).
#
# usage: bash run_scripts/image_gen/unival_image_gen_stage_2.sh [KEY=VALUE ...]
#   MAX_UPDATE, WARMUP_UPDATES  the training ends by updates, not by epochs
#   VQGAN, VQGAN_CONFIG  image tokenizer that made the codes: last.ckpt, model.yaml
#   CLIP          weights of CLIP, which rewards the pictures that fit a caption better than the others
#   CODE_IMAGE_SIZE  side of the pictures in pixels; a code spans 8 x 8 of them
#   SCST_ARGS     how pictures are drawn for the reward, as JSON; beam, their number for a caption, must be 2 or more
#   EVAL_ARGS     the same for validation, which also comes with every checkpoint
#   GEN_IMAGES    folder for the pictures of validation; empty: not kept
#   BATCH_SIZE_VALID  captions drawn at a time
#   FREEZE        flags: what is not trained; empty: nothing
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"
finetune_settings "$@"

INIT_FROM=${INIT_FROM-$DRAWN_CHECKPOINTS/unival_image_gen_stage_1/50000_2000_1e-3/checkpoint_best.pt}
MAX_UPDATE=${MAX_UPDATE:-5000}
WARMUP_UPDATES=${WARMUP_UPDATES:-0}
LR=${LR:-1e-6}
SAVE_DIR=${SAVE_DIR:-$DRAWN_CHECKPOINTS/unival_image_gen_stage_2/${MAX_UPDATE}_${WARMUP_UPDATES}_$LR}
SAVE_INTERVAL_UPDATES=${SAVE_INTERVAL_UPDATES:-100}
GEN_IMAGES=${GEN_IMAGES-results/unival_image_gen_stage_2}
DROPOUT=${DROPOUT:-0.0}
DROP_PATH=${DROP_PATH:-0.0}
REWARDED='{"beam":5,"sampling_topk":256,"temperature":1.0}'
SEARCH='{"beam":24,"sampling_topk":256,"temperature":1.0}'

# shellcheck disable=SC2086  # FREEZE holds several words
finetune_drawing --criterion clip_scst_reward_criterion --scst --scst-args "${SCST_ARGS:-$REWARDED}" \
    --batch-size "${BATCH_SIZE:-4}" --update-freq "${UPDATE_FREQ:-1}" --eval-args "${EVAL_ARGS:-$SEARCH}" \
    --validate-interval-updates "${VALIDATE_INTERVAL_UPDATES:-200}" ${FREEZE---freeze-resnet}

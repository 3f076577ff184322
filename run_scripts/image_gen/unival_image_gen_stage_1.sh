#!/usr/bin/env bash
# Finetunes UnIVAL for pictures from text with cross entropy, stage 1 of 2 (COCO: 50000 updates, codes of 256 px, 8 captions
# a GPU x 2 batches on 8 GPUs). dataset_tools/encode_pictures.py makes the rows, see datasets.md.
#
# usage: bash run_scripts/image_gen/unival_image_gen_stage_1.sh [KEY=VALUE ...]
#   MAX_UPDATE, WARMUP_UPDATES  the training ends by updates, not by epochs
#   VQGAN, VQGAN_CONFIG  image tokenizer that made the codes: last.ckpt, model.yaml
#   CLIP          weights of CLIP; validation tells how well the best picture of a caption fits it
#   CODE_IMAGE_SIZE  side of the pictures in pixels; a code spans 8 x 8 of them
#   EVAL_ARGS     how pictures are drawn in validation, as JSON; beam is their number for a caption
#   GEN_IMAGES    folder for the pictures of validation; empty: not kept
#   BATCH_SIZE_VALID  captions drawn at a time
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"
finetune_settings "$@"

INIT_FROM=${INIT_FROM-logs/ofa/checkpoints/pretrain/unival_s2_hs/checkpoint1.pt}
MAX_UPDATE=${MAX_UPDATE:-50000}
WARMUP_UPDATES=${WARMUP_UPDATES:-2000}
LR=${LR:-1e-3}
SAVE_DIR=${SAVE_DIR:-$DRAWN_CHECKPOINTS/unival_image_gen_stage_1/${MAX_UPDATE}_${WARMUP_UPDATES}_$LR}
SAVE_INTERVAL=${SAVE_INTERVAL:-3}
VALIDATE_INTERVAL=${VALIDATE_INTERVAL:-3}
GEN_IMAGES=${GEN_IMAGES-results/unival_image_gen_stage_1}
SEARCH='{"beam":24,"sampling_topk":256,"temperature":1.0}'

finetune_drawing --criterion adjust_label_smoothed_cross_entropy --label-smoothing "${LABEL_SMOOTHING:-0.0}" \
    --batch-size "${BATCH_SIZE:-8}" --update-freq "${UPDATE_FREQ:-2}" --eval-args "${EVAL_ARGS:-$SEARCH}" \
    --validate-interval-updates "${VALIDATE_INTERVAL_UPDATES:-0}"

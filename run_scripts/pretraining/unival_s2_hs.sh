#!/usr/bin/env bash
# Pretrains UnIVAL on larger pictures and longer films, stage 3 of 3, from stage 2 (480 px, 16 frames of 384 px, 4 rows
# a GPU x 2 batches on 8 GPUs a node; the published models are finetuned from epoch 1 of 50).
# docs/pretraining.md tells what the rows are and how sources are mixed.
#
# usage: bash run_scripts/pretraining/unival_s2_hs.sh [KEY=VALUE ...]
INIT_FROM=${INIT_FROM-logs/ofa/checkpoints/pretrain/unival_s2/checkpoint8.pt}
RESNEXT=${RESNEXT-}
SAVE_DIR=${SAVE_DIR:-logs/ofa/checkpoints/pretrain/unival_s2_hs}
LR=${LR:-5e-5}
PATCH_IMAGE_SIZE=${PATCH_IMAGE_SIZE:-480}
SAMPLE_PATCH_NUM=${SAMPLE_PATCH_NUM:-225}
NUM_FRAMES=${NUM_FRAMES:-16}
PATCH_FRAME_SIZE=${PATCH_FRAME_SIZE:-384}
source "$(dirname "${BASH_SOURCE[0]}")/unival_s2.sh"

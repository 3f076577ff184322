#!/usr/bin/env bash
# Pretrains UnIVAL on pictures and films, stage 2 of 3, from stage 1: a row of films for every row of pictures (384 px,
# 8 frames of 224 px, 4 rows a GPU x 2 batches on 8 GPUs a node; the published stage 3 starts from epoch 8 of 50).
# docs/pretraining.md tells what the rows are and how sources are mixed.
#
# usage: bash run_scripts/pretraining/unival_s2.sh [KEY=VALUE ...]
#   The trunk of films is new in this stage: it starts from RESNEXT.
FOLDER=data/ofa/pretrain_ours
DATA=${DATA:-$FOLDER/vision_language_mini_vqa_ground.tsv}
IMAGE_TEXT_DATA=${IMAGE_TEXT_DATA-}
IMAGE_TEXT_VQA_DATA=${IMAGE_TEXT_VQA_DATA-}
IMAGE_TEXT_GROUND_DATA=${IMAGE_TEXT_GROUND_DATA-}
VIDEO_DATA=${VIDEO_DATA-$FOLDER/video_mini_webvid2mccapqa.tsv}
VIDEO_CNT=${VIDEO_CNT:-1}
INIT_FROM=${INIT_FROM-logs/ofa/checkpoints/pretrain/unival_s1/checkpoint15.pt}
INIT_FLAG=${INIT_FLAG:---finetune-from-model}
RESNET=${RESNET-}
RESNEXT=${RESNEXT-logs/pretrained_models/3dcnn/resnext-101-kinetics.pth}
VIDEO_ENCODER=${VIDEO_ENCODER-all_resnext101}
SAVE_DIR=${SAVE_DIR:-logs/ofa/checkpoints/pretrain/unival_s2}
LR=${LR:-1e-4}
BATCH_SIZE=${BATCH_SIZE:-4}
NUM_FRAMES=${NUM_FRAMES:-8}
PATCH_FRAME_SIZE=${PATCH_FRAME_SIZE:-224}
source "$(dirname "${BASH_SOURCE[0]}")/unival_s1.sh"

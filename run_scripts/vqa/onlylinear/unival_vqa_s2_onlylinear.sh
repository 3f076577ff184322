#!/usr/bin/env bash
# Trains only the projections of pictures for questions (25 epochs), from the weights of the second pretraining stage.
#
# usage: bash run_scripts/vqa/onlylinear/unival_vqa_s2_onlylinear.sh [KEY=VALUE ...]
#   The settings are those of run_scripts/vqa/unival_vqa.sh.
LR=${LR:-5e-4}
MAX_EPOCH=${MAX_EPOCH:-25}
UPDATE_FREQ=${UPDATE_FREQ:-2}
VALIDATE_INTERVAL_UPDATES=${VALIDATE_INTERVAL_UPDATES:-0}
INIT_FROM=${INIT_FROM-logs/ofa/checkpoints/pretrain/unival_s2_hs/checkpoint3.pt}
SAVE_DIR=${SAVE_DIR:-logs/ofa/checkpoints/vqa/unival_vqa_s2_onlylinear}
EMBEDDINGS="--freeze-encoder-embedding --freeze-decoder-embedding"
TRUNKS="--freeze-image-encoder --freeze-video-encoder --freeze-audio-encoder"
FREEZE=${FREEZE-$EMBEDDINGS --freeze-encoder --freeze-decoder $TRUNKS}
source "$(dirname "${BASH_SOURCE[0]}")/../unival_vqa.sh"

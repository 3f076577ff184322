#!/usr/bin/env bash
# Trains only the projections of films and pictures for captions of films (25 epochs), from the weights of the second
# pretraining stage.
#
# usage: bash run_scripts/caption/onlylinear/unival_video_caption_s2_onlylinear.sh [KEY=VALUE ...]
#   The settings are those of run_scripts/caption/unival_caption_stage_1.sh.
LR=${LR:-1e-3}
MAX_EPOCH=${MAX_EPOCH:-25}
INIT_FROM=${INIT_FROM-logs/ofa/checkpoints/pretrain/unival_s2_hs/checkpoint3.pt}
SAVE_DIR=${SAVE_DIR:-logs/ofa/checkpoints/caption/unival_video_caption_s2_onlylinear}
EMBEDDINGS="--freeze-encoder-embedding --freeze-decoder-embedding"
TRUNKS="--freeze-image-encoder --freeze-video-encoder --freeze-audio-encoder"
FREEZE=${FREEZE-$EMBEDDINGS --freeze-encoder --freeze-decoder $TRUNKS}
source "$(dirname "${BASH_SOURCE[0]}")/../video/unival_video_caption_stage_1.sh"

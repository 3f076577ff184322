#!/usr/bin/env bash
# Trains only the projections of films and pictures for questions about films (40 epochs), from the weights of the
# second pretraining stage.
#
# usage: bash run_scripts/vqa/onlylinear/unival_video_vqa_s2_onlylinear.sh [KEY=VALUE ...]
#   The settings are those of run_scripts/vqa/unival_vqa.sh.
MAX_EPOCH=${MAX_EPOCH:-40}
VALIDATE_INTERVAL_UPDATES=${VALIDATE_INTERVAL_UPDATES:-0}
INIT_FROM=${INIT_FROM-logs/ofa/checkpoints/pretrain/unival_s2_hs/checkpoint3.pt}
SAVE_DIR=${SAVE_DIR:-logs/ofa/checkpoints/vqa/unival_video_vqa_s2_onlylinear}
LOSS=${LOSS:-adjust_label_smoothed_encouraging_loss --drop-worst-ratio 0.05 --drop-worst-after 6000}
MEDIA_FLAGS=${MEDIA_FLAGS---use-dataaug}
EMBEDDINGS="--freeze-encoder-embedding --freeze-decoder-embedding"
TRUNKS="--freeze-image-encoder --freeze-video-encoder --freeze-audio-encoder"
FREEZE=${FREEZE-$EMBEDDINGS --freeze-encoder --freeze-decoder $TRUNKS}
source "$(dirname "${BASH_SOURCE[0]}")/../video/unival_video_vqa.sh"

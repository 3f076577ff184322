#!/usr/bin/env bash
# Trains only the projections of pictures for captions (25 epochs), from the weights of the second pretraining stage.
#
# usage: bash run_scripts/caption/onlylinear/unival_caption_stage_s2_onlylinear.sh [KEY=VALUE ...]
#   The settings are those of run_scripts/caption/unival_caption_stage_1.sh.
LR=${LR:-5e-4}
MAX_EPOCH=${MAX_EPOCH:-25}
UPDATE_FREQ=${UPDATE_FREQ:-2}
SAVE_INTERVAL_UPDATES=${SAVE_INTERVAL_UPDATES:-0}
VALIDATE_INTERVAL_UPDATES=${VALIDATE_INTERVAL_UPDATES:-2000}
INIT_FROM=${INIT_FROM-logs/ofa/checkpoints/pretrain/unival_s2_hs/checkpoint3.pt}
SAVE_DIR=${SAVE_DIR:-logs/ofa/checkpoints/caption/unival_caption_stage_s2_onlylinear}
SEARCH='{"beam":5,"unnormalized":true,"temperature":1.0,"stop_on_max_len":true}'
EVAL_ARGS=${EVAL_ARGS:-$SEARCH}
EMBEDDINGS="--freeze-encoder-embedding --freeze-decoder-embedding"
TRUNKS="--freeze-image-encoder --freeze-video-encoder --freeze-audio-encoder"
FREEZE=${FREEZE-$EMBEDDINGS --freeze-encoder --freeze-decoder $TRUNKS}
source "$(dirname "${BASH_SOURCE[0]}")/../unival_caption_stage_1.sh"

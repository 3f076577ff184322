#!/usr/bin/env bash
# Trains only the projections of films and pictures for captions of films (25 epochs), from the weights of the first
# pretraining stage.
#
# usage: bash run_scripts/caption/onlylinear/unival_video_caption_s1_onlylinear.sh [KEY=VALUE ...]
#   The settings are those of run_scripts/caption/unival_caption_stage_1.sh.
INIT_FROM=${INIT_FROM-logs/ofa/checkpoints/pretrain/unival_s1/checkpoint15.pt}
SAVE_DIR=${SAVE_DIR:-logs/ofa/checkpoints/caption/unival_video_caption_s1_onlylinear}
source "$(dirname "${BASH_SOURCE[0]}")/unival_video_caption_s2_onlylinear.sh"

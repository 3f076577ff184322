#!/usr/bin/env bash
# Trains only the projections of films and pictures for questions about films (40 epochs), from the weights of the first
# pretraining stage.
#
# usage: bash run_scripts/vqa/onlylinear/unival_video_vqa_s1_onlylinear.sh [KEY=VALUE ...]
#   The settings are those of run_scripts/vqa/unival_vqa.sh.
INIT_FROM=${INIT_FROM-logs/ofa/checkpoints/pretrain/unival_s1/checkpoint15.pt}
SAVE_DIR=${SAVE_DIR:-logs/ofa/checkpoints/vqa/unival_video_vqa_s1_onlylinear}
source "$(dirname "${BASH_SOURCE[0]}")/unival_video_vqa_s2_onlylinear.sh"

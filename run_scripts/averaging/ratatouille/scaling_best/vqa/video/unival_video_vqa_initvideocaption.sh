#!/usr/bin/env bash
# Ratatouille: finetunes the model for captions of films with the recipe for questions about films.
#
# usage: bash run_scripts/averaging/ratatouille/scaling_best/vqa/video/unival_video_vqa_initvideocaption.sh [KEY=VALUE ...]
#   The settings are those of run_scripts/vqa/unival_vqa.sh.
INIT_FROM=${INIT_FROM-logs/ofa/checkpoints/caption/unival_video_caption/20_0.06_6000/checkpoint_best.pt}
SAVE_DIR=${SAVE_DIR:-logs/ofa/checkpoints/vqa/unival_video_vqa_initvideocaption}
source "$(dirname "${BASH_SOURCE[0]}")/../../../../../vqa/video/unival_video_vqa.sh"

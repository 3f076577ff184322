#!/usr/bin/env bash
# Ratatouille: finetunes the model for questions about films with the recipe for captions of films.
#
# usage: bash run_scripts/averaging/ratatouille/scaling_best/caption/video/unival_video_caption_stage_1_initvideoqa.sh [KEY=VALUE ...]
#   The settings are those of run_scripts/caption/unival_caption_stage_1.sh.
INIT_FROM=${INIT_FROM-logs/ofa/checkpoints/vqa/unival_video_vqa/35_0.04_1e-4_480/checkpoint_best.pt}
SAVE_DIR=${SAVE_DIR:-logs/ofa/checkpoints/caption/unival_video_caption_stage_1_initvideoqa}
source "$(dirname "${BASH_SOURCE[0]}")/../../../../../caption/video/unival_video_caption_stage_1.sh"

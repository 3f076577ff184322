#!/usr/bin/env bash
# Ratatouille: finetunes the model for questions with the recipe for captions.
#
# usage: bash run_scripts/averaging/ratatouille/scaling_best/caption/unival_caption_stage_1_initvqa.sh [KEY=VALUE ...]
#   The settings are those of run_scripts/caption/unival_caption_stage_1.sh.
INIT_FROM=${INIT_FROM-logs/ofa/checkpoints/vqa/unival_vqa/20_0.04_1e-4_480/checkpoint_best.pt}
SAVE_DIR=${SAVE_DIR:-logs/ofa/checkpoints/caption/unival_caption_stage_1_initvqa}
source "$(dirname "${BASH_SOURCE[0]}")/../../../../caption/unival_caption_stage_1.sh"

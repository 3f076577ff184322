#!/usr/bin/env bash
# Ratatouille: finetunes the model for captions with the recipe for questions.
#
# usage: bash run_scripts/averaging/ratatouille/scaling_best/vqa/unival_vqa_initcaption.sh [KEY=VALUE ...]
#   The settings are those of run_scripts/vqa/unival_vqa.sh.
INIT_FROM=${INIT_FROM-logs/ofa/checkpoints/caption/unival_caption/10_0.06_6000/checkpoint_best.pt}
SAVE_DIR=${SAVE_DIR:-logs/ofa/checkpoints/vqa/unival_vqa_initcaption}
source "$(dirname "${BASH_SOURCE[0]}")/../../../../vqa/unival_vqa.sh"

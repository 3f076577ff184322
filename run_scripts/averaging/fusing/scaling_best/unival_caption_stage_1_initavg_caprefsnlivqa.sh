#!/usr/bin/env bash
# Fusing: finetunes the average of several tasks' models with the recipe for captions.
#
# usage: bash run_scripts/averaging/fusing/scaling_best/unival_caption_stage_1_initavg_caprefsnlivqa.sh [KEY=VALUE ...]
#   The settings are those of run_scripts/caption/unival_caption_stage_1.sh.
INIT_FROM=${INIT_FROM-logs/ofa/pretrained_models/average_models/avg_caprefsnlivqa.pt}
SAVE_DIR=${SAVE_DIR:-logs/ofa/checkpoints/caption/unival_caption_stage_1_initavg_caprefsnlivqa}
source "$(dirname "${BASH_SOURCE[0]}")/../../../caption/unival_caption_stage_1.sh"

#!/usr/bin/env bash
# Fusing: finetunes the average of several tasks' models with the recipe for questions.
#
# usage: bash run_scripts/averaging/fusing/scaling_best/unival_vqa_initavg_caprefsnlivqa.sh [KEY=VALUE ...]
#   The settings are those of run_scripts/vqa/unival_vqa.sh.
INIT_FROM=${INIT_FROM-logs/ofa/pretrained_models/average_models/avg_caprefsnlivqa.pt}
SAVE_DIR=${SAVE_DIR:-logs/ofa/checkpoints/vqa/unival_vqa_initavg_caprefsnlivqa}
source "$(dirname "${BASH_SOURCE[0]}")/../../../vqa/unival_vqa.sh"

#!/usr/bin/env bash
# Fusing: finetunes the average of several tasks' models with the recipe for entailment.
#
# usage: bash run_scripts/averaging/fusing/scaling_best/unival_snli_ve_initavg_caprefsnlivqa.sh [KEY=VALUE ...]
#   The settings are those of run_scripts/snli_ve/unival_snli_ve.sh.
INIT_FROM=${INIT_FROM-logs/ofa/pretrained_models/average_models/avg_caprefsnlivqa.pt}
SAVE_DIR=${SAVE_DIR:-logs/ofa/checkpoints/snli_ve/unival_snli_ve_initavg_caprefsnlivqa}
source "$(dirname "${BASH_SOURCE[0]}")/../../../snli_ve/unival_snli_ve.sh"

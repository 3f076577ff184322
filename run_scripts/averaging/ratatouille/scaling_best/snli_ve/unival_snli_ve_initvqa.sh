#!/usr/bin/env bash
# Ratatouille: finetunes the model for questions with the recipe for entailment.
#
# usage: bash run_scripts/averaging/ratatouille/scaling_best/snli_ve/unival_snli_ve_initvqa.sh [KEY=VALUE ...]
#   The settings are those of run_scripts/snli_ve/unival_snli_ve.sh.
INIT_FROM=${INIT_FROM-logs/ofa/checkpoints/vqa/unival_vqa/20_0.04_1e-4_480/checkpoint_best.pt}
SAVE_DIR=${SAVE_DIR:-logs/ofa/checkpoints/snli_ve/unival_snli_ve_initvqa}
source "$(dirname "${BASH_SOURCE[0]}")/../../../../snli_ve/unival_snli_ve.sh"

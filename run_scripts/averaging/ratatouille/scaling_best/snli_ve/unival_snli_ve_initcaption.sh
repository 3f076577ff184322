#!/usr/bin/env bash
# Ratatouille: finetunes the model for captions with the recipe for entailment.
#
# usage: bash run_scripts/averaging/ratatouille/scaling_best/snli_ve/unival_snli_ve_initcaption.sh [KEY=VALUE ...]
#   The settings are those of run_scripts/snli_ve/unival_snli_ve.sh.
INIT_FROM=${INIT_FROM-logs/ofa/checkpoints/caption/unival_caption_stage_1/10_0.06_6000/checkpoint_best.pt}
SAVE_DIR=${SAVE_DIR:-logs/ofa/checkpoints/snli_ve/unival_snli_ve_initcaption}
source "$(dirname "${BASH_SOURCE[0]}")/../../../../snli_ve/unival_snli_ve.sh"

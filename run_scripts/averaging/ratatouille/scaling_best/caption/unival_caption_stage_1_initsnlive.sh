#!/usr/bin/env bash
# Ratatouille: finetunes the model for entailment with the recipe for captions.
#
# usage: bash run_scripts/averaging/ratatouille/scaling_best/caption/unival_caption_stage_1_initsnlive.sh [KEY=VALUE ...]
#   The settings are those of run_scripts/caption/unival_caption_stage_1.sh.
INIT_FROM=${INIT_FROM-logs/ofa/checkpoints/snli_ve/unival_snli_ve/10_5e-5/checkpoint_best.pt}
SAVE_DIR=${SAVE_DIR:-logs/ofa/checkpoints/caption/unival_caption_stage_1_initsnlive}
source "$(dirname "${BASH_SOURCE[0]}")/../../../../caption/unival_caption_stage_1.sh"

#!/usr/bin/env bash
# Ratatouille: finetunes the model for grounding (RefCOCO+) with the recipe for captions.
#
# usage: bash run_scripts/averaging/ratatouille/scaling_best/caption/unival_caption_stage_1_initrefcocoplus.sh [KEY=VALUE ...]
#   The settings are those of run_scripts/caption/unival_caption_stage_1.sh.
INIT_FROM=${INIT_FROM-logs/ofa/checkpoints/refcocoplus/unival_refcocoplus/10_5e-5_512/checkpoint_best.pt}
SAVE_DIR=${SAVE_DIR:-logs/ofa/checkpoints/caption/unival_caption_stage_1_initrefcocoplus}
source "$(dirname "${BASH_SOURCE[0]}")/../../../../caption/unival_caption_stage_1.sh"

#!/usr/bin/env bash
# Ratatouille: finetunes the model for grounding (RefCOCO+) with the recipe for questions.
#
# usage: bash run_scripts/averaging/ratatouille/scaling_best/vqa/unival_vqa_ofaplus_initrefcocoplus.sh [KEY=VALUE ...]
#   The settings are those of run_scripts/vqa/unival_vqa.sh.
INIT_FROM=${INIT_FROM-logs/ofa/checkpoints/refcocoplus/unival_refcocoplus/10_5e-5_512/checkpoint_best.pt}
SAVE_DIR=${SAVE_DIR:-logs/ofa/checkpoints/vqa/unival_vqa_ofaplus_initrefcocoplus}
source "$(dirname "${BASH_SOURCE[0]}")/../../../../vqa/unival_vqa.sh"

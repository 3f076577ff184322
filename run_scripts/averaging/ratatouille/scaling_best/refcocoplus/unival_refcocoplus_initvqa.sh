#!/usr/bin/env bash
# Ratatouille: finetunes the model for questions with the recipe for grounding (RefCOCO+).
#
# usage: bash run_scripts/averaging/ratatouille/scaling_best/refcocoplus/unival_refcocoplus_initvqa.sh [KEY=VALUE ...]
#   The settings are those of run_scripts/refcoco/unival_refcoco.sh.
INIT_FROM=${INIT_FROM-logs/ofa/checkpoints/vqa/unival_vqa/20_0.04_1e-4_480/checkpoint_best.pt}
SAVE_DIR=${SAVE_DIR:-logs/ofa/checkpoints/refcocoplus/unival_refcocoplus_initvqa}
source "$(dirname "${BASH_SOURCE[0]}")/../../../../refcoco/unival_refcocoplus.sh"

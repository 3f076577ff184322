#!/usr/bin/env bash
# Ratatouille: finetunes the model for captions with the recipe for grounding (RefCOCO+).
#
# usage: bash run_scripts/averaging/ratatouille/scaling_best/refcocoplus/unival_refcocoplus_initcaption.sh [KEY=VALUE ...]
#   The settings are those of run_scripts/refcoco/unival_refcoco.sh.
INIT_FROM=${INIT_FROM-logs/ofa/checkpoints/caption/unival_caption/10_0.06_6000/checkpoint_best.pt}
SAVE_DIR=${SAVE_DIR:-logs/ofa/checkpoints/refcocoplus/unival_refcocoplus_initcaption}
source "$(dirname "${BASH_SOURCE[0]}")/../../../../refcoco/unival_refcocoplus.sh"

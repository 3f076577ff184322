#!/usr/bin/env bash
# Fusing: finetunes the average of several tasks' models with the recipe for grounding (RefCOCO+).
#
# usage: bash run_scripts/averaging/fusing/scaling_best/unival_refcocoplus_initavg_caprefsnlivqa.sh [KEY=VALUE ...]
#   The settings are those of run_scripts/refcoco/unival_refcoco.sh.
INIT_FROM=${INIT_FROM-logs/ofa/pretrained_models/average_models/avg_caprefsnlivqa.pt}
SAVE_DIR=${SAVE_DIR:-logs/ofa/checkpoints/refcocoplus/unival_refcocoplus_initavg_caprefsnlivqa}
source "$(dirname "${BASH_SOURCE[0]}")/../../../refcoco/unival_refcocoplus.sh"

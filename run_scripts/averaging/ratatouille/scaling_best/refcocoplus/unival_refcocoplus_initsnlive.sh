#!/usr/bin/env bash
# Ratatouille: finetunes the model for entailment with the recipe for grounding (RefCOCO+).
#
# usage: bash run_scripts/averaging/ratatouille/scaling_best/refcocoplus/unival_refcocoplus_initsnlive.sh [KEY=VALUE ...]
#   The settings are those of run_scripts/refcoco/unival_refcoco.sh.
INIT_FROM=${INIT_FROM-logs/ofa/checkpoints/snli_ve/unival_snli_ve/10_5e-5/checkpoint_best.pt}
SAVE_DIR=${SAVE_DIR:-logs/ofa/checkpoints/refcocoplus/unival_refcocoplus_initsnlive}
source "$(dirname "${BASH_SOURCE[0]}")/../../../../refcoco/unival_refcocoplus.sh"

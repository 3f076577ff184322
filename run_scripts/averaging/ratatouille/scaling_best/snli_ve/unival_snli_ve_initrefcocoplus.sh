#!/usr/bin/env bash
# Ratatouille: finetunes the model for grounding (RefCOCO+) with the recipe for entailment.
#
# usage: bash run_scripts/averaging/ratatouille/scaling_best/snli_ve/unival_snli_ve_initrefcocoplus.sh [KEY=VALUE ...]
#   The settings are those of run_scripts/snli_ve/unival_snli_ve.sh.
INIT_FROM=${INIT_FROM-logs/ofa/checkpoints/refcocoplus/unival_refcocoplus/10_5e-5_512/checkpoint_best.pt}
SAVE_DIR=${SAVE_DIR:-logs/ofa/checkpoints/snli_ve/unival_snli_ve_initrefcocoplus}
source "$(dirname "${BASH_SOURCE[0]}")/../../../../snli_ve/unival_snli_ve.sh"

#!/usr/bin/env bash
# Finetunes UnIVAL for captions of sounds on Clotho (25 epochs, 16 sounds a GPU on 8 GPUs), as
# run_scripts/caption/audio/unival_audio_caption.sh.
#
# usage: bash run_scripts/caption/audio/clotho/unival_audio_caption_clotho.sh [KEY=VALUE ...]
#   The settings are those of run_scripts/caption/unival_caption_stage_1.sh.
FOLDER=data/ofa/audio_data/caption_data
DATA=${DATA:-$(printf "$FOLDER/clotho_development_%d.tsv," {1..10})$FOLDER/clotho_evaluation.tsv}
SAVE_DIR=${SAVE_DIR:-logs/ofa/checkpoints/caption/unival_audio_caption_clotho}
LR=${LR:-5e-5}
BATCH_SIZE=${BATCH_SIZE:-16}
UPDATE_FREQ=${UPDATE_FREQ:-1}
source "$(dirname "${BASH_SOURCE[0]}")/../unival_audio_caption.sh"

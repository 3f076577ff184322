#!/usr/bin/env bash
# Captions the sounds of a file and scores the captions. UnIVAL has published no such script; the search is that of its
# validation while finetuning.
#
# usage: bash run_scripts/caption/eval/audio/eval_audio_caption.sh [KEY=VALUE ...]
#   The settings are those of run_scripts/caption/eval/eval_caption.sh.
DATA=${DATA:-data/ofa/audio_data/caption_data/audiocaps_test.tsv}
SELECTED_COLS=${SELECTED_COLS:-0,4,2}
CHECKPOINT=${CHECKPOINT:-logs/ofa/checkpoints/caption/unival_audio_caption/checkpoint_best.pt}
RESULTS=${RESULTS:-results/audio_caption}
TASK=audio_caption
PATCH_IMAGE_SIZE=${PATCH_IMAGE_SIZE:-384}
NUM_FRAMES=${NUM_FRAMES:-8}
PATCH_FRAME_SIZE=${PATCH_FRAME_SIZE:-224}
MAX_LEN_B=${MAX_LEN_B:-200}
NO_REPEAT=${NO_REPEAT:-0}
IMAGES=${IMAGES---read-from-img-path}
source "$(dirname "${BASH_SOURCE[0]}")/../eval_caption.sh"

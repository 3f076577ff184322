#!/usr/bin/env bash
# As run_scripts/caption/onlylinear/unival_audio_caption_s2_onlylinear.sh, from the weights of the first pretraining
# stage and with a ten times higher rate of learning.
#
# usage: bash run_scripts/caption/onlylinear/unival_audio_caption_s1_onlylinear.sh [KEY=VALUE ...]
#   The settings are those of run_scripts/caption/unival_caption_stage_1.sh.
LR=${LR:-5e-3}
INIT_FROM=${INIT_FROM-logs/ofa/checkpoints/pretrain/unival_s1/checkpoint15.pt}
SAVE_DIR=${SAVE_DIR:-logs/ofa/checkpoints/caption/unival_audio_caption_s1_onlylinear}
source "$(dirname "${BASH_SOURCE[0]}")/unival_audio_caption_s2_onlylinear.sh"

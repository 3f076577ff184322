#!/usr/bin/env bash
# Trains only the projections and the trunks of pictures and films for captions of sounds (25 epochs), from the
# weights of the second pretraining stage; the trunk of sounds stays as PANN has it.
#
# usage: bash run_scripts/caption/onlylinear/unival_audio_caption_s2_onlylinear.sh [KEY=VALUE ...]
#   The settings are those of run_scripts/caption/unival_caption_stage_1.sh.
LR=${LR:-5e-4}
INIT_FROM=${INIT_FROM-logs/ofa/checkpoints/pretrain/unival_s2_hs/checkpoint3.pt}
SAVE_DIR=${SAVE_DIR:-logs/ofa/checkpoints/caption/unival_audio_caption_s2_onlylinear}
EMBEDDINGS="--freeze-encoder-embedding --freeze-decoder-embedding"
FREEZE=${FREEZE-$EMBEDDINGS --freeze-encoder --freeze-decoder --freeze-audio-encoder}
MEDIA_FLAGS=${MEDIA_FLAGS---audio-sample-rate}
source "$(dirname "${BASH_SOURCE[0]}")/../audio/unival_audio_caption.sh"

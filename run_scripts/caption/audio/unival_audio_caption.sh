#!/usr/bin/env bash
# Finetunes UnIVAL for captions of sounds with cross entropy (AudioCaps: 25 epochs, 10 seconds, 8 sounds a GPU x 2
# batches on 8 GPUs). No pretraining has seen sounds: their trunk starts from PANN.
#
# usage: bash run_scripts/caption/audio/unival_audio_caption.sh [KEY=VALUE ...]
#   The settings are those of run_scripts/caption/unival_caption_stage_1.sh.
FOLDER=data/ofa/audio_data/caption_data
DATA=${DATA:-$(printf "$FOLDER/audiocaps_train_%d.tsv," {1..10})$FOLDER/audiocaps_test.tsv}
INIT_FROM=${INIT_FROM-logs/ofa/checkpoints/pretrain/unival_s2_hs/checkpoint1.pt}
SAVE_DIR=${SAVE_DIR:-logs/ofa/checkpoints/caption/unival_audio_caption}
PANN=${PANN-logs/pretrained_models/Cnn14_mAP_0.431.pth}
TASK=audio_caption
LR=${LR:-1e-4}
MAX_EPOCH=${MAX_EPOCH:-25}
BATCH_SIZE=${BATCH_SIZE:-8}
UPDATE_FREQ=${UPDATE_FREQ:-2}
SAVE_INTERVAL_UPDATES=${SAVE_INTERVAL_UPDATES:-0}
VALIDATE_INTERVAL_UPDATES=${VALIDATE_INTERVAL_UPDATES:-2000}
PATCH_IMAGE_SIZE=${PATCH_IMAGE_SIZE:-384}
NUM_FRAMES=${NUM_FRAMES:-8}
PATCH_FRAME_SIZE=${PATCH_FRAME_SIZE:-224}
VIDEO_ENCODER=${VIDEO_ENCODER-all_resnext101}
AUDIO_ENCODER=${AUDIO_ENCODER:-pann_cnn14}
SEARCH='{"beam":5,"unnormalized":true,"temperature":1.0,"stop_on_max_len":true}'
EVAL_ARGS=${EVAL_ARGS:-$SEARCH}
source "$(dirname "${BASH_SOURCE[0]}")/../unival_caption_stage_1.sh"

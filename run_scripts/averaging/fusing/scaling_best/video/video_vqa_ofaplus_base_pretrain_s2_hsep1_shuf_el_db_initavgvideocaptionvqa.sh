#!/usr/bin/env bash
# Fusing: finetunes the average of several tasks' models with the recipe for questions about films.
#
# usage: bash run_scripts/averaging/fusing/scaling_best/video/video_vqa_ofaplus_base_pretrain_s2_hsep1_shuf_el_db_initavgvideocaptionvqa.sh [KEY=VALUE ...]
#   The settings are those of run_scripts/vqa/unival_vqa.sh.
INIT_FROM=${INIT_FROM-logs/ofa/pretrained_models/average_models/avg_vid_capvqa.pt}
SAVE_DIR=${SAVE_DIR:-logs/ofa/checkpoints/vqa/$(basename "${BASH_SOURCE[0]}" .sh)}
source "$(dirname "${BASH_SOURCE[0]}")/../../../../vqa/video/unival_video_vqa.sh"

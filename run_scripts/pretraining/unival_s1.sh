#!/usr/bin/env bash
# Pretrains UnIVAL on pictures, stage 1 of 3: captions, questions, boxes and CC12M, from BART (384 px, 2 rows a GPU x 2
# batches on 8 GPUs a node; the rate of learning falls over 50 epochs, the published stage 2 starts from epoch 15).
# docs/pretraining.md tells what the rows are and how sources are mixed.
#
# usage: bash run_scripts/pretraining/unival_s1.sh [KEY=VALUE ...]
#   Stage 2 is unival_s2.sh, stage 3 unival_s2_hs.sh; each starts from the one before it. On several nodes:
#   sbatch --nodes 4 --ntasks-per-node 1 --gpus-per-node 8 --wrap "srun bash run_scripts/pretraining/unival_s1.sh"
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"
pretraining_settings "$@"

FOLDER=data/ofa/pretrain_ours
DATA=${DATA:-$FOLDER/vision_language_caption.tsv}
IMAGE_TEXT_DATA=${IMAGE_TEXT_DATA-$FOLDER/cc12m.tsv}
IMAGE_TEXT_CNT=${IMAGE_TEXT_CNT:-8}
IMAGE_TEXT_VQA_DATA=${IMAGE_TEXT_VQA_DATA-$FOLDER/vision_language_qa.tsv}
IMAGE_TEXT_VQA_CNT=${IMAGE_TEXT_VQA_CNT:-1}
IMAGE_TEXT_GROUND_DATA=${IMAGE_TEXT_GROUND_DATA-$FOLDER/vision_language_ground.tsv}
IMAGE_TEXT_GROUND_CNT=${IMAGE_TEXT_GROUND_CNT:-1}
NEG_SAMPLE_DIR=${NEG_SAMPLE_DIR:-$FOLDER/negative_sample}
INIT_FROM=${INIT_FROM-logs/ofa/pretrained_models/bart.base/model.pt}
INIT_FLAG=${INIT_FLAG:---init-from}
RESNET=${RESNET-logs/pretrained_models/resnet101_a1h-36d3f2aa.pth}
SAVE_DIR=${SAVE_DIR:-logs/ofa/checkpoints/pretrain/unival_s1}
LR=${LR:-2e-4}
BATCH_SIZE=${BATCH_SIZE:-2}
PATCH_IMAGE_SIZE=${PATCH_IMAGE_SIZE:-384}
SAMPLE_PATCH_NUM=${SAMPLE_PATCH_NUM:-144}

pretrain

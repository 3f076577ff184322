#!/usr/bin/env bash
# Draws pictures for the captions of a file, keeps those that CLIP finds best and scores them (16 pictures a caption, the
# best one of them in GEN_IMAGES/top1): RESULTS/<SPLIT>_predict.json, CLIP's score in <SPLIT>_predict.meta.json.
#
# usage: bash run_scripts/image_gen/eval/eval_image_gen.sh [KEY=VALUE ...]
#   BEAM          pictures drawn for a caption      SAMPLING_TOPK  codes to draw from      TEMPERATURE
#   GEN_IMAGES    folder for the pictures: all_results/ and top1/; take a new one for other captions (default: RESULTS)
#   VQGAN, VQGAN_CONFIG  image tokenizer: last.ckpt, model.yaml
#   CLIP          weights of CLIP; empty: pictures are ranked by their probability
#   CODE_IMAGE_SIZE  side of the pictures in pixels; a code spans 8 x 8 of them
#   INCEPTION     weights of the Inception network: also computes the Inception score and FID of GEN_IMAGES/top1
#   GT_STAT       what FID compares them with: statistics of real pictures (.npz), or a folder of them
#   SCORE_BATCH_SIZE  pictures that the Inception network sees at a time
source "$(dirname "${BASH_SOURCE[0]}")/../common.sh"
evaluation_settings "$@"

DATA=${DATA:-$PICTURES/coco_vqgan_full_test.tsv}
CHECKPOINT=${CHECKPOINT:-$DRAWN_CHECKPOINTS/unival_image_gen_stage_2/5000_0_1e-6/checkpoint_best.pt}
RESULTS=${RESULTS:-results/image_gen/unival_image_gen_stage_2}
SPLIT=${SPLIT-test}
BEAM=${BEAM:-16}
SEED=${SEED:-42}
GEN_IMAGES=${GEN_IMAGES:-$RESULTS}
GT_STAT=${GT_STAT:-$PICTURES/gt_stat.npz}

check_one_drawing
[[ -z ${INCEPTION:-} ]] || { need "$INCEPTION" "INCEPTION"; need "$GT_STAT" "GT_STAT"; }
choose_drawing
evaluate image_gen --selected-cols "${SELECTED_COLS:-0,2,1}" --batch-size "${BATCH_SIZE:-1}" --max-src-length 64 \
    --sampling-topk "${SAMPLING_TOPK:-256}" --temperature "${TEMPERATURE:-1.0}" "${DRAWING[@]}"
score_drawn

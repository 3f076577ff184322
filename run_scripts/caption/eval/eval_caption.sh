#!/usr/bin/env bash
# Captions the pictures of a file and scores them: RESULTS/<SPLIT>_predict.json, scores in <SPLIT>_predict.meta.json.
#
# usage: bash run_scripts/caption/eval/eval_caption.sh [KEY=VALUE ...]
#   CIDER_DF      document frequencies (.json); empty: counted in DATA
#   COCO_JSON     references in COCO's format: also computes BLEU, METEOR, ROUGE-L and CIDEr (needs the extra [coco])
#   MAX_LEN_B, NO_REPEAT, ZERO_SHOT=--zero-shot
#   UNNORMALIZED  flags: --unnormalized; empty: captions are compared by their mean log-probability a symbol
#   IMAGES        flags: --read-from-img-path if the pictures are paths below IMAGE_DIR
#   TASK          caption, video_caption or audio_caption
source "$(dirname "${BASH_SOURCE[0]}")/../../common.sh"
evaluation_settings "$@"

DATA=${DATA:-data/ofa/caption_data/caption_test.tsv}
CHECKPOINT=${CHECKPOINT:-logs/ofa/checkpoints/caption/unival_caption_stage_1/checkpoint_best.pt}
RESULTS=${RESULTS:-results/caption}
SPLIT=${SPLIT-test}
PRECISION=${PRECISION-}

df=()
[[ -n ${CIDER_DF:-} ]] && df+=(--eval-cider-cached-tokens "$CIDER_DF" --caption-cider-df "$CIDER_DF")
# shellcheck disable=SC2086  # IMAGES, UNNORMALIZED and ZERO_SHOT hold several words
evaluate "${TASK:-caption}" --selected-cols "${SELECTED_COLS:-1,4,2}" --batch-size "${BATCH_SIZE:-16}" \
    --patch-image-size "${PATCH_IMAGE_SIZE:-480}" --max-len-b "${MAX_LEN_B:-22}" \
    --no-repeat-ngram-size "${NO_REPEAT:-3}" ${UNNORMALIZED---unnormalized} --scoring caption "${df[@]}" \
    ${IMAGES:-} ${ZERO_SHOT:-}

[[ -z ${COCO_JSON:-} ]] || need "$COCO_JSON" "COCO_JSON"
for result in "${EVALUATED[@]}"; do
    [[ -n ${DRY_RUN:-} ]] || tail -n 1 "$(dirname "$result")/generate-$(basename "$result").txt"
    [[ -z ${COCO_JSON:-} ]] || perform python "$ROOT/run_scripts/caption/coco_eval.py" "${result}_predict.json" "$COCO_JSON"
done

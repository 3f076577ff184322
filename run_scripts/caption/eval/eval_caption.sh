#!/usr/bin/env bash
# Captions the pictures of a file and scores them: RESULTS/<SPLIT>_predict.json, scores in <SPLIT>_predict.meta.json.
#
# usage: bash run_scripts/caption/eval/eval_caption.sh [KEY=VALUE ...]
#   DATA          file to caption          SELECTED_COLS  its columns id, picture, references
#   CHECKPOINT    what fairseq-train has written
#   TEXT          tokenizer flags (default: --bpe-dir BPE_DIR)      BPE_DIR
#   RESULTS       folder for results       SPLIT          name of the result files
#   BATCH_SIZE, PATCH_IMAGE_SIZE, BEAM, MAX_LEN_B, NO_REPEAT, WORKERS
#   CIDER_DF      document frequencies (.json); empty: counted in DATA
#   COCO_JSON     references in COCO's format: also computes BLEU, METEOR, ROUGE-L and CIDEr (needs the extra [coco])
#   EXTRA         further flags for fairseq-generate
source "$(dirname "${BASH_SOURCE[0]}")/../../common.sh"
settings "$@"

DATA=${DATA:-data/ofa/caption_data/caption_test.tsv}
CHECKPOINT=${CHECKPOINT:-logs/ofa/checkpoints/caption/unival_caption_stage_1/checkpoint_best.pt}
TEXT=${TEXT:---bpe-dir ${BPE_DIR:-utils/BPE}}
RESULTS=${RESULTS:-results/caption}
SPLIT=${SPLIT:-test}

need "$DATA" "DATA"
need "$CHECKPOINT" "CHECKPOINT"
df=()
[[ -n ${CIDER_DF:-} ]] && df+=(--eval-cider-cached-tokens "$CIDER_DF" --caption-cider-df "$CIDER_DF")

# shellcheck disable=SC2086  # TEXT and EXTRA hold several words
fairseq-generate "$DATA" --user-dir "$ROOT/unival_plugin" --task caption \
    --selected-cols "${SELECTED_COLS:-1,4,2}" $TEXT --patch-image-size "${PATCH_IMAGE_SIZE:-480}" \
    --path "$CHECKPOINT" --gen-subset "$SPLIT" --batch-size "${BATCH_SIZE:-16}" --num-workers "${WORKERS:-2}" \
    --beam "${BEAM:-5}" --max-len-b "${MAX_LEN_B:-22}" --no-repeat-ngram-size "${NO_REPEAT:-3}" --unnormalized \
    --scoring caption "${df[@]}" --seed 7 --results-path "$RESULTS" ${EXTRA:-}
tail -n 1 "$RESULTS/generate-$SPLIT.txt"

if [[ -n ${COCO_JSON:-} ]]; then
    need "$COCO_JSON" "COCO_JSON"
    python "$ROOT/run_scripts/caption/coco_eval.py" "$RESULTS/${SPLIT}_predict.json" "$COCO_JSON"
fi

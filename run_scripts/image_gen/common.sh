# Shared by the scripts of text to picture: `source` it first; it brings the other common.sh along.

source "$(dirname "${BASH_SOURCE[0]}")/../common.sh"

PICTURES=data/ofa/image_gen_data
MODELS=logs/ofa/pretrained_models
DRAWN_CHECKPOINTS=logs/ofa/checkpoints/image_gen

# choose_drawing: DRAWING then holds the flags of what turns codes into pictures and judges these, and where they go
choose_drawing() {
    VQGAN=${VQGAN:-$MODELS/vqgan/last.ckpt}
    VQGAN_CONFIG=${VQGAN_CONFIG:-$MODELS/vqgan/model.yaml}
    CLIP=${CLIP-$MODELS/clip/ViT-B-16.pt}
    need "$VQGAN" "VQGAN, weights of the tokenizer"
    need "$VQGAN_CONFIG" "VQGAN_CONFIG, its sizes"
    DRAWING=(--code-image-size "${CODE_IMAGE_SIZE:-256}" --vqgan-model-path "$VQGAN" --vqgan-config-path "$VQGAN_CONFIG")
    if [[ -n $CLIP ]]; then
        need "$CLIP" "CLIP, which compares pictures with captions"
        DRAWING+=(--clip-model-path "$CLIP")
    fi
    [[ -z $GEN_IMAGES ]] || DRAWING+=(--gen-images-path "$GEN_IMAGES")
}

# finetune_drawing FLAGS...: what both stages have in common; they end by MAX_UPDATE updates, not by epochs
finetune_drawing() {
    local precision
    DATA=${DATA:-$(printf "$PICTURES/coco_vqgan_train_%d.tsv," {1..10})$PICTURES/coco_vqgan_dev.tsv}
    precision=$(default_precision)
    PRECISION=${PRECISION-${precision/ 512/ 256}}
    choose_drawing
    finetune image_gen --selected-cols "${SELECTED_COLS:-0,2,1}" --max-src-length 64 "${DRAWING[@]}" \
        --max-update "$MAX_UPDATE" --total-num-update "$MAX_UPDATE" --warmup-updates "$WARMUP_UPDATES" --lr "$LR" \
        --batch-size-valid "${BATCH_SIZE_VALID:-1}" --best-checkpoint-metric score "$@"
}

# check_one_drawing: the pictures of several files or checkpoints must not be mixed
check_one_drawing() {
    [[ $DATA,$CHECKPOINT == "${DATA%%,*},${CHECKPOINT%%,*}" ]] && return
    echo "$0: error: several files or checkpoints would mix their pictures in $GEN_IMAGES: evaluate one at a time" >&2
    exit 2
}

# score_drawn: Inception score and FID of the best pictures, if INCEPTION is given
score_drawn() {
    local scored=(--path1 "$GEN_IMAGES/top1" --batch-size "${SCORE_BATCH_SIZE:-128}" --weights "${INCEPTION:-}")
    if [[ -n ${INCEPTION:-} ]]; then
        perform python "$ROOT/run_scripts/image_gen/inception_score.py" "${scored[@]}"
        perform python "$ROOT/run_scripts/image_gen/fid_score.py" "${scored[@]}" --path2 "$GT_STAT"
    elif [[ -z ${DRY_RUN:-} ]]; then
        echo "Inception score and FID of $GEN_IMAGES/top1: give INCEPTION=<weights file> and GT_STAT"
    fi
}

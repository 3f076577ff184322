#!/usr/bin/env bash
# Finetunes UnIVAL for captions with cross entropy (COCO: 10 epochs, 480 px, 16 pictures a GPU on 8 GPUs).
#
# usage: bash run_scripts/caption/unival_caption_stage_1.sh [KEY=VALUE ...]
#   DATA          train files and, last, the validation file, separated by commas
#   INIT_FROM     checkpoint to start from; empty trains from scratch. An interrupted run continues from SAVE_DIR
#   BPE_DIR       folder with encoder.json, vocab.bpe, dict.txt
#   CIDER_DF      document frequencies (.json); empty: counted in the validation file
#   RESNET        torchvision ResNet-101 file for the picture trunk when training from scratch
#   SAVE_DIR, MAX_EPOCH, LR, BATCH_SIZE, UPDATE_FREQ, PATCH_IMAGE_SIZE, WARMUP_RATIO, WORKERS, SEED
#   PRECISION     flags for the number format (GPU default: --fp16; CPU default: none)
#   EXTRA         further flags for fairseq-train
#   PROCESSES     processes on this node (default: one per GPU)
source "$(dirname "${BASH_SOURCE[0]}")/../common.sh"
settings "$@"

FOLDER=data/ofa/caption_data
DATA=${DATA:-$(printf "$FOLDER/caption_stage1_train_%d.tsv," {1..10})$FOLDER/caption_val.tsv}
BPE_DIR=${BPE_DIR:-utils/BPE}
INIT_FROM=${INIT_FROM-logs/ofa/checkpoints/pretrain/unival_s2_hs/checkpoint1.pt}
SAVE_DIR=${SAVE_DIR:-logs/ofa/checkpoints/caption/unival_caption_stage_1}
PRECISION=${PRECISION-$(default_precision)}

need "${DATA##*,}" "validation file, the last entry of DATA"
need "$BPE_DIR" "BPE_DIR"
start=()
if [[ -n $INIT_FROM ]]; then
    need "$INIT_FROM" "INIT_FROM; set it empty to train from scratch"
    start+=(--finetune-from-model "$INIT_FROM")
fi
[[ -n ${RESNET:-} ]] && start+=(--resnet-model-path "$RESNET")
[[ -n ${CIDER_DF:-} ]] && start+=(--eval-cider-cached-tokens "$CIDER_DF")

# shellcheck disable=SC2086  # PRECISION and EXTRA hold several words
launch fairseq-train "$DATA" \
    --user-dir "$ROOT/unival_plugin" --task caption --selected-cols "${SELECTED_COLS:-0,4,2}" --bpe-dir "$BPE_DIR" \
    --arch "${ARCH:-unival_base}" --image-encoder-name timm_resnet \
    --scale-attn --scale-fc --scale-heads --disable-entangle \
    --encoder-normalize-before --decoder-normalize-before --share-decoder-input-output-embed --share-all-embeddings \
    --layernorm-embedding --patch-layernorm-embedding --code-layernorm-embedding --add-type-embedding \
    --freeze-encoder-embedding --freeze-decoder-embedding --sample-patch-num 784 \
    --encoder-drop-path-rate 0.1 --decoder-drop-path-rate 0.1 --dropout 0.1 --attention-dropout 0.0 \
    --criterion adjust_label_smoothed_encouraging_loss --label-smoothing 0.1 --log-end 0.75 \
    --drop-worst-ratio 0.05 --drop-worst-after 6000 --drop-best-ratio 0.05 --drop-best-after 6000 \
    --batch-size "${BATCH_SIZE:-16}" --update-freq "${UPDATE_FREQ:-1}" --max-epoch "${MAX_EPOCH:-10}" \
    --optimizer adam --adam-betas "(0.9,0.999)" --adam-eps 1e-08 --weight-decay 0.01 --clip-norm 1.0 \
    --lr "${LR:-1e-5}" --lr-scheduler polynomial_decay_ratio --warmup-ratio "${WARMUP_RATIO:-0.06}" \
    --max-src-length 80 --max-tgt-length 20 --patch-image-size "${PATCH_IMAGE_SIZE:-480}" --num-bins 1000 \
    --eval-cider --eval-args '{"beam":5,"stop_on_max_len":true,"max_len_b":22,"no_repeat_ngram_size":3}' \
    --best-checkpoint-metric cider --maximize-best-checkpoint-metric --fixed-validation-seed 7 \
    --no-epoch-checkpoints --keep-best-checkpoints 1 --save-interval-updates "${SAVE_INTERVAL_UPDATES:-2000}" \
    --keep-interval-updates 1 --num-workers "${WORKERS:-4}" --seed "${SEED:-1}" \
    --log-format simple --log-interval 10 --save-dir "$SAVE_DIR" "${start[@]}" $PRECISION ${EXTRA:-}

#!/usr/bin/env bash
# The whole way on the CPU in minutes: installs what is missing (setup.sh), makes pictures of digits, trains a small captioner, evaluates it on pictures of
# digits it has never seen, and draws a contact sheet. No data or weights are downloaded.
#
# usage: bash run_scripts/quickstart.sh [KEY=VALUE ...]
#   FOLDER        where everything goes (default: runs/quickstart); an interrupted run continues there
#   MAX_EPOCH, LR, BATCH_SIZE, TRAIN_ROWS, SEED, WORKERS
#   PROCESSES     processes on this machine (default: 1 on the CPU, else one per GPU)
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"
settings "$@"

if ! command -v unival >/dev/null; then
    bash "$ROOT/run_scripts/setup.sh"
    PATH=$ROOT/.venv/bin:$PATH
fi
# so small a network gains nothing from more threads, and loses much when another program runs beside it
export OMP_NUM_THREADS=${OMP_NUM_THREADS:-1}
FOLDER=${FOLDER:-runs/quickstart}
DATA=$FOLDER/data
RUN=$FOLDER/model
TEXT="--bpe sentencepiece --sentencepiece-model $DATA/digits.model --code-dict-size 64 --num-bins 64"

if [[ ! -e $DATA/manifest.json ]]; then
    echo "== making pictures of digits"
    python "$ROOT/dataset_tools/digits.py" --output "$DATA" --train-rows "${TRAIN_ROWS:-12000}" --epoch-files 8 --easy-files 1 \
        --pictures 36
fi

echo "== training (log: $RUN/train.log)"
mkdir -p "$RUN"
# shellcheck disable=SC2086  # TEXT holds several words
(launch fairseq-train "$(printf "$DATA/train_%d.tsv," {1..8})$DATA/val.tsv" \
    --user-dir "$ROOT/unival_plugin" --task caption --selected-cols 0,4,2 $TEXT --patch-image-size 64 \
    --arch unival_tiny --criterion adjust_label_smoothed_cross_entropy \
    --batch-size "${BATCH_SIZE:-32}" --max-epoch "${MAX_EPOCH:-8}" --num-workers "${WORKERS:-1}" \
    --optimizer adam --adam-betas "(0.9,0.98)" --weight-decay 0.01 --clip-norm 1.0 \
    --lr "${LR:-1e-3}" --lr-scheduler polynomial_decay_ratio --warmup-ratio 0.06 \
    --eval-cider --eval-args '{"beam":1,"max_len_b":16}' \
    --best-checkpoint-metric exact_match --maximize-best-checkpoint-metric --no-epoch-checkpoints \
    --save-interval-updates 500 --keep-interval-updates 1 --seed "${SEED:-1}" \
    --log-format simple --log-interval 100 --save-dir "$RUN") 2>&1 | tee -a "$RUN/train.log" | grep --line-buffered -E "train_inner|valid \||error|damaged" || true
need "$RUN/checkpoint_best.pt" "training failed, see $RUN/train.log"
cp "$DATA/digits.model" "$RUN/"

echo "== evaluating on the test pictures"
rm -f "$FOLDER/captions.jsonl" "$FOLDER/captions.jsonl.meta.json"
bash "$ROOT/run_scripts/caption/eval/eval_caption.sh" DATA="$DATA/test.tsv" SELECTED_COLS=0,4,2 TEXT="$TEXT" \
    CHECKPOINT="$RUN/checkpoint_best.pt" PATCH_IMAGE_SIZE=64 RESULTS="$FOLDER/results" BATCH_SIZE=50 WORKERS=0 \
    BEAM=5 MAX_LEN_B=16 NO_REPEAT=0

echo "== captioning a folder of pictures"
unival predict --task caption --path "$RUN/checkpoint_best.pt" "$DATA/pictures" --output "$FOLDER/captions.jsonl"

python "$ROOT/dataset_tools/contact_sheet.py" --tsv "$DATA/test.tsv" --selected-cols 0,4,2 \
    --predictions "$FOLDER/results/test_predict.json" --output "$FOLDER/contact_sheet.png" --limit 36
echo "captions of single pictures: $FOLDER/captions.jsonl; contact sheet: $FOLDER/contact_sheet.png"

#!/usr/bin/env bash
# The whole way on the CPU in minutes: installs what is missing (setup.sh), makes pictures of digits, trains a small
# captioner, evaluates it on pictures of digits it has never seen, and draws a contact sheet. No data or weights are
# downloaded. quickstart_answers.sh goes on from here.
#
# usage: bash run_scripts/quickstart.sh [KEY=VALUE ...]
#   FOLDER        where everything goes (default: runs/quickstart); an interrupted run continues there
#   MAX_EPOCH, LR, BATCH_SIZE, TRAIN_ROWS, SEED, WORKERS
#   PROCESSES     processes on this machine (default: 1 on the CPU, else one per GPU)
source "$(dirname "${BASH_SOURCE[0]}")/digits.sh"
settings "$@"

if ! command -v unival >/dev/null; then
    bash "$ROOT/run_scripts/setup.sh"
    PATH=$ROOT/.venv/bin:$PATH
fi
FOLDER=${FOLDER:-runs/quickstart}
DATA=$FOLDER/data
RUN=$FOLDER/model
TEXT=$(digits_text "$DATA")

make_digits "$DATA" --pictures 36
echo "== training (log: $RUN/train.log)"
train_on_digits caption "$RUN" "$DATA/" --selected-cols 0,4,2 \
    --eval-cider --eval-args '{"beam":1,"max_len_b":16}' --best-checkpoint-metric exact_match

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

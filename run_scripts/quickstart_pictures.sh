#!/usr/bin/env bash
# Text to picture on the CPU in minutes, nothing is downloaded: makes pictures of digits, trains a tokenizer that turns
# pictures into 64 codes and a small CLIP, trains a network that draws from captions (stage 1), goes on with CLIP as the
# reward (stage 2), draws the captions of the test file, and lets a classifier read what was drawn.
#
# usage: bash run_scripts/quickstart_pictures.sh [KEY=VALUE ...]
#   FOLDER        where everything goes (default: runs/pictures); an interrupted run continues there
#   MAX_UPDATE, LR, BATCH_SIZE                      of stage 1
#   REWARD_UPDATES, REWARD_LR, REWARD_BATCH_SIZE    of stage 2; REWARD_UPDATES=0 leaves it out
#   DRAWN         pictures for each test caption, of which CLIP chooses the best
#   TRAIN_ROWS, TRAIN_FILES, SEED
#   PROCESSES     processes on this machine (default: 2 on the CPU, else one per GPU)
source "$(dirname "${BASH_SOURCE[0]}")/digits.sh"
settings "$@"

if ! command -v unival >/dev/null; then
    bash "$ROOT/run_scripts/setup.sh"
    PATH=$ROOT/.venv/bin:$PATH
fi
FOLDER=${FOLDER:-runs/pictures}
DATA=$FOLDER/data
TOKENIZER=$FOLDER/tokenizer
FILES=${TRAIN_FILES:-4}
gpus=$(count_gpus)
export PROCESSES=${PROCESSES:-$((gpus > 0 ? gpus : 2))} OMP_NUM_THREADS=${OMP_NUM_THREADS:-1} SEED=${SEED:-1}

# bfloat16 halves the time of a step on processors that multiply in it, and only there
precision=
if grep -qE "avx512_bf16|amx_bf16" /proc/cpuinfo 2>/dev/null; then
    precision="--autocast bf16"
fi

make_digits "$DATA" --epoch-files "$FILES"

# beside COMMAND ARGUMENTS...: runs it in the background until `join`; in a dry run shows it at once
beside() {
    OTHER=
    if [[ -n ${DRY_RUN:-} ]]; then "$@"; else "$@" & OTHER=$!; fi
}
join() { [[ -z $OTHER ]] || wait "$OTHER"; }

# learn_pictures TOOL FOLDER FLAGS...: trains the tokenizer or CLIP, unless it is there
learn_pictures() {
    [[ -e $2/manifest.json ]] || perform python "$ROOT/dataset_tools/$1.py" --output "$2" "${@:3}"
}
echo "== training the tokenizer and CLIP"
beside learn_pictures digits_tokenizer "$TOKENIZER" --rows "$DATA/train_2.tsv" --selected-cols 0,4
# shellcheck disable=SC2046  # one word a file
learn_pictures digits_clip "$FOLDER/clip" --rows $(printf "$DATA/train_%d.tsv " $(seq "$FILES")) --measure "$DATA/val.tsv" ||
    { kill "$OTHER"; exit 1; }
join

echo "== turning pictures into codes"
# encode SPLIT: writes DATA/codes_SPLIT.tsv, unless it is there
encode() {
    [[ -e $DATA/codes_$1.tsv ]] ||
        perform python "$ROOT/dataset_tools/encode_pictures.py" --tsv "$DATA/$1.tsv" --selected-cols 0,4,2 \
            --vqgan-model-path "$TOKENIZER/last.ckpt" --vqgan-config-path "$TOKENIZER/model.yaml" \
            --code-image-size 64 --output "$DATA/codes_$1.tsv"
}
export -f encode perform
export DATA ROOT TOKENIZER
jobs=2
[[ -z ${DRY_RUN:-} ]] || jobs=1
{ printf 'train_%d\n' $(seq "$FILES"); printf 'val\ntest\n'; } | xargs -P $jobs -I{} bash -euc 'encode {}'

# one file an epoch: twice the one with single digits, then the others again and again; rewards are for the others alone
mixed=$(printf "$DATA/codes_train_%d.tsv," $(seq 2 "$FILES"))
epochs=$(printf "$DATA/codes_train_%d.tsv," 1 1)$mixed$mixed$mixed$mixed

# what all three scripts are told
text="--bpe sentencepiece --sentencepiece-model $DATA/digits.model --code-dict-size 128 --num-bins 64"
common=(TEXT="$text" CODE_IMAGE_SIZE=64 VQGAN="$TOKENIZER/last.ckpt" VQGAN_CONFIG="$TOKENIZER/model.yaml"
    CLIP="$FOLDER/clip/clip.safetensors" GEN_IMAGES=)
training=(EXTRA="$precision" ARCH=unival_tiny
    NETWORK="--entangle-position-embedding --decoder-layers 4" DROPOUT=0 DROP_PATH=0 WORKERS=0
    BATCH_SIZE_VALID=50 EVAL_ARGS='{"beam":4,"temperature":0.9}')

echo "== stage 1: cross entropy (log: $FOLDER/stage_1/train.log)"
bash "$ROOT/run_scripts/image_gen/unival_image_gen_stage_1.sh" "${common[@]}" "${training[@]}" INIT_FROM= \
    DATA="$epochs$DATA/codes_val.tsv" SAVE_DIR="$FOLDER/stage_1" MAX_UPDATE="${MAX_UPDATE:-2000}" WARMUP_UPDATES=120 LR="${LR:-2e-3}" \
    BATCH_SIZE="${BATCH_SIZE:-32}" UPDATE_FREQ=1 SAVE_INTERVAL=1 VALIDATE_INTERVAL=5 2>&1 |
    follow_log "$FOLDER/stage_1"
perform cp "$DATA/digits.model" "$FOLDER/stage_1/"
LAST=stage_1

if ((${REWARD_UPDATES:-80} > 0)); then
    echo "== stage 2: CLIP as the reward (log: $FOLDER/stage_2/train.log)"
    bash "$ROOT/run_scripts/image_gen/unival_image_gen_stage_2.sh" "${common[@]}" "${training[@]}" \
        DATA="$mixed$DATA/codes_val.tsv" INIT_FROM="$FOLDER/stage_1/checkpoint_last.pt" SAVE_DIR="$FOLDER/stage_2" FREEZE= \
        MAX_UPDATE="${REWARD_UPDATES:-80}" LR="${REWARD_LR:-2e-4}" BATCH_SIZE="${REWARD_BATCH_SIZE:-16}" \
        SCST_ARGS='{"beam":5}' SAVE_INTERVAL_UPDATES=40 VALIDATE_INTERVAL_UPDATES=0 2>&1 |
        follow_log "$FOLDER/stage_2"
    perform cp "$DATA/digits.model" "$FOLDER/stage_2/"
    LAST=stage_2
fi

echo "== drawing the captions of the test file"
# draw_test STAGE: draws with the checkpoint of a stage, and lets the classifier read what CLIP finds best
draw_test() (
    results=$FOLDER/results/$1
    [[ -n ${DRY_RUN:-} ]] || exec >"$FOLDER/$1/test.log" 2>&1
    bash "$ROOT/run_scripts/image_gen/eval/eval_image_gen.sh" "${common[@]}" DATA="$DATA/codes_test.tsv" \
        CHECKPOINT="$FOLDER/$1/checkpoint_last.pt" RESULTS="$results" GEN_IMAGES="$results" BATCH_SIZE=50 WORKERS=0 \
        BEAM="${DRAWN:-8}" SAMPLING_TOPK=128 TEMPERATURE=0.9 EXTRA=--quiet
    perform python "$ROOT/dataset_tools/digits_recognition.py" --predictions "$results/test_predict.json" \
        --pictures "$results/top1" --output "$results/recognised.json" --overwrite
)
stages=(stage_1)
OTHER=
if [[ $LAST == stage_2 ]]; then
    stages+=(stage_2)
    beside draw_test stage_1
fi
draw_test "$LAST" || { cat "$FOLDER/$LAST/test.log"; exit 1; }
join || { cat "$FOLDER/stage_1/test.log"; exit 1; }
for stage in "${stages[@]}"; do
    [[ -n ${DRY_RUN:-} ]] || { echo "== $stage" && grep -v "| INFO |" "$FOLDER/$stage/test.log"; }
done

echo "== drawing a sentence"
perform unival predict --task image_gen --path "$FOLDER/$LAST/checkpoint_last.pt" --text "a three above a seven" --draw "$FOLDER/drawn"
perform python "$ROOT/dataset_tools/contact_sheet.py" --predictions "$FOLDER/results/$LAST/test_predict.json" \
    --image-dir "$FOLDER/results/$LAST/top1" --output "$FOLDER/contact_sheet.png" --limit 36
echo "contact sheet: $FOLDER/contact_sheet.png"

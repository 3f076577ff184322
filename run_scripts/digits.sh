# Shared by the quickstarts: `source` it first; it brings common.sh along. Its network is so small that a CPU trains it in
# minutes.

source "$(dirname "${BASH_SOURCE[0]}")/common.sh"

# digits_text FOLDER: the flags of the tokenizer that make_digits has put there
digits_text() {
    echo "--bpe sentencepiece --sentencepiece-model $1/digits.model --code-dict-size 64 --num-bins 64"
}

# make_digits FOLDER FLAGS...: rows for eight epochs, unless they are there; the first epoch has one digit a picture
make_digits() {
    [[ ! -e $1/manifest.json ]] || return 0
    echo "== making pictures, films or sounds of digits"
    perform python "$ROOT/dataset_tools/digits.py" --output "$1" --train-rows "${TRAIN_ROWS:-12000}" --epoch-files 8 \
        --easy-files 1 "${@:2}"
}

# train_on_digits TASK SAVE_DIR PREFIX FLAGS...: on the files that begin with PREFIX; an interrupted run continues
train_on_digits() {
    local task=$1 run=$2 prefix=$3
    shift 3
    # so small a network gains nothing from more threads, and loses much when another program runs beside it
    export OMP_NUM_THREADS=${OMP_NUM_THREADS:-1}
    # shellcheck disable=SC2086  # TEXT holds several words
    (launch fairseq-train "$(printf "${prefix}train_%d.tsv," {1..8})${prefix}val.tsv" \
        --user-dir "$ROOT/unival_plugin" --task "$task" $TEXT --patch-image-size 64 \
        --arch unival_tiny --entangle-position-embedding --criterion adjust_label_smoothed_cross_entropy \
        --batch-size "${BATCH_SIZE:-32}" --max-epoch "${MAX_EPOCH:-8}" --num-workers "${WORKERS:-1}" \
        --optimizer adam --adam-betas "(0.9,0.98)" --weight-decay 0.01 --clip-norm 1.0 \
        --lr "${LR:-1e-3}" --lr-scheduler polynomial_decay_ratio --warmup-ratio 0.06 \
        --maximize-best-checkpoint-metric --no-epoch-checkpoints --save-interval-updates 500 --keep-interval-updates 1 \
        --seed "${SEED:-1}" --log-format simple --log-interval 100 --save-dir "$run" "$@") 2>&1 | follow_log "$run" ||
        { echo "$0: error: the training of $task failed, see $run/train.log" >&2; exit 1; }
    perform cp "${prefix%/*}/digits.model" "$run/"
}

# teach_digits TASK NAME: trains TASK on the files of DATA that begin with NAME_, evaluates it and draws a contact sheet,
# all in FOLDER. FLAGS, METRIC, EPOCHS and EVALUATION (a script with its settings) say how; INIT_FROM is the start
teach_digits() {
    local task=$1 name=$2 run=$FOLDER/$1 start=()
    [[ -z $INIT_FROM ]] || start=(--finetune-from-model "$INIT_FROM")
    echo "== training $task (log: $run/train.log)"
    MAX_EPOCH=${MAX_EPOCH:-$EPOCHS} train_on_digits "$task" "$run" "$DATA/${name}_" "${start[@]}" "${FLAGS[@]}" --dropout 0 \
        --best-checkpoint-metric "$METRIC"
    echo "== evaluating $task on the test files"
    bash "$ROOT/run_scripts/${EVALUATION[0]}" DATA="$DATA/${name}_test.tsv" CHECKPOINT="$run/checkpoint_best.pt" WORKERS=0 \
        BATCH_SIZE=50 RESULTS="$FOLDER/results" PATCH_IMAGE_SIZE=64 "${EVALUATION[@]:1}"
    perform python "$ROOT/dataset_tools/contact_sheet.py" --tsv "$DATA/${name}_test.tsv" --task "$task" --limit 36 \
        --predictions "$FOLDER/results/${name}_test_predict.json" --output "$FOLDER/${task}_sheet.png"
    echo "contact sheet: $FOLDER/${task}_sheet.png"
}

# follow_log FOLDER: keeps all lines of a training in FOLDER/train.log, shows those that tell how it goes
follow_log() {
    if [[ -n ${DRY_RUN:-} ]]; then
        cat
    else
        mkdir -p "$1"
        tee -a "$1/train.log" | grep --line-buffered -E "train_inner|valid \||error|damaged" || true
    fi
}

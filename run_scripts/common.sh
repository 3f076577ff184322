# Shared by all run scripts: `source` it first, then `settings "$@"`.
#
# Every knob of a script is an environment variable with a default, and may also be given as KEY=VALUE argument.
# The same script runs on the CPU, on one GPU, on several (torchrun) and under Slurm (one task per node).
# DRY_RUN=1 shows the commands instead of running them, and asks for no input file.

set -euo pipefail

ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
if [[ -z ${VIRTUAL_ENV:-} && -d $ROOT/.venv/bin ]]; then
    PATH=$ROOT/.venv/bin:$PATH
fi
export PYTHONWARNINGS=${PYTHONWARNINGS:-ignore}

common_help() { :; }

# settings KEY=VALUE...: takes the arguments of a script; anything else, or --help, prints the script's own header and
# what common_help tells
settings() {
    local argument
    for argument in "$@"; do
        case $argument in
            [A-Z]*=*) export "${argument%%=*}=${argument#*=}" ;;
            *)
                awk 'NR > 1 { if (!/^#/) exit; sub(/^# ?/, ""); print }' "$0"
                common_help
                [[ $argument == -h || $argument == --help ]] && exit 0
                echo "$0: error: unknown argument '$argument': settings are given as KEY=VALUE" >&2
                exit 2
                ;;
        esac
    done
}

# need FILE WHAT: stops with a clear line when an input is missing
need() {
    [[ -n ${DRY_RUN:-} || -e $1 ]] || { echo "$0: error: $1: no such file or folder ($2)" >&2; exit 2; }
}

# perform COMMAND ARGUMENTS...: runs it, or only shows it
perform() {
    if [[ -n ${DRY_RUN:-} ]]; then
        [[ $1 != exec ]] || shift
        printf '%q ' "$@"
        echo
    else
        "$@"
    fi
}

count_gpus() {
    if [[ -n ${CUDA_VISIBLE_DEVICES+set} ]]; then
        tr ',' '\n' <<<"$CUDA_VISIBLE_DEVICES" | grep -c . || true
    elif command -v nvidia-smi >/dev/null; then
        nvidia-smi --list-gpus 2>/dev/null | wc -l
    else
        echo 0
    fi
}

# flags for the number format that suits the machine
default_precision() {
    if (($(count_gpus) > 0)); then
        echo "--fp16 --fp16-scale-window 512"
    fi
}

# launch COMMAND ARGUMENTS...: one process, or one per GPU, on all nodes of a Slurm job
#   PROCESSES  processes on this node (default: number of GPUs, at least 1)
launch() {
    local command
    command=$(command -v "$1" || { [[ -n ${DRY_RUN:-} ]] && echo "$1"; }) || { echo "$0: error: $1 is not installed: pip install -e $ROOT" >&2; exit 2; }
    shift
    local gpus processes nodes=${SLURM_NNODES:-1}
    gpus=$(count_gpus)
    processes=${PROCESSES:-$((gpus > 0 ? gpus : 1))}
    if ((processes == 1 && nodes == 1)); then
        perform exec "$command" "$@"
        return
    fi
    local rendezvous=(--standalone)
    if ((nodes > 1)); then
        rendezvous=(--nnodes "$nodes" --node-rank "$SLURM_NODEID" --master-port "${MASTER_PORT:-29500}"
            --master-addr "$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1)")
    fi
    perform exec torchrun "${rendezvous[@]}" --nproc-per-node "$processes" "$command" "$@"
}

# tokenizer: TEXT holds the flags; without it GPT-2's files in BPE_DIR
tokenizer() {
    if [[ -z ${TEXT:-} ]]; then
        need "${BPE_DIR:=utils/BPE}" "BPE_DIR"
        TEXT="--bpe-dir $BPE_DIR"
    fi
}

# read_media TASK: MEDIA then holds the flags that say where and how a task's pictures, films or sounds are read;
# --image-dir is the folder of all three
read_media() {
    local folder=${IMAGE_DIR:-data}
    case $1 in
        video_*) folder=${VIDEO_DIR:-data} ;;
        audio_*) folder=${AUDIO_DIR:-data} ;;
    esac
    MEDIA=(--image-dir "$folder")
    [[ -z ${NUM_FRAMES:-} ]] || MEDIA+=(--num-frames "$NUM_FRAMES")
    [[ -z ${PATCH_FRAME_SIZE:-} ]] || MEDIA+=(--patch-frame-size "$PATCH_FRAME_SIZE")
}

# ---- finetuning: what the published scripts have in common

finetune_settings() {
    common_help() {
        cat <<'END'

Settings of all finetuning scripts:
  DATA          train files and, last, the validation file, separated by commas      SELECTED_COLS  their columns
  INIT_FROM     checkpoint to start from; empty trains from scratch. An interrupted run continues from SAVE_DIR
  BPE_DIR       folder with encoder.json, vocab.bpe, dict.txt      TEXT  other tokenizer flags in its place
  RESNET        torchvision ResNet-101 file for the picture trunk when training from scratch
  RESNEXT, PANN  files with weights to start the trunks of films and sounds from
  IMAGE_DIR     folder that picture paths are relative to (with EXTRA=--read-from-img-path)
  VIDEO_DIR, AUDIO_DIR  folders that paths of films and of sounds are relative to
  NUM_FRAMES, PATCH_FRAME_SIZE  frames of a film, and their side in pixels
  VIDEO_ENCODER, AUDIO_ENCODER  trunks of films and sounds; empty: none      MEL_BINS, HOP_SIZE  of the latter
  NETWORK       further flags of the network (default: those of UnIVAL)
  ARCH, SAVE_DIR, MAX_EPOCH, LR, WARMUP_RATIO, BATCH_SIZE, UPDATE_FREQ, PATCH_IMAGE_SIZE, LABEL_SMOOTHING, DROPOUT,
  DROP_PATH, SAMPLE_PATCH_NUM, VALIDATE_INTERVAL_UPDATES, SAVE_INTERVAL_UPDATES, WORKERS, SEED
  VALIDATE_INTERVAL, SAVE_INTERVAL  epochs from one validation, and one checkpoint, to the next
  PRECISION     flags for the number format (GPU default: --fp16; CPU default: none)
  EXTRA         further flags for fairseq-train; they come last, and so win
  PROCESSES     processes on this node (default: one per GPU)
  DRY_RUN=1     only show the command
END
    }
    settings "$@"
}

UNIVAL_NETWORK="--image-encoder-name timm_resnet --scale-attn --scale-fc --scale-heads --disable-entangle
    --encoder-normalize-before --decoder-normalize-before --share-decoder-input-output-embed --share-all-embeddings
    --layernorm-embedding --patch-layernorm-embedding --code-layernorm-embedding --add-type-embedding"

# choose_trunks: TRUNK_FLAGS then holds the flags of the trunks of films and sounds, and files that trunks start from
choose_trunks() {
    TRUNK_FLAGS=()
    [[ -z ${VIDEO_ENCODER:-} ]] || TRUNK_FLAGS+=(--video-encoder-name "$VIDEO_ENCODER")
    [[ -z ${AUDIO_ENCODER:-} ]] ||
        TRUNK_FLAGS+=(--audio-encoder-name "$AUDIO_ENCODER" --mel-bins "${MEL_BINS:-64}" --hop-size "${HOP_SIZE:-200}")
    start_trunk RESNET --resnet-model-path
    start_trunk RESNEXT --video-model-path
    start_trunk PANN --audio-model-path
}

# start_trunk SETTING FLAG
start_trunk() {
    [[ -n ${!1:-} ]] || return 0
    need "${!1}" "$1"
    TRUNK_FLAGS+=("$2" "${!1}")
}

# finetune TASK FLAGS...: fairseq-train on DATA from INIT_FROM, with the task's own flags
finetune() {
    local task=$1 start=()
    shift
    need "${DATA##*,}" "validation file, the last entry of DATA"
    tokenizer
    if [[ -n $INIT_FROM ]]; then
        need "$INIT_FROM" "INIT_FROM; set it empty to train from scratch"
        start+=(--finetune-from-model "$INIT_FROM")
    fi
    read_media "$task"
    choose_trunks

    # shellcheck disable=SC2086  # TEXT, NETWORK, PRECISION and EXTRA hold several words; TEXT may give other bins
    launch fairseq-train "$DATA" --user-dir "$ROOT/unival_plugin" --task "$task" --num-bins 1000 $TEXT "${MEDIA[@]}" \
        --arch "${ARCH:-unival_base}" ${NETWORK-$UNIVAL_NETWORK} "${TRUNK_FLAGS[@]}" \
        --sample-patch-num "${SAMPLE_PATCH_NUM:-784}" --dropout "${DROPOUT:-0.1}" --attention-dropout 0.0 \
        --encoder-drop-path-rate "${DROP_PATH:-0.1}" --decoder-drop-path-rate "${DROP_PATH:-0.1}" \
        --optimizer adam --adam-betas "(0.9,0.999)" --adam-eps 1e-08 --weight-decay 0.01 --clip-norm 1.0 \
        --lr-scheduler polynomial_decay_ratio --maximize-best-checkpoint-metric --fixed-validation-seed 7 \
        --no-epoch-checkpoints --keep-best-checkpoints 1 \
        --save-interval "${SAVE_INTERVAL:-1}" --validate-interval "${VALIDATE_INTERVAL:-1}" \
        --save-interval-updates "${SAVE_INTERVAL_UPDATES:-0}" --keep-interval-updates 1 --find-unused-parameters \
        --num-workers "${WORKERS:-4}" --seed "${SEED:-1}" --log-format simple --log-interval 10 \
        --save-dir "$SAVE_DIR" "${start[@]}" ${PRECISION-$(default_precision)} "$@" ${EXTRA:-}
}

# ---- evaluation

evaluation_settings() {
    common_help() {
        cat <<'END'

Settings of all evaluation scripts:
  DATA          files to answer, separated by commas      SELECTED_COLS  their columns
  CHECKPOINT    what fairseq-train has written, or several separated by commas
  EMA_EVAL=1    evaluate the averaged weights of the checkpoint (trained with --store-ema)
  RESULTS       folder for results: <file>_predict.json, scores in <file>_predict.meta.json, of several checkpoints in a
                folder each      SPLIT  other name than the file's, for a single file
  BPE_DIR       folder with encoder.json, vocab.bpe, dict.txt      TEXT  other tokenizer flags in its place
  IMAGE_DIR, VIDEO_DIR, AUDIO_DIR  folders that paths of pictures, films and sounds are relative to
  NUM_FRAMES, PATCH_FRAME_SIZE  frames of a film, and their side in pixels
  BATCH_SIZE, PATCH_IMAGE_SIZE, BEAM, WORKERS, SEED
  PRECISION     flags for the number format (GPU default: --fp16; CPU default: none)
  EXTRA         further flags for fairseq-generate
  DRY_RUN=1     only show the commands
END
    }
    settings "$@"
}

# evaluate TASK FLAGS...: fairseq-generate on every file of DATA with every checkpoint, with the task's own flags;
# EVALUATED then holds <folder>/<split> of every result
# It is one process: by default fairseq-generate would answer only this process' share of the rows on several GPUs.
evaluate() {
    local task=$1 file checkpoint results split written=: average=() files checkpoints
    shift
    EVALUATED=()
    IFS=, read -ra files <<<"$DATA"
    IFS=, read -ra checkpoints <<<"$CHECKPOINT"
    for file in "${files[@]}"; do need "$file" "DATA"; done
    for checkpoint in "${checkpoints[@]}"; do need "$checkpoint" "CHECKPOINT"; done
    tokenizer
    read_media "$task"
    [[ -n ${EMA_EVAL:-} ]] && average=(--ema-eval)
    for checkpoint in "${checkpoints[@]}"; do
        results=$RESULTS
        ((${#checkpoints[@]} == 1)) || results+=/$(basename "$checkpoint" .pt)
        for file in "${files[@]}"; do
            split=${SPLIT:-$(basename "$file" .tsv)}
            if [[ $written == *":$results/$split:"* ]]; then
                echo "$0: error: two results would be named $results/$split: evaluate one at a time" >&2
                exit 2
            fi
            written+=$results/$split:
            EVALUATED+=("$results/$split")
            # shellcheck disable=SC2086  # TEXT, PRECISION and EXTRA hold several words
            perform fairseq-generate "$file" --user-dir "$ROOT/unival_plugin" --task "$task" $TEXT "${MEDIA[@]}" \
                --path "$checkpoint" "${average[@]}" --gen-subset "$split" --results-path "$results" \
                --beam "${BEAM:-5}" --num-workers "${WORKERS:-2}" --seed "${SEED:-7}" \
                --distributed-world-size 1 ${PRECISION-$(default_precision)} "$@" ${EXTRA:-}
            [[ -n ${DRY_RUN:-} ]] || print_scores "$results/${split}_predict.meta.json"
        done
    done
}

print_scores() {
    python -c 'import json, sys; print(sys.argv[1], json.load(open(sys.argv[1]))["scores"])' "$1"
}

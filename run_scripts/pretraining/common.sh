# Shared by the stages of pretraining: `source` it first, then `pretraining_settings "$@"` and `pretrain`.

source "$(dirname "${BASH_SOURCE[0]}")/../common.sh"

PRETRAINING_COLUMNS=0,1,2,3,4,5,6,7

pretraining_settings() {
    common_help() {
        cat <<'END'

Settings of all stages of pretraining:
  DATA          files of rows, separated by commas: one an epoch      SELECTED_COLS  columns of these and other files
  <NAME>_DATA   file whose rows are mixed in, one after every <NAME>_CNT rows of DATA (default: 2); empty: none.
                <NAME> is IMAGE_TEXT, IMAGE_TEXT_VQA, IMAGE_TEXT_GROUND, VIDEO, VIDEO_TEXT, AUDIO or AUDIO_TEXT
  VIDEO_SELECTED_COLS, AUDIO_SELECTED_COLS  columns of VIDEO_DATA and of AUDIO_DATA
  NEG_SAMPLE_DIR  folder with all_captions.txt, object.txt and type2ans.json, which wrong captions and answers come from
  INIT_FROM     checkpoint to start from; empty trains from scratch. An interrupted run continues from SAVE_DIR
  INIT_FLAG     how its weights are taken (stage 1: --init-from, which puts BART's rows where they belong; other stages:
                --finetune-from-model, which copies by number, as the original does for BART too)
  BPE_DIR       folder with encoder.json, vocab.bpe, dict.txt      TEXT  other tokenizer flags in its place
  RESNET, RESNEXT, PANN  files with weights to start the trunks of pictures, films and sounds from; empty: none
  IMAGE_DIR     folder that paths of pictures, films and sounds are relative to
  MEDIA_FLAGS   flags: how pictures, films and sounds are read (default: --read-from-img-path)
  NUM_FRAMES, PATCH_FRAME_SIZE  frames of a film, and their side in pixels
  VIDEO_ENCODER, AUDIO_ENCODER  trunks of films and sounds; empty: none      MEL_BINS, HOP_SIZE  of the latter
  PATCH_IMAGE_SIZE, MAX_IMAGE_SIZE  side of pictures, and pixels that the bins of a coordinate span, at least as many
  NETWORK       further flags of the network (default: those of UnIVAL)
  ARCH, SAVE_DIR, MAX_EPOCH, LR, WARMUP_RATIO, BATCH_SIZE (rows), UPDATE_FREQ, LABEL_SMOOTHING, DROPOUT, DROP_PATH,
  CLIP_NORM, SAMPLE_PATCH_NUM, KEEP_LAST_EPOCHS, SAVE_INTERVAL_UPDATES, WORKERS, SEED, DDP_BACKEND
  PRECISION     flags for the number format (GPU default: --fp16; CPU default: none)
  EXTRA         further flags for fairseq-train; they come last, and so win
  PROCESSES     processes on this node (default: one per GPU); under Slurm there is one task a node
  DRY_RUN=1     only show the command
END
    }
    settings "$@"
}

# mix_in NAME FLAG: rows of the file NAME_DATA, one after every NAME_CNT rows of DATA
mix_in() {
    local data=$1_DATA count=$1_CNT
    [[ -n ${!data:-} ]] || return 0
    need "${!data}" "$data; set it empty to leave it out"
    SOURCES+=("$2-data" "${!data}" "$2-cnt" "${!count:-2}")
}

# choose_sources: SOURCES then holds the flags of all that is mixed into DATA
choose_sources() {
    SOURCES=()
    mix_in IMAGE_TEXT --image-text
    mix_in IMAGE_TEXT_VQA --image-text-vqa
    mix_in IMAGE_TEXT_GROUND --image-text-ground
    mix_in VIDEO --video
    mix_in VIDEO_TEXT --video-text
    mix_in AUDIO --audio
    mix_in AUDIO_TEXT --audio-text
    [[ -z ${VIDEO_DATA:-} ]] || SOURCES+=(--video-selected-cols "${VIDEO_SELECTED_COLS:-$PRETRAINING_COLUMNS}")
    [[ -z ${AUDIO_DATA:-} ]] || SOURCES+=(--audio-selected-cols "${AUDIO_SELECTED_COLS:-$PRETRAINING_COLUMNS}")
}

# pretrain: fairseq-train on DATA and what is mixed into it, from INIT_FROM
pretrain() {
    local files file medium start=() precision
    IFS=, read -ra files <<<"$DATA"
    for file in "${files[@]}"; do need "$file" "DATA"; done
    need "$NEG_SAMPLE_DIR" "NEG_SAMPLE_DIR; dataset_tools/negative_samples.py makes it"
    choose_sources
    tokenizer
    if [[ -n $INIT_FROM ]]; then
        need "$INIT_FROM" "INIT_FROM; set it empty to train from scratch"
        start+=("$INIT_FLAG" "$INIT_FROM")
    fi
    read_media unify_task
    choose_trunks
    # the tool that makes the folder writes these only where there are rows of films and of sounds
    for medium in video audio; do
        file=$NEG_SAMPLE_DIR/all_captions_$medium.txt
        [[ ! -e $file ]] || SOURCES+=("--neg-captions-$medium" "$file")
    done
    precision=$(default_precision)
    precision=${PRECISION-${precision/ 512/ 128}}

    # Epochs are kept because the next stage starts from a middle one; there is no file to validate on. Trunks that a
    # step does not use have no gradients: no_c10d takes those as zeros.
    # shellcheck disable=SC2086  # TEXT, MEDIA_FLAGS, NETWORK, precision, EXTRA: several words; TEXT may give other bins
    launch fairseq-train "$DATA" --user-dir "$ROOT/unival_plugin" --task unify_task --num-bins 1000 $TEXT \
        --selected-cols "${SELECTED_COLS:-$PRETRAINING_COLUMNS}" "${SOURCES[@]}" --neg-sample-dir "$NEG_SAMPLE_DIR" \
        "${MEDIA[@]}" ${MEDIA_FLAGS---read-from-img-path} --max-src-length 80 --max-tgt-length 30 \
        --patch-image-size "$PATCH_IMAGE_SIZE" --max-image-size "${MAX_IMAGE_SIZE:-512}" \
        --arch "${ARCH:-unival_base}" ${NETWORK-$UNIVAL_NETWORK} "${TRUNK_FLAGS[@]}" \
        --sample-patch-num "$SAMPLE_PATCH_NUM" --dropout "${DROPOUT:-0.1}" --attention-dropout 0.0 \
        --encoder-drop-path-rate "${DROP_PATH:-0.1}" --decoder-drop-path-rate "${DROP_PATH:-0.1}" \
        --criterion adjust_label_smoothed_cross_entropy --label-smoothing "${LABEL_SMOOTHING:-0.0}" \
        --batch-size "$BATCH_SIZE" --update-freq "${UPDATE_FREQ:-2}" --max-epoch "${MAX_EPOCH:-50}" \
        --optimizer adam --adam-betas "(0.9,0.999)" --adam-eps 1e-08 --weight-decay 0.01 \
        --clip-norm "${CLIP_NORM:-5.0}" \
        --lr "$LR" --lr-scheduler polynomial_decay_ratio --warmup-ratio "${WARMUP_RATIO:-0.01}" \
        --disable-validation --fixed-validation-seed 7 --save-interval 1 --keep-last-epochs "${KEEP_LAST_EPOCHS:-15}" \
        --save-interval-updates "${SAVE_INTERVAL_UPDATES:-0}" --keep-interval-updates 1 \
        --ddp-backend "${DDP_BACKEND:-no_c10d}" --num-workers "${WORKERS:-4}" --seed "${SEED:-1}" \
        --log-format simple --log-interval 10 --save-dir "$SAVE_DIR" "${start[@]}" $precision ${EXTRA:-}
}

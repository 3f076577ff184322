#!/usr/bin/env bash
# Fusing for one task, the target: the models of several tasks are averaged, the average is finetuned on the target with
# the target's recipe, and the result is evaluated.
#
# usage: bash run_scripts/averaging/fusing/fusing.sh TARGET=vqa [KEY=VALUE ...]
#   TARGET        caption, refcocoplus, snli_ve, vqa, video_caption or video_vqa
#   MODELS        tasks whose models are averaged, separated by spaces (default: all of pictures, or both of films)
source "$(dirname "${BASH_SOURCE[0]}")/../common.sh"
procedure_settings "$@"

TARGET=${TARGET:-vqa}
choose_target
FOLDER=${FOLDER:-logs/ofa/checkpoints/fusing/$TARGET}

SCRIPTS=averaging/fusing/scaling_best
case $TARGET in
    caption) script=$SCRIPTS/unival_caption_stage_1_initavg_caprefsnlivqa.sh ;;
    video_*) script=$(cd "$ROOT/run_scripts" && compgen -G "$SCRIPTS/video/${TARGET}_*.sh") ;;
    *) script=$SCRIPTS/unival_${TARGET}_initavg_caprefsnlivqa.sh ;;
esac

models=()
for task in ${MODELS:-$TARGET $(others_of "$TARGET")}; do
    model=$(model_of "$task")
    need "$model" "${task^^}_MODEL"
    models+=("$model")
done
average_once "$FOLDER/average.pt" "${models[@]}"
finetune_once "$script" "$FOLDER/average.pt" "$FOLDER/finetuned"
evaluate_once "$FOLDER/finetuned/checkpoint_best.pt" "$FOLDER/results"

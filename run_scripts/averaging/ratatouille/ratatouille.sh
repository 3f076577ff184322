#!/usr/bin/env bash
# Model ratatouille for one task, the target: the models of other tasks (auxiliaries) are each finetuned on the target
# with the target's recipe, averaged together with the target's own model, and the average is evaluated.
#
# usage: bash run_scripts/averaging/ratatouille/ratatouille.sh TARGET=vqa [KEY=VALUE ...]
#   TARGET        caption, refcocoplus, snli_ve, vqa, video_caption or video_vqa
#   AUXILIARIES   the same names, separated by spaces (default: the other ones of pictures, the other one of films)
#   OWN=          leaves the target's own model out of the average
source "$(dirname "${BASH_SOURCE[0]}")/../common.sh"
procedure_settings "$@"

TARGET=${TARGET:-vqa}
choose_target
FOLDER=${FOLDER:-logs/ofa/checkpoints/ratatouille/$TARGET}

# script_from AUXILIARY: the script that finetunes its model on the target
script_from() {
    local folder=averaging/ratatouille/scaling_best name=${1//_/} found
    case $TARGET in
        video_*) folder+=/${TARGET#video_}/video ;;
        *) folder+=/$TARGET ;;
    esac
    found=$(cd "$ROOT/run_scripts" && compgen -G "$folder/*_init${name/videovqa/videoqa}.sh") || {
        echo "$0: error: AUXILIARIES: there is no script from $1 to $TARGET; known are $(others_of "$TARGET")" >&2
        exit 2
    }
    echo "$found"
}

models=()
if [[ -n ${OWN-1} ]]; then
    own=$(model_of "$TARGET")
    need "$own" "${TARGET^^}_MODEL, the target's own model"
    models+=("$own")
fi
for auxiliary in ${AUXILIARIES:-$(others_of "$TARGET")}; do
    script=$(script_from "$auxiliary")
    finetune_once "$script" "$(model_of "$auxiliary")" "$FOLDER/from_$auxiliary"
    models+=("$FOLDER/from_$auxiliary/checkpoint_best.pt")
done
average_once "$FOLDER/average.pt" "${models[@]}"
evaluate_once "$FOLDER/average.pt" "$FOLDER/results"

"""Weights of files with other names, sizes and modalities end up where they belong, or are refused with the reason."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from unival_plugin.errors import CheckpointError
from unival_plugin.modules.positions import image_buckets, token_buckets
from unival_plugin.unival.model.config import from_preset
from unival_plugin.unival.model.network import UnIVALNetwork
from unival_plugin.unival.model.state import TIED_EMBEDDINGS, StateReport, by_module, fit_state_dict

SYMBOLS = 50
State = dict[str, Any]


def tiny(seed: int = 0, symbols: int = SYMBOLS, **overrides: object) -> UnIVALNetwork:
    sizes = {
        "encoder_embed_dim": 32, "encoder_ffn_embed_dim": 48, "encoder_attention_heads": 2,
        "decoder_attention_heads": 2, "image_bucket_size": 6, "token_bucket_size": 16, "code_image_size": 16,
    }  # fmt: skip
    torch.manual_seed(seed)
    return UnIVALNetwork(from_preset("unival_tiny", {**sizes, **overrides}), symbols)


def copied(network: nn.Module) -> State:
    return {key: value.clone() for key, value in network.state_dict().items()}


def fitted(network: nn.Module, state: State) -> tuple[State, StateReport]:
    """What ``network`` holds after loading a fitted ``state``."""
    report = fit_state_dict(network, state)
    network.load_state_dict(state, strict=True)
    return copied(network), report


def with_films(network: UnIVALNetwork) -> UnIVALNetwork:
    """Stands for a network with a film trunk: the same names, a small trunk."""
    encoder: Any = network.encoder
    encoder.embed_videos = nn.Sequential(nn.Conv3d(3, 4, 1), nn.BatchNorm3d(4))
    encoder.video_proj = nn.Linear(4, 32)
    encoder.embed_video_positions = nn.Embedding(37, 32)
    return network


def same(first: State, second: State, *, but: tuple[str, ...] = ()) -> bool:
    return all(torch.equal(first[key], second[key]) for key in first if key in second and not key.startswith(but))


class TestNames:
    def test_joined_projections_of_attention_are_split(self) -> None:
        source, target = tiny(1), tiny(2)
        state = copied(source)
        for kind in ("weight", "bias"):
            prefix = "decoder.layers.1.encoder_attn."
            parts = [state.pop(f"{prefix}{name}_proj.{kind}") for name in "qkv"]
            state[f"{prefix}in_proj_{kind}"] = torch.cat(parts)
        got, report = fitted(target, state)
        assert same(copied(source), got)
        assert not report.kept and not report.left

    def test_numbered_layer_norms_get_their_names(self) -> None:
        source, target = tiny(1), tiny(2)
        for key, parameter in source.named_parameters():  # all layer norms start alike
            if "layer_norm" in key:
                nn.init.normal_(parameter)
        numbers = {
            "encoder": {"self_attn_layer_norm": 0, "final_layer_norm": 1},
            "decoder": {"self_attn_layer_norm": 0, "encoder_attn_layer_norm": 1, "final_layer_norm": 2},
        }
        state = {}
        for key, value in copied(source).items():
            parts = key.split(".")
            if parts[1] == "layers" and parts[3] in numbers[parts[0]]:
                parts[3] = f"layer_norms.{numbers[parts[0]][parts[3]]}"
            state[".".join(parts)] = value
        assert same(copied(source), fitted(target, state)[0])

    @pytest.mark.parametrize("present", TIED_EMBEDDINGS)
    def test_one_name_of_the_token_embedding_is_enough(self, present: str) -> None:
        source, target = tiny(1), tiny(2)
        state = copied(source)
        for key in set(TIED_EMBEDDINGS) - {present}:
            del state[key]
        got, report = fitted(target, state)
        assert torch.equal(got[TIED_EMBEDDINGS[0]], copied(source)[present])
        assert not report.kept

    def test_an_untied_output_projection_is_copied_from_the_decoders_embedding(self) -> None:
        untied = {"share_all_embeddings": False, "share_decoder_input_output_embed": False}
        source, target = tiny(1, **untied), tiny(2, **untied)
        state = copied(source)
        del state["decoder.output_projection.weight"]
        got = fitted(target, state)[0]
        assert torch.equal(got["decoder.output_projection.weight"], state["decoder.embed_tokens.weight"])
        assert not torch.equal(got["decoder.output_projection.weight"], got["encoder.embed_tokens.weight"])


class TestConstants:
    def test_integer_tables_and_versions_are_always_the_models_own(self) -> None:
        target = tiny()
        state = copied(target)
        for key in ("encoder.token_rp_bucket", "decoder.image_rp_bucket", "decoder.image_position_idx"):
            state[key] = torch.zeros(3, dtype=torch.int64)
        state["encoder.version"] = torch.tensor([1.0])
        got, report = fitted(target, state)
        assert torch.equal(got["encoder.token_rp_bucket"], token_buckets(16))
        assert torch.equal(got["decoder.image_rp_bucket"], image_buckets(6))
        assert got["encoder.version"].item() == 3
        assert not report.resized and not report.kept

    def test_counts_of_batches_are_left_without_a_word_for_frozen_batch_norm(self) -> None:
        source, target = tiny(1), tiny(2, freeze_resnet=True)
        got, report = fitted(target, copied(source))
        assert same(copied(source), got)
        assert report.left == []

    def test_counts_of_batches_may_be_missing(self) -> None:
        source, target = tiny(1, freeze_resnet=True), tiny(2)
        assert same(copied(source), fitted(target, copied(source))[0])


class TestDictionary:
    def test_symbols_that_the_file_lacks_get_random_rows(self) -> None:
        source, target = tiny(1, symbols=40), tiny(2, symbols=4000)
        got, report = fitted(target, copied(source))
        table = got["encoder.embed_tokens.weight"]
        assert torch.equal(table[:40], copied(source)["encoder.embed_tokens.weight"])
        assert table[40:].std().item() == pytest.approx(32**-0.5, rel=0.02)
        assert set(report.resized) == set(TIED_EMBEDDINGS)

    def test_the_new_rows_are_the_same_for_weights_and_their_average(self) -> None:
        source = copied(tiny(1, symbols=40))
        tables = [fitted(tiny(seed), dict(source))[0]["encoder.embed_tokens.weight"] for seed in (2, 3)]
        assert torch.equal(*tables)

    def test_more_symbols_than_the_dictionary_has_are_refused(self) -> None:
        with pytest.raises(
            CheckpointError, match=r"60 symbols, that of this model 50; .*--code-dict-size and --num-bins"
        ):
            fit_state_dict(tiny(), copied(tiny(symbols=60)))


class TestPositionTables:
    @pytest.mark.parametrize("old, new", [(30, 50), (50, 30)])
    def test_text_positions_stay_at_their_number(self, old: int, new: int) -> None:
        sizes = [{"max_source_positions": n, "max_target_positions": n} for n in (old, new)]
        source, target = tiny(1, **sizes[0]), tiny(2, **sizes[1])
        before, wanted = copied(target), copied(source)
        got, report = fitted(target, copied(source))
        rows = min(old, new) + 2
        for side in ("encoder", "decoder"):
            key = f"{side}.embed_positions.weight"
            assert torch.equal(got[key][:rows], wanted[key][:rows])
            assert torch.equal(got[key][rows:], before[key][rows:])
            assert key in report.resized

    @pytest.mark.parametrize("old, new", [(4, 7), (7, 4)])
    def test_a_grid_cell_keeps_its_vector_in_a_table_of_another_side(self, old: int, new: int) -> None:
        source, target = with_films(tiny(1, image_bucket_size=old)), with_films(tiny(2, image_bucket_size=new))
        for network, side in ((source, old), (target, new)):
            network.encoder.embed_video_positions = nn.Embedding(side**2 + 1, 32)
        before, wanted = copied(target), copied(source)
        got = fitted(target, copied(source))[0]
        for key in ("encoder.embed_image_positions", "encoder.embed_video_positions", "decoder.embed_image_positions"):
            table, origin, own = (state[f"{key}.weight"] for state in (got, wanted, before))
            assert torch.equal(table[0], origin[0])
            for row in range(new):
                for column in range(new):
                    inside = row < old and column < old
                    expected = origin[row * old + column + 1] if inside else own[row * new + column + 1]
                    assert torch.equal(table[row * new + column + 1], expected)

    @pytest.mark.parametrize("old, new", [(3, 5), (5, 3)])
    def test_an_offset_between_cells_keeps_its_score_in_a_table_of_another_side(self, old: int, new: int) -> None:
        source, target = tiny(1, image_bucket_size=old), tiny(2, image_bucket_size=new)
        before, wanted = copied(target), copied(source)
        got = fitted(target, copied(source))[0]
        key, common = "encoder.image_rel_pos_table_list.1.weight", min(old, new)

        def score(state: State, side: int, first: tuple[int, int], second: tuple[int, int]) -> Tensor:
            ids = [row * side + column + 1 for row, column in (first, second)]
            return state[key][image_buckets(side)[ids[0], ids[1]]]

        cells = [(row, column) for row in range(common) for column in range(common)]
        assert all(torch.equal(score(got, new, a, b), score(wanted, old, a, b)) for a in cells for b in cells)
        assert torch.equal(got[key][-3:], wanted[key][-3:])
        if new > old:
            corners = (0, 0), (new - 1, 0)
            assert torch.equal(score(got, new, *corners), score(before, new, *corners))

    @pytest.mark.parametrize("old, new", [(8, 16), (16, 8), (16, 256)])
    def test_a_distance_keeps_its_score_in_a_table_of_other_buckets(self, old: int, new: int) -> None:
        source, target = tiny(1, token_bucket_size=old), tiny(2, token_bucket_size=new)
        wanted = copied(source)
        got = fitted(target, copied(source))[0]
        key = "decoder.token_rel_pos_table_list.0.weight"
        buckets = [token_buckets(size) for size in (old, new)]
        for distance in range(min(old, new) // 2 + 1):
            for query, other in ((distance, 0), (0, distance)):
                assert torch.equal(got[key][buckets[1][query, other]], wanted[key][buckets[0][query, other]])
        for far in (200, 1023):
            shared = buckets[1][:, 0] == buckets[1][far, 0]  # distances of one new bucket
            assert any(torch.equal(got[key][buckets[1][far, 0]], wanted[key][row]) for row in buckets[0][:, 0][shared])

    def test_two_patch_types_become_four(self) -> None:
        source, target = tiny(1), tiny(2, add_mm_type_embedding=True)
        got = fitted(target, copied(source))[0]["encoder.type_embedding.weight"]
        assert torch.equal(got, copied(source)["encoder.type_embedding.weight"][[0, 1, 1, 1]])

    def test_four_patch_types_are_not_cut_to_two(self) -> None:
        with pytest.raises(CheckpointError, match="give --add-mm-type-embedding"):
            fit_state_dict(tiny(), copied(tiny(add_mm_type_embedding=True)))

    def test_a_table_whose_size_means_nothing_is_refused(self) -> None:
        state = copied(tiny())
        state["encoder.embed_image_positions.weight"] = torch.zeros(20, 32)
        with pytest.raises(CheckpointError, match=r"embed_image_positions.weight has shape \(20, 32\)"):
            fit_state_dict(tiny(), state)

    @pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
    def test_half_precision_files_keep_their_format_until_they_are_loaded(self, dtype: torch.dtype) -> None:
        source, target = tiny(1, symbols=40, image_bucket_size=4), tiny(2)
        state = {k: v.to(dtype) if v.is_floating_point() else v for k, v in copied(source).items()}
        wanted = dict(state)
        got, report = fitted(target, state)
        assert report.resized
        assert all(state[key].dtype == dtype for key in report.resized)
        assert got["encoder.embed_tokens.weight"].dtype == torch.float32
        key = "decoder.embed_image_positions.weight"
        assert torch.equal(got[key][1:5], wanted[key][1:5].float())


class TestModalities:
    def test_pictures_into_pictures_and_films(self) -> None:
        source, target = tiny(1), with_films(tiny(2))
        before = copied(target)
        got, report = fitted(target, copied(source))
        assert same(copied(source), got)
        new = [key for key in got if "video" in key]
        assert all(torch.equal(got[key], before[key]) for key in new)
        assert report.kept == new

    def test_pictures_and_films_into_pictures(self) -> None:
        source, target = with_films(tiny(1)), tiny(2)
        got, report = fitted(target, copied(source))
        assert same(got, copied(source))
        assert report.left == [key for key in copied(source) if "video" in key]

    def test_a_trunk_of_another_depth_is_refused_and_its_flag_named(self) -> None:
        source, target = with_films(tiny(1)), with_films(tiny(2))
        source.encoder.embed_videos.append(nn.Conv3d(4, 4, 1))
        with pytest.raises(CheckpointError, match="other model flags.*--video-encoder-name"):
            fit_state_dict(target, copied(source))
        with pytest.raises(CheckpointError, match="another trunk: it lacks 2 .*--video-encoder-name"):
            fit_state_dict(source, copied(target))

    def test_the_unused_classifier_of_a_picture_trunk_is_left(self) -> None:
        target = tiny()
        state = {**copied(target), "encoder.embed_images.fc.weight": torch.zeros(1000, 192)}
        assert fitted(target, state)[1].left == ["encoder.embed_images.fc.weight"]


class TestHeads:
    def test_a_head_that_the_model_lacks_is_left_with_a_warning(self, caplog: pytest.LogCaptureFixture) -> None:
        source, target = tiny(1), tiny(2)
        source.register_classification_head("mnli", 3)
        _, report = fitted(target, copied(source))
        assert "mnli" in caplog.text
        assert len(report.left) == 4

    def test_a_head_that_the_file_lacks_keeps_its_values(self) -> None:
        source, target = tiny(1), tiny(2)
        target.register_classification_head("rte", 2)
        before = copied(target)
        got, report = fitted(target, copied(source))
        assert len(report.kept) == 4
        assert all(torch.equal(got[key], before[key]) for key in report.kept)

    def test_a_head_with_another_number_of_classes_keeps_all_its_values(self) -> None:
        source, target = tiny(1), tiny(2)
        source.register_classification_head("task", 3)
        target.register_classification_head("task", 2)
        before = copied(target)
        got, report = fitted(target, copied(source))
        heads = [key for key in got if key.startswith("classification_heads.")]
        assert report.left == heads and report.kept == heads
        assert all(torch.equal(got[key], before[key]) for key in heads)

    def test_a_head_of_the_same_size_is_taken(self) -> None:
        source, target = tiny(1), tiny(2)
        for network in (source, target):
            network.register_classification_head("task", 3)
        assert same(copied(source), fitted(target, copied(source))[0])


class TestFlags:
    @pytest.mark.parametrize(
        "given, flags",
        [
            ({"adapter": True}, "--adapter --adapter-type UN"),
            ({"adapter": True, "adapter_type": "VL"}, "--adapter --adapter-type VL"),
            ({"encoder_prompt": True}, "--encoder-prompt"),
            (
                {"decoder_prompt": True, "decoder_prompt_projection": True},
                "--decoder-prompt --decoder-prompt-projection",
            ),
            ({"scale_attn": True, "scale_fc": True, "scale_heads": True}, "--scale-attn, --scale-fc, --scale-heads"),
            ({"qk_norm": True, "scale_resids": True}, "--qk-norm, --scale-resids"),
            ({"layernorm_image_embedding": True}, "--layernorm-image-embedding"),
        ],
    )
    def test_what_only_the_file_has_is_refused_and_its_flag_named(self, given: dict[str, Any], flags: str) -> None:
        with pytest.raises(CheckpointError, match=f"give {flags}$"):
            fit_state_dict(tiny(), copied(tiny(**given)))

    @pytest.mark.parametrize(
        "given, part",
        [
            ({"adapter": True}, ".adapter."),
            ({"decoder_prompt": True}, "decoder_prompt_encoder"),
            ({"scale_heads": True}, "c_attn"),
            ({"scale_resids": True}, "w_resid"),
            ({"qk_norm": True}, "_norm."),
        ],
    )
    def test_what_only_the_model_has_keeps_its_values(self, given: dict[str, Any], part: str) -> None:
        target = tiny(2, **given)
        before = copied(target)
        got, report = fitted(target, copied(tiny(1)))
        assert report.kept and all(part in key for key in report.kept)
        assert all(torch.equal(got[key], before[key]) for key in report.kept)

    def test_one_kind_of_adapter_does_not_go_into_the_other(self) -> None:
        kinds = tiny(adapter=True), tiny(adapter=True, adapter_type="VL")
        with pytest.raises(CheckpointError, match="give --adapter --adapter-type UN$"):
            fit_state_dict(kinds[1], copied(kinds[0]))
        with pytest.raises(CheckpointError, match="give --adapter --adapter-type VL$"):
            fit_state_dict(kinds[0], copied(kinds[1]))


class TestRefused:
    def test_another_architecture(self) -> None:
        with pytest.raises(
            CheckpointError, match="another architecture: it holds 1 tensors .*encoder.something.weight"
        ):
            fit_state_dict(tiny(), {"encoder.something.weight": torch.zeros(2)})

    def test_a_file_with_almost_nothing_in_common(self) -> None:
        state = {"encoder.layer_norm.weight": torch.zeros(32)}
        with pytest.raises(CheckpointError, match="another architecture"):
            fit_state_dict(tiny(), state)

    def test_another_width(self) -> None:
        with pytest.raises(CheckpointError, match="another size: .*check --arch"):
            fit_state_dict(tiny(), copied(tiny(encoder_embed_dim=64)))

    def test_more_layers(self) -> None:
        with pytest.raises(CheckpointError, match="encoder.layers.2.*check --arch"):
            fit_state_dict(tiny(), copied(tiny(encoder_layers=3)))


class TestReport:
    def test_an_equal_file_is_taken_whole(self) -> None:
        source, target = tiny(1), tiny(2)
        got, report = fitted(target, copied(source))
        assert same(copied(source), got)
        assert not (report.kept or report.resized or report.left)
        assert report.modules() == []

    def test_it_names_numbers_and_examples_on_one_line(self) -> None:
        source, target = with_films(tiny(1, symbols=40)), tiny(2, scale_attn=True)
        report = fitted(target, copied(source))[1]
        text = str(report)
        assert "\n" not in text
        assert "3 resized (encoder.embed_tokens.weight" in text
        assert any(line.startswith("kept: encoder.layers.*.attn_ln (4)") for line in report.modules())

    def test_modules_are_counted_with_layers_and_trunks_as_one(self) -> None:
        keys = ["encoder.layers.0.fc1.bias", "encoder.layers.1.fc1.bias", "encoder.embed_videos.layer1.0.bn1.bias"]
        assert by_module(keys) == "encoder.layers.*.fc1 (2), encoder.embed_videos (1)"

    def test_fitting_does_not_change_the_network(self) -> None:
        network = tiny()
        before = copied(network)
        fit_state_dict(network, copied(tiny(1, image_bucket_size=4, symbols=40)))
        assert same(before, copy.deepcopy(network.state_dict()))

"""Converting pickled document frequencies without running what is inside."""

import pickle
from collections import Counter, defaultdict

import pytest

from unival_plugin.errors import ConfigError, DataError
from unival_plugin.metrics.cider import DocumentFrequency
from unival_plugin.metrics.convert_df import convert_reference_pickle


def write(path, content, protocol=2):
    path.write_bytes(pickle.dumps(content, protocol))
    return path


@pytest.mark.parametrize("protocol", [0, 2, 4])
def test_counts_survive(tmp_path, protocol):
    counts = defaultdict(float, {("a",): 2.0, ("a", "été"): 1.0})
    source = write(tmp_path / "words.p", {"document_frequency": counts, "ref_len": 7}, protocol)
    convert_reference_pickle(source, tmp_path / "out.json")
    assert DocumentFrequency.load(tmp_path / "out.json") == DocumentFrequency({("a",): 2, ("a", "été"): 1}, 7.0)


def test_byte_strings_of_python_2_are_read(tmp_path):
    # {"document_frequency": {("a", "b"): 3}, "ref_len": 2} as Python 2 wrote it (SHORT_BINSTRING)
    data = b"\x80\x02}(U\x12document_frequency}U\x01aU\x01b\x86K\x03sU\x07ref_lenK\x02u."
    (tmp_path / "words.p").write_bytes(data)
    df = convert_reference_pickle(tmp_path / "words.p", tmp_path / "out.json")
    assert df.counts == {("a", "b"): 3}


class Harmful:
    def __reduce__(self):
        return (eval, ("1 / 0",))


@pytest.mark.parametrize(("content", "name"), [(Harmful(), "__builtin__.eval"), (Counter(), "collections.Counter")])
def test_anything_but_plain_counts_is_refused_by_name(tmp_path, content, name):
    source = write(tmp_path / "words.p", {"document_frequency": content, "ref_len": 7})
    with pytest.raises(DataError, match=rf"words\.p: .*{name}"):
        convert_reference_pickle(source, tmp_path / "out.json")
    assert not (tmp_path / "out.json").exists()


@pytest.mark.parametrize(
    "content",
    [
        [],
        {"ref_len": 3},
        {"document_frequency": [], "ref_len": 3},
        {"document_frequency": {}, "ref_len": 0},
        {"document_frequency": {"a": 1}, "ref_len": 3},
        {"document_frequency": {("a",): 1.5}, "ref_len": 3},
        {"document_frequency": {(1,): 1}, "ref_len": 3},
    ],
)
def test_other_content_is_refused(tmp_path, content):
    with pytest.raises(DataError, match=r"words\.p"):
        convert_reference_pickle(write(tmp_path / "words.p", content), tmp_path / "out.json")


@pytest.mark.parametrize("data", [b"", b"not a pickle", b"\x80\x02}("])
def test_damaged_pickles_are_refused(tmp_path, data):
    (tmp_path / "words.p").write_bytes(data)
    with pytest.raises(DataError, match="not a readable pickle"):
        convert_reference_pickle(tmp_path / "words.p", tmp_path / "out.json")


def test_missing_input_and_wrong_output_name_are_named(tmp_path):
    with pytest.raises(ConfigError, match=r"words\.p: cannot read"):
        convert_reference_pickle(tmp_path / "words.p", tmp_path / "out.json")
    with pytest.raises(ConfigError, match=r"end in \.json"):
        convert_reference_pickle(tmp_path / "words.p", tmp_path / "out.p")

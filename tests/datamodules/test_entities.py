"""Parsing of Flickr30k Entities: brackets, boxes, chains, and what is told where they are wrong."""

import json
import re
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from datamodules import Flickr30kDataModule
from datamodules.entities import TYPES
from datamodules.entities import reader as entities_reader
from datamodules.entities.sentences import parse_sentence
from datamodules.errors import AnnotationError, ConfigError, MissingPathError

SHARED = Path(__file__).parents[3] / "shared" / "data"
EXAMPLE = SHARED / "flickr30k-entities-example"
SPLITS = SHARED / "flickr30k-entities-splits"
KARPATHY = SHARED / "flickr30k-karpathy" / "dataset_flickr30k_test.json"
words = st.text("ab ,.'é/#E0\u2028", min_size=1, max_size=9).filter(lambda text: text.strip() and "/EN#" not in text)
phrase = st.tuples(words, st.integers(0, 99), st.lists(st.sampled_from(TYPES), min_size=1, max_size=3))


@given(st.lists(st.one_of(words, phrase), min_size=1, max_size=5))
def test_a_sentence_is_its_parts_without_brackets(parts):
    """Parts that follow each other could only together make what no part is: the text of a bracket."""
    line, text, expected = "", "", []
    for part in parts:
        if isinstance(part, str):
            line, text = f"{line} {part} ", f"{text} {part} "
            continue
        said, chain, types = part
        expected.append((len(text), len(text) + len(said), chain, tuple(types)))
        line, text = f"{line}[/EN#{chain}/{'/'.join(types)} {said}]", text + said
    found = parse_sentence(line)
    assert found.text == text
    assert found.entities == expected


def spoiled(record, **changes):
    for key, value in changes.items():
        setattr(record, key, value)
    with pytest.raises((AnnotationError, MissingPathError)) as error:
        _ = Flickr30kDataModule(**record.write()).tables
    return str(error.value)


@pytest.mark.parametrize(
    ("line", "told"),
    [
        (
            "[/EN#1/people A man on a bike .",
            "column 1: the bracket of a phrase is malformed at '[/EN#1/people A man on",
        ),
        ("A man] on a bike .", "column 6: the bracket of a phrase is malformed at '] on a bike .'"),
        ("See [/EN#1/people ]", "column 5: the bracket of a phrase is malformed at '[/EN#1/people ]'"),
        ("[/EN#x/people A man]", "column 1: the bracket"),
        ("[/EN#1 A man]", "column 1: the bracket"),
        ("[/EN#1/people A [/EN#2/people man]]", "column 1: the bracket"),
        ("/EN#1/people A man", "column 1: the bracket"),
        ("[/EN#1/peeple A man]", "has the type 'peeple', known are people, clothing"),
        (" ", "there is no caption"),
    ],
)
def test_a_malformed_sentence_is_told_with_file_and_line(record, line, told):
    text = spoiled(record, sentences=["Nobody", line], chains=[])
    assert f"{record.folder / 'Sentences' / '7.txt'} (config key `entities`), line 2" in text
    assert told in text


@pytest.mark.parametrize(
    ("changes", "line", "told"),
    [
        ({"size": ""}, 1, "`size` is missing"),
        ({"size": "<size><width>20</width></size>"}, 3, "`size` needs one `height`, it has 0"),
        ({"size": "<size><width>20</width><height>0</height></size>"}, 3, "`size` is 20 x 0"),
        ({"size": "<size><width>20</width><height>ten</height></size>"}, 3, "`height` is 'ten', no whole number"),
        ({"boxes": {2: (1, 1, 22, 5)}}, 10, "the box 1, 1, 22, 5 lies outside 20 x 10 pixels"),
        ({"boxes": {2: (9, 1, 8, 5)}}, 10, "the box 9, 1, 8, 5 ends before it begins"),
        ({"boxes": {2: (1, 1, 8)}}, 10, "`bndbox` needs one `ymax`, it has 0"),
        ({"boxes": {2: (1, 1, 8, 2.5)}}, 10, "`ymax` is '2.5', no whole number"),
        ({"chains": ["1", "second"]}, 9, "`name` is 'second', no whole number"),
        ({"chains": [1, 2, 5]}, 12, "an object has the chain 5, which is in no line of"),
        ({"chains": [1, 2, 0]}, 12, "an object has the chain 0, which is in no line of"),
        ({"xml": "<annotation>\n<size>\n</annotation>"}, 3, "column 3 (mismatched tag)"),
        ({"xml": ""}, 1, ""),
        ({"xml": "<annotation><filename>8.png</filename></annotation>"}, 1, "the annotation is that of image 8.png"),
    ],
)
def test_a_malformed_annotation_is_told_with_file_and_line(record, changes, line, told):
    if changes == {"xml": ""}:
        changes = {"xml": " "}
    text = spoiled(record, **changes)
    assert str(record.folder / "Annotations" / "7.xml") in text
    assert f"line {line}" in text
    assert told in text


@pytest.mark.parametrize("rest", ["", "<nobndbox>0</nobndbox>", "<scene>0</scene>"])
def test_an_object_needs_a_box_or_a_mark_and_a_chain(record, rest):
    head = f"<annotation>\n{record.size}\n<object>\n"
    text = spoiled(record, xml=f"{head}<name>1</name>{rest}\n</object>\n</annotation>")
    assert re.search(r"7\.xml .*line 3: an object has neither `bndbox` nor a mark", text)
    assert "line 3: an object has no `name`" in spoiled(record, xml=f"{head}</object>\n</annotation>")


def test_a_chain_without_an_object_is_told_and_may_be_allowed(record):
    text = spoiled(record, chains=[1])
    assert f"{record.folder / 'Sentences' / '7.txt'} (config key `entities`), line 1: the chain 2 of 'a bike'" in text
    record.chains = [1, 8]
    record.boxes = {1: (1, 1, 4, 4), 8: (1, 1, 2, 2)}
    module = Flickr30kDataModule(**record.write(), strict_chains=False)
    assert module.tables.categories.tolist() == [0]
    assert module.mentions().tolist() == [[True, False, True, False], [False] * 4]


def test_files_must_fit_each_other(record):
    record.write()
    lines = record.folder / "Sentences" / "7.txt"
    arguments = record.write()
    lines.write_text("Nobody here\n")
    with pytest.raises(AnnotationError, match=r"7\.txt .* has 1 lines, but the image has 2 captions"):
        _ = Flickr30kDataModule(**arguments).tables
    lines.write_bytes(b"\xff\nx\n")
    with pytest.raises(AnnotationError, match=r"7\.txt .* is not text"):
        _ = Flickr30kDataModule(**arguments).tables
    lines.rename(lines.with_name("8.txt"))
    with pytest.raises(MissingPathError, match=r"1 of the 2 files .* first Sentences/7\.txt"):
        _ = Flickr30kDataModule(**arguments).tables
    lines.with_name("8.txt").unlink()
    with pytest.raises(MissingPathError, match=r"Sentences \(config key `entities`\) holds no \*\.txt"):
        _ = Flickr30kDataModule(**arguments).tables
    lines.parent.rmdir()
    with pytest.raises(MissingPathError, match=r"There is no folder .*Sentences \(config key `entities`\)"):
        _ = Flickr30kDataModule(**arguments).tables


def test_boxes_are_counted_from_one_and_cut_at_the_border(record):
    record.boxes = {1: (1, 1, 1, 1), 2: (0, 3, 21, 10)}
    tables = Flickr30kDataModule(**record.write()).tables
    assert tables.boxes.tolist() == [[0, 0, 1, 1], [0, 2, 20, 8]]
    assert tables.categories.tolist() == [0, 2]
    assert (tables.widths.tolist(), tables.heights.tolist()) == ([20], [10])


def test_a_box_is_an_object_of_every_class_that_any_caption_gives_one_of_its_chains(record):
    record.sentences = [
        "[/EN#1/people A man] on [/EN#2/other it]",
        "[/EN#2/scene/vehicles A bike] for [/EN#1/other one]",
    ]
    record.xml = (
        f"<annotation>{record.size}<object><name>1</name><name>2</name>"
        "<bndbox><xmin>2</xmin><ymin>2</ymin><xmax>4</xmax><ymax>4</ymax></bndbox></object>"
        "<object><name>2</name><bndbox><xmin>5</xmin><ymin>2</ymin><xmax>6</xmax><ymax>4</ymax></bndbox></object>"
        "</annotation>"
    )
    module = Flickr30kDataModule(**record.write())
    assert module.tables.categories.tolist() == [0, 2, 2]
    assert module.tables.boxes.tolist() == [[1, 1, 3, 3], [1, 1, 3, 3], [4, 1, 2, 3]]
    assert module.mentions().tolist() == [[True, False, False, False], [False, False, True, False]]


@pytest.mark.parametrize(("split", "left"), [("train", [31]), ("val", [30, 31]), ("test", [30, 31])])
def test_unrelated_captions_are_trained_on_nowhere_and_name_nothing(record, split, left):
    record.split, record.unrelated = split, "# format: <imageID> <sentence number>\n7 1\n8 5\n\n"
    module = Flickr30kDataModule(**record.write())
    assert module.tables.caption_ids.tolist() == left
    assert not module.mentions().any()
    assert module.phrases(np.arange(len(left))) == [[]] * len(left)
    assert Flickr30kDataModule(**record.write() | {"unrelated": None}).mentions().any()


@pytest.mark.parametrize("split", ["train", "val"])
def test_unrelated_captions_do_not_say_what_a_box_is(record, split):
    record.split, record.unrelated, record.boxes = split, "7 2", {1: (1, 1, 4, 4), 2: (1, 1, 2, 2)}
    record.sentences = ["[/EN#1/people A man]", "[/EN#1/animals A dog] in [/EN#2/vehicles a bus]"]
    assert Flickr30kDataModule(**record.write()).tables.categories.tolist() == [0]


@pytest.mark.parametrize(
    ("line", "told"),
    [
        ("7", "'7' is not the name"),
        ("7.jpg 1", "'7.jpg 1' is not the name of an image, without its ending"),
        ("7 0", "'7 0' is"),
        ("7 3", "has 2 sentences"),
    ],
)
def test_a_malformed_list_of_unrelated_captions_is_told(record, line, told):
    text = spoiled(record, unrelated=f"# comment\n{line}\n")
    assert f"{record.folder / 'unrelated'} (config key `unrelated`), line 2: " in text
    assert told in text


def test_it_is_parsed_once_until_a_file_changes(record, monkeypatch):
    parse, calls = entities_reader._parse, []
    monkeypatch.setattr(entities_reader, "_parse", lambda *a: calls.append(a) or parse(*a))
    arguments = record.write()
    first = Flickr30kDataModule(**arguments)
    assert first.mentions().sum() == Flickr30kDataModule(**arguments).mentions().sum() == 2
    assert len(calls) == 1
    (phrases,) = (record.folder / "cache" / "phrases").iterdir()
    phrases.unlink()
    assert Flickr30kDataModule(**arguments).mentions().sum() == 2
    record.sentences[1] = "[/EN#1/people Somebody] here"
    changed = Flickr30kDataModule(**record.write())
    assert changed.mentions().sum() == 3
    assert changed.tables.fingerprint != first.tables.fingerprint
    assert len(calls) == 3


def test_a_list_of_unrelated_captions_that_is_not_text_is_told(record):
    arguments = {**record.write(), "unrelated": record.folder / "images" / "7.png"}
    with pytest.raises(AnnotationError, match=r"7\.png \(config key `unrelated`\) is not text"):
        _ = Flickr30kDataModule(**arguments).tables


def test_lines_may_end_as_on_windows(record):
    arguments = record.write()
    file = record.folder / "Sentences" / "7.txt"
    file.write_bytes(file.read_bytes().replace(b"\n", b"\r\n"))
    assert list(Flickr30kDataModule(**arguments).tables.texts) == ["A man on a bike .", "Nobody here"]


def test_records_that_change_places_are_read_again(record):
    """Renamed within the order of the names: the contents, one after the other, are what they were."""
    arguments = record.write() | {"strict_chains": False}
    for folder, ending in (("Sentences", "txt"), ("Annotations", "xml")):
        spare = (record.folder / folder / f"7.{ending}").read_text().replace("7.png", "70.png")
        (record.folder / folder / f"70.{ending}").write_text(spare.replace("A man", "A cook"))
    assert Flickr30kDataModule(**arguments).tables.texts[0] == "A man on a bike ."
    for folder, ending in (("Sentences", "txt"), ("Annotations", "xml")):
        (record.folder / folder / f"7.{ending}").rename(record.folder / folder / f"6.{ending}")
        (record.folder / folder / f"70.{ending}").rename(record.folder / folder / f"7.{ending}")
    with pytest.raises(AnnotationError, match=r"line 2: the annotation is that of image 70\.png"):
        _ = Flickr30kDataModule(**arguments).tables


@pytest.mark.real
@pytest.mark.skipif(not EXAMPLE.is_dir(), reason="../shared/data/flickr30k-entities-example is absent")
def test_the_real_record(tmp_path):
    name = "1000092795"
    text = (EXAMPLE / "Sentences" / f"{name}.txt").read_text()
    sentences = [{"raw": re.sub(r"\[\S+ |\]", "", line), "imgid": 0} for line in text.splitlines()]
    entry = {"filename": f"{name}.jpg", "imgid": 0, "split": "train", "sentences": sentences}
    (tmp_path / "karpathy.json").write_text(json.dumps({"images": [entry]}))
    Image.new("RGB", (333, 500)).save(tmp_path / f"{name}.jpg")
    arguments = {"image_root": tmp_path, "karpathy": tmp_path / "karpathy.json", "entities": EXAMPLE}
    with pytest.raises(AnnotationError, match=rf"{name}\.txt .*, line 1: the chain 2 of 'shaggy hair' is not in"):
        _ = Flickr30kDataModule(**arguments, cache_dir=tmp_path).tables
    partial = Flickr30kDataModule(**arguments, cache_dir=tmp_path, strict_chains=False, classes=["people", "scene"])
    assert (
        partial.tables.texts[0] == "Two young guys with shaggy hair look at their hands while hanging out in the yard ."
    )
    assert list(partial.tables.texts) == [sentence["raw"] for sentence in sentences]
    assert partial.mentions().tolist() == [[True, True]] * 4 + [[True, False]]
    spans = [[partial.tables.texts[row][start:end] for start, end, _ in found] for row, found in read(partial)]
    assert spans[3] == ["A man", "a blue shirt", "a garden"]
    assert partial.tables.categories.tolist() == [0, 1, 1, 0]
    assert partial.tables.boxes[0].tolist() == [158, 124, 61, 211]
    assert (partial.tables.widths[0], partial.tables.heights[0]) == (333, 500)


def read(module):
    return enumerate(module.phrases(np.arange(len(module.tables.texts))))


@pytest.mark.real
@pytest.mark.skipif(not KARPATHY.is_file(), reason="../shared/data/flickr30k-karpathy is absent")
def test_the_real_test_split_wants_its_records_and_images(tmp_path):
    names = [image["filename"] for image in json.loads(KARPATHY.read_text())["images"]]
    for name in names:
        (tmp_path / name).touch()
    arguments = {"image_root": tmp_path, "karpathy": KARPATHY, "entities": EXAMPLE, "cache_dir": tmp_path / "cache"}
    with pytest.raises(MissingPathError, match=r"2000 of the 2000 files .* first Sentences/1007129816\.txt"):
        _ = Flickr30kDataModule(**arguments).tables


@pytest.mark.real
@pytest.mark.skipif(not (KARPATHY.is_file() and SPLITS.is_dir()), reason="../shared/data/flickr30k-* are absent")
def test_the_real_test_split_with_plain_sentences(tmp_path):
    """The captions of Karpathy's test split as sentences without brackets, and the real list of unrelated ones."""
    images = json.loads(KARPATHY.read_text())["images"]
    split = {name for kind in ("train", "val", "test") for name in (SPLITS / f"{kind}.txt").read_text().split()}
    for folder in ("images", "Sentences", "Annotations"):
        (tmp_path / folder).mkdir()
    for image in images:
        name = Path(image["filename"]).stem
        assert name in split
        (tmp_path / "images" / image["filename"]).touch()
        (tmp_path / "Sentences" / f"{name}.txt").write_text("".join(f"{s['raw']}\n" for s in image["sentences"]))
        size = "<size><width>500</width><height>375</height></size>"
        (tmp_path / "Annotations" / f"{name}.xml").write_text(f"<annotation>{size}</annotation>")
    module = Flickr30kDataModule(
        tmp_path / "images", KARPATHY, tmp_path, unrelated=SPLITS / "UNRELATED_CAPTIONS", cache_dir=tmp_path / "cache"
    )
    assert (len(module.tables), len(module.tables.texts), module.tables.splits) == (1000, 5000, ("test",))
    assert module.tables.texts[0] == "The man with pierced ears is wearing glasses and an orange hat ."
    assert not module.mentions().any()


def test_it_needs_classes():
    with pytest.raises(ConfigError, match="`classes`"):
        Flickr30kDataModule("a", "b", "c", classes=["dog"])

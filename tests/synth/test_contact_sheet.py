"""What the contact sheet shows, that it needs nothing else, and that nothing in it can be markup."""

import json
import re
from base64 import b64decode
from html import unescape
from html.parser import HTMLParser
from io import BytesIO

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

import synth
from datamodules.errors import AnnotationError, ConfigError, MissingPathError
from synth import SynthesisConfig
from synth.contact_sheet import Example, choose, marked, outline, sheet, thumbnail
from synth.fills import ZeroFill

NASTY = "<script>alert('x')</script> & \"a\" $title"
VOID = {"meta", "img"}


class Page(HTMLParser):
    """Collects text, images and tags, and checks that every tag is closed."""

    def __init__(self, html):
        super().__init__()
        self.open, self.tags, self.images, self.text = [], [], [], ""
        self.feed(html)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag == "img":
            self.images.append(dict(attrs))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open[-1:] != ["style"]:
            self.text += data


@pytest.fixture
def config(data, tmp_path):
    made = SynthesisConfig(
        data, tmp_path / "out", pairs={"train": ["train", "restval"]}, queries={"test": ["test"]}, fill=ZeroFill()
    )
    synth.run(made)
    return made


def rewrite(config, **changes):
    path = config.output / "train/metadata.jsonl"
    rows = [json.loads(line) | changes for line in path.read_text().splitlines()]
    path.write_text("".join(f"{json.dumps(row)}\n" for row in rows))


def test_the_page_has_every_pair_and_its_facts(config):
    examples = choose(config, "train", 24, seed=0)
    page = Page(sheet("Trial", examples, "three pairs"))
    assert len(examples) == 3
    assert [image["alt"] for image in page.images] == ["source", "synthetic"] * 3
    for example in examples:
        for fact in (example.row["text"], example.row["source_text"], "fill: zero", "caption: noun_phrases"):
            assert fact in page.text
        assert f"removed: {', '.join(example.row['removed'])}" in page.text
        assert f"kept: {', '.join(example.row['kept'])}" in page.text
    assert page.text.count("Trial") == 2


def test_the_page_stands_alone(config):
    html = sheet("Trial", choose(config, "train", 24, seed=0))
    for name, attributes in Page(html).tags:
        assert name not in ("script", "link", "iframe", "object")
        assert attributes.get("src", "data:").startswith("data:image/jpeg;base64,") or name != "img"
        assert "href" not in attributes
    assert "url(" not in html
    assert "prefers-color-scheme: dark" in html
    assert "width=device-width" in html


def test_embedded_images_are_those_of_the_set(config):
    example = choose(config, "train", 1, seed=0)[0]
    page = Page(sheet("Trial", [example]))
    source, synthetic = (Image.open(BytesIO(b64decode(image["src"].split(",")[1]))) for image in page.images)
    for shown, expected in ((source, outline(example.source, example.row["removed_boxes"])), (synthetic, None)):
        expected = thumbnail(example.synthetic) if expected is None else expected
        assert shown.format == "JPEG"
        assert shown.size == expected.size == (480, 400)
        assert np.abs(np.asarray(shown, float) - np.asarray(expected, float)).mean() < 12
    with Image.open(config.output / "train" / example.row["file_name"]) as stored:
        assert np.array_equal(np.asarray(stored.convert("RGB")), np.asarray(example.synthetic))


def test_queries_say_that_they_have_no_caption(config):
    page = Page(sheet("Trial", choose(config, "test", 24, seed=0)))
    assert page.text.count("a query, without a caption") == 2
    assert "caption:" not in page.text


def test_the_choice_is_by_seed(config):
    def ids(count, seed):
        return [example.row["image_id"] for example in choose(config, "train", count, seed)]

    everything = ids(24, 0)
    assert ids(1, 5) == ids(1, 5)
    assert {ids(1, seed)[0] for seed in range(20)} == set(everything)
    for seed in range(5):
        assert ids(2, seed) == [each for each in everything if each in ids(2, seed)]


def test_nothing_in_the_set_becomes_markup(config):
    rewrite(config, text=NASTY, source_text=NASTY, removed=[NASTY], kept=[NASTY], fill=NASTY, caption_strategy=NASTY)
    html = sheet(NASTY, choose(config, "train", 1, seed=0), NASTY)
    assert "<script" not in html
    assert Page(html).text.count(NASTY) == 9


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"file_name": "../../secret.png"}, "outside its folder"),
        ({"source_image_id": 7}, "unknown source image 7"),
        ({"removed_boxes": [[1, 2, 3]]}, "malformed"),
        ({"file_name": None}, "malformed"),
    ],
)
def test_broken_metadata_is_named(config, changes, problem):
    rewrite(config, **changes)
    with pytest.raises(AnnotationError, match=rf"metadata\.jsonl:1 .*{problem}"):
        choose(config, "train", 24, seed=0)


def test_an_unknown_split_and_an_empty_one_are_refused(config):
    with pytest.raises(MissingPathError, match=r"`--split` is vla, .* has test, train"):
        choose(config, "vla", 1, seed=0)
    (config.output / "train/metadata.jsonl").write_text("\n")
    with pytest.raises(ConfigError, match="no counterfactual"):
        sheet("Trial", choose(config, "train", 1, seed=0))


def test_boxes_are_outlined_where_they_are_and_nowhere_else():
    image = Image.new("RGB", (960, 640), "white")
    drawn = np.asarray(outline(image, [[200, 100, 300, 200]]))
    plain = np.asarray(thumbnail(image))
    rows, columns = np.nonzero((drawn != plain).any(2))
    assert (columns.min(), rows.min(), columns.max(), rows.max()) == (100, 50, 249, 149)
    assert (drawn[60:140, 110:240] == 255).all()
    assert drawn[51, 150].tolist() == [255, 59, 48]


@pytest.mark.parametrize("box", [[0, 0, 0.2, 0.2], [47.9, 39.9, 0.1, 0.1], [0, 0, 48, 40]])
def test_tiny_and_full_boxes_can_be_outlined(box):
    assert outline(Image.new("RGB", (48, 40)), [box]).size == (480, 400)


@pytest.mark.parametrize(
    ("before", "after", "gone", "new"),
    [
        ("Two dogs fighting over a frisbee.", "Two dogs fighting over.", ["a frisbee"], []),
        ("A dog and a frisbee on grass", "A frisbee on grass", ["A dog and"], []),
        ("A man, a dog and a horse", "A man and a horse", [", a dog"], []),
        ("A man's dog sees a man", "Sees a man", ["A man's dog"], []),
        ("A dog", "A photo of a cat", ["dog"], ["photo of a cat"]),
        ("Same words", "Same words", [], []),
    ],
)
def test_words_that_left_are_struck_through(before, after, gone, new):
    old, current = marked(before, after)
    assert re.findall("<del>(.*?)</del>", unescape(old)) == gone
    assert re.findall("<ins>(.*?)</ins>", current) == new


@given(*[st.text("aB1 ,'&<>\"\n", max_size=30)] * 2)
def test_marking_keeps_both_texts_whole(before, after):
    for text, html in zip((before, after), marked(before, after), strict=True):
        plain = re.sub("</?(?:del|ins)>", "", html)
        assert unescape(plain) == text
        assert "<" not in plain


def test_a_struck_caption_without_its_struck_words_is_the_new_one(config):
    for example in choose(config, "train", 24, seed=0):
        old, _ = marked(example.row["source_text"], example.row["text"])
        left = re.sub("<del>.*?</del>", "", old)
        assert re.findall(r"\w+", left.casefold()) == re.findall(r"\w+", example.row["text"].casefold())


def test_an_example_without_optional_facts_is_shown():
    row = {"removed_boxes": [], "source_image_id": 1, "text": "A cat"}
    picture = Image.new("RGB", (40, 20), "green")
    page = Page(sheet("Trial", [Example(row, picture, picture)]))
    assert "fill:" not in page.text
    assert "A cat" in page.text

"""Captions of any of the accepted forms, as a json that data modules read."""

import json
import re

import pytest
from PIL import Image

from datamodules.coco_reader import read_coco
from datamodules.errors import AnnotationError, ConfigError, MissingPathError
from synth.detection.captions import numbered
from synth.detection.photos import Photo, find

FILES = ["a.png", "deep/er/b.png", "deep/c.png"]
TABLE = [
    ("deep/er/b.png", 'A "dog", running', "test"),
    ("a.png", "Ein Hündchen", "train"),
    ("deep/er/b.png", "A dog again", "test"),
]


@pytest.fixture
def root(tmp_path):
    for file in FILES:
        (tmp_path / "photos" / file).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (8, 6)).save(tmp_path / "photos" / file)
    return tmp_path / "photos"


def as_csv(rows):
    lines = [",".join(f'"{cell}"'.replace('"dog"', '""dog""') for cell in row) for row in rows]
    return "\n".join(["\ufefffile,caption,split", *lines])


def as_jsonl(rows):
    return "\n".join(json.dumps(dict(zip(("file", "caption", "split"), row, strict=True))) for row in rows)


def give(root, name, text):
    """Write captions and find the images."""
    (root.parent / name).write_text(text, encoding="utf-8")
    return find(root, root.parent / name, root.parent / "boxes.json")


@pytest.mark.parametrize(("name", "form"), [("said.csv", as_csv), ("said.jsonl", as_jsonl)])
def test_a_table_becomes_a_json_that_is_read(root, name, form):
    found = give(root, name, form(TABLE))
    assert found.photos == [Photo(1, "deep/er/b.png"), Photo(0, "a.png")]
    assert found.karpathy == root.parent / "boxes_karpathy.json"
    tables = read_coco(found.karpathy, [], root, ("dog",), root.parent / "cache")
    assert list(tables.files) == ["deep/er/b.png", "a.png"]
    assert tables.image_ids.tolist() == [1, 0]
    assert list(tables.texts) == ['A "dog", running', "A dog again", "Ein Hündchen"]
    assert tables.caption_ids.tolist() == [0, 2, 1]
    assert [len(tables.rows(split)) for split in ("test", "train")] == [1, 1]


def test_all_is_for_training_where_a_table_has_no_splits(root):
    found = give(root, "said.csv", "caption,file\nA dog,a.png\nA cat,deep/c.png")
    images = json.loads(found.karpathy.read_text())["images"]
    assert [(image["filepath"], image["filename"], image["split"]) for image in images] == [
        ("", "a.png", "train"),
        ("deep", "c.png", "train"),
    ]


def test_the_same_table_gives_the_same_json_and_what_was_edited_stays(root):
    found = give(root, "said.jsonl", as_jsonl(TABLE))
    assert give(root, "said.jsonl", as_jsonl(TABLE)) == found
    found.karpathy.write_text(found.karpathy.read_text().replace('"test"', '"val"'))
    edited = found.karpathy.read_text()
    with pytest.raises(ConfigError, match=r"boxes_karpathy.json in Karpathy's layout, but that holds something else"):
        give(root, "said.jsonl", as_jsonl(TABLE))
    assert found.karpathy.read_text() == edited
    again = find(root, found.karpathy, root.parent / "boxes.json")
    assert again == found
    found.karpathy.write_bytes(b"\xff")
    with pytest.raises(ConfigError, match="but that holds something else"):
        give(root, "said.jsonl", as_jsonl(TABLE))


def karpathy(**ids):
    return {"filepath": "deep", "filename": "c.png", "split": "train", "sentences": [{"raw": "A dog"}], **ids}


def test_a_json_with_ids_of_coco_is_taken_as_it_is(root):
    found = give(root, "said.json", json.dumps({"images": [karpathy(cocoid=77, imgid=3)]}))
    assert found.photos == [Photo(77, "deep/c.png")]
    assert found.karpathy == root.parent / "said.json"


def test_a_json_of_another_data_set_gets_its_own_ids(root):
    found = give(root, "said.json", json.dumps({"dataset": "flickr30k", "images": [karpathy(imgid=3)]}))
    assert found.photos == [Photo(3, "deep/c.png")]
    assert json.loads(found.karpathy.read_text()) == {"dataset": "flickr30k", "images": [karpathy(imgid=3, cocoid=3)]}


def test_without_captions_all_images_are_taken(root):
    (root / "notes.txt").touch()
    Image.new("L", (3, 3)).save(root / "B.JPG")
    found = find(root, None, root.parent / "boxes.json")
    assert found.photos == [Photo(0, "B.JPG"), *map(Photo, (1, 2, 3), ["a.png", "deep/c.png", "deep/er/b.png"])]
    assert found.karpathy is None


@pytest.mark.parametrize(
    ("name", "text", "error"),
    [
        ("said.csv", "file,text\na.png,A dog", "line 2: the columns or keys `file` and `caption` are not there"),
        ("said.csv", "file,caption\na.png", "line 2: `caption` is None; write a text"),
        ("said.csv", "file,caption\na.png,A dog\na.png, ", "line 3: `caption` is ' '"),
        ("said.csv", 'file,caption\na.png,"A dog', "is no CSV after line 1"),
        ("said.csv", "file,caption", "has no captions"),
        ("said.csv", "file,caption\nz.png,A dog", "line 2, names the file z.png, which is not below the folder"),
        ("said.csv", "file,caption\n../photos/a.png,A dog", "line 2, names the file ../photos/a.png, which leads out"),
        ("said.csv", "file,caption\n/a.png,A dog", "line 2, names the file /a.png, which leads out"),
        ("said.csv", "file,caption,split\na.png,A,test\na.png,B,val", "line 3, puts a.png into split val, but"),
        ("said.jsonl", '{"file": "a.png", "caption": "A dog"}\n{"fi', "line 2, is no JSON"),
        ("said.jsonl", "[]", "line 1: the columns or keys"),
        ("said.jsonl", '{"file": 5, "caption": "A dog"}', "line 1: `file` is 5"),
        ("said.jsonl", '{"file": "a.png", "caption": "A \\ud83d dog"}', r"line 1: `caption` is 'A \\ud83d dog'; write"),
        ("said.csv", "file,caption\na.png,A dog, running", "line 2 has more cells than the head; put quotes"),
        ("said.json", '{"images": ', r"\(config key `captions`\) is not valid JSON"),
        ("said.json", '{"images": []}', r"\(config key `captions`\) has no list of images"),
        ("said.json", json.dumps({"images": [karpathy(imgid=1, raw="\ud83d")]}), r"`captions` has half a .*\\ud83d"),
        ("said.json", json.dumps({"images": [karpathy()]}), "lacks the key `cocoid`"),
        ("said.json", json.dumps({"images": [{**karpathy(cocoid=1), "filename": "z.png"}]}), "config key `images`"),
    ],
)
def test_captions_that_cannot_be_read_are_refused_where_they_are_wrong(root, name, text, error):
    with pytest.raises((AnnotationError, MissingPathError), match=error):
        give(root, name, text)
    assert not (root.parent / "boxes_karpathy.json").exists()


def test_captions_that_are_no_text_are_refused(root):
    (root.parent / "said.csv").write_bytes(b"\xff\xfe\x00file")
    with pytest.raises(AnnotationError, match="is not text but binary data"):
        find(root, root.parent / "said.csv", root.parent / "boxes.json")


def test_captions_of_another_form_or_nowhere_are_refused(root):
    with pytest.raises(ConfigError, match=re.escape("give a .json in Karpathy's layout, or a table as .csv or .jsonl")):
        give(root, "said.txt", "")
    with pytest.raises(MissingPathError, match="config key `captions`"):
        find(root, root.parent / "none.csv", root.parent / "boxes.json")


@pytest.mark.parametrize(
    ("files", "ids"),
    [
        (["COCO_val2014_000000000042.jpg", "000000000007.jpg"], [42, 7]),
        (["x/1.jpg", "y/01.jpg"], [0, 1]),
        (["b1.jpg", "a.jpg"], [1, 0]),
        (["2000000000000.jpg", "1.jpg"], [1, 0]),
    ],
)
def test_ids_are_the_numbers_of_the_names_where_those_are_ids(files, ids):
    assert numbered(files) == ids

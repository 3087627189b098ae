import pytest

from datamodules.errors import AnnotationError


def images(tiny):
    return tiny.karpathy["images"]


FAULTS = {
    "other layout": (lambda t: t.karpathy.pop("images"), r"karpathy.json .*`karpathy`.*no list of images"),
    "no image": (lambda t: images(t).clear(), "no list of images"),
    "a captions json": (lambda t: images(t)[0].pop("split"), "not in Karpathy's layout.*`split`: expected"),
    "later image lacks key": (lambda t: images(t)[2].pop("filename"), "image number 2 lacks .*`filename`"),
    "split is no text": (lambda t: images(t)[1].update(split=["val"]), r"splits must be texts, not \['val'\]"),
    "id is no number": (
        lambda t: images(t)[1].update(cocoid="10"),
        "image ids must be 64-bit integers, not '10'",
    ),
    "id is a fraction": (
        lambda t: images(t)[1].update(cocoid=1.5),
        "image ids must be 64-bit integers, not 1.5",
    ),
    "id is huge": (
        lambda t: images(t)[1].update(cocoid=2**63),
        "image ids must be 64-bit integers, not 9223372036",
    ),
    "same image twice": (lambda t: images(t)[1].update(cocoid=30), "image id 30 occurs 2 times"),
    "same caption twice": (
        lambda t: images(t)[1]["sentences"][0].update(sentid=301),
        "caption id 301 occurs 2 times",
    ),
    "one caption lacks its id": (
        lambda t: images(t)[1]["sentences"][0].pop("sentid"),
        "caption number 2 lacks the key `sentid`",
    ),
    "image without caption": (lambda t: images(t)[1].update(sentences=[]), "image 10 has no caption"),
    "caption of another image": (
        lambda t: images(t)[1]["sentences"][0].update(imgid=77),
        r"image 10 \(`imgid` 1\) holds a caption whose `imgid` is another",
    ),
    "empty caption": (
        lambda t: images(t)[2]["sentences"][1].update(raw=" \n"),
        "caption 201 of image 20 has no text",
    ),
    "half a character": (
        lambda t: images(t)[2]["sentences"][1].update(raw="A dog \ud83d"),
        r"caption 201 of image 20 has no text, or one with half a character \(key `raw`, 'A dog \\ud83d'\)",
    ),
    "no raw": (lambda t: images(t)[2]["sentences"][1].pop("raw"), "caption number 4 lacks the key `raw`"),
}


@pytest.mark.parametrize(("spoil", "message"), FAULTS.values(), ids=FAULTS)
def test_an_annotation_fault_is_told_in_one_sentence(refused, spoil, message):
    refused(spoil, message)


def test_images_without_cocoid_are_known_by_imgid_where_no_box_refers_to_them(tiny):
    for entry in tiny.karpathy["images"]:
        del entry["cocoid"], entry["filepath"]
    tiny.write()
    assert tiny.read(instances=(), check_files=False).image_ids.tolist() == [0, 1, 2]
    with pytest.raises(AnnotationError, match="image number 0 lacks the key `cocoid`"):
        tiny.read()


def test_captions_without_ids_are_numbered(tiny):
    for entry in tiny.karpathy["images"]:
        for sentence in entry["sentences"]:
            del sentence["sentid"]
    assert tiny.write().read().caption_ids.tolist() == [0, 1, 2, 3, 4, 5]

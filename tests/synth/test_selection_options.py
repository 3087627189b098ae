"""Every option of the selection against one painted mask per class and the rules one by one, by boxes and by masks."""

import json
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from datamodules.errors import AnnotationError, ConfigError
from datamodules.tables import Tables
from synth.regions import region_mask
from synth.rules import Rule
from synth.selection import Rejection, Removal, SelectionConfig, removals, select

WIDTH, HEIGHT, CLASSES = 24, 18, 5
MASKS = SelectionConfig(region="masks")


def write(folder, images):
    """Tables of images, each a list of (class, box xywh, crowd, segmentation)."""
    objects = [(row, *each) for row, image in enumerate(images) for each in image]
    rows, categories, boxes, crowds, outlines = zip(*objects, strict=True) if objects else [[]] * 5
    count = len(images)
    return Tables.write(
        folder,
        images={
            "image_id": list(range(count)),
            "file": [f"{row}.png" for row in range(count)],
            "split": [0] * count,
            "width": [WIDTH] * count,
            "height": [HEIGHT] * count,
        },
        captions={"caption_id": [], "image": [], "text": []},
        objects={"image": rows, "category": categories, "box": boxes, "crowd": crowds, "segmentation": outlines},
        class_names=list("abcde"),
        splits=["train"],
        fingerprint=folder.name,
    )


def outline(mask):
    """Uncompressed run lengths of a mask, down the columns, the first run of zeros."""
    flat = mask.T.ravel().astype(int)
    edges = np.flatnonzero(np.diff(flat, prepend=0, append=0)).tolist() + ([] if flat[-1] else [flat.size])
    return json.dumps({"size": list(mask.shape), "counts": np.diff(edges, prepend=0).tolist()})


def painted(box):
    x, y, width, height = box
    mask = np.zeros((HEIGHT, WIDTH), dtype=bool)
    mask[y : y + height, x : x + width] = True
    return mask


def draw_image(rng):
    """Up to eight objects; their outlines are their boxes without random pixels."""
    image = []
    for _ in range(rng.integers(0, 9)):
        x, y = int(rng.integers(0, WIDTH)), int(rng.integers(0, HEIGHT))
        box = x, y, int(rng.integers(0, min(14, WIDTH - x) + 1)), int(rng.integers(0, min(12, HEIGHT - y) + 1))
        mask = painted(box) & (rng.random((HEIGHT, WIDTH)) < 0.9)
        image.append((int(rng.integers(CLASSES)), box, int(rng.random() < 0.2), outline(mask), mask))
    return image


@pytest.fixture(scope="module")
def drawn(tmp_path_factory):
    """100 images, and their tables."""
    rng = np.random.default_rng(4)
    images = [draw_image(rng) for _ in range(100)]
    return images, write(tmp_path_factory.mktemp("tables") / "drawn", [[each[:4] for each in i] for i in images])


def reference(image, config):
    """Apply the rules to one mask per class, in their order."""
    masks = {}
    for category, box, crowd, _, mask in image:
        if crowd and config.crowds == "ignore":
            continue
        own = mask if config.region == "masks" else painted(box)
        if own.any():
            masks[category] = masks.get(category, False) | own
    return {r: verdict(r, masks, config) for r in sorted(masks)}


def verdict(r, masks, config):
    def shares(region):
        return {s: (region & masks[s]).sum() / masks[s].sum() for s in masks if s not in removed}

    def covered(share):
        return share > config.alpha2 and share >= config.alpha1 if config.gap == "keep" else share >= config.alpha1

    removed = {r}
    joining = {s for s, share in shares(masks[r]).items() if share > config.alpha2}
    removed |= joining if config.multi else set()
    region = np.any([masks[s] for s in removed], axis=0)
    kept = {s for s in masks if s not in removed and masks[s].mean() >= config.min_kept_area}
    if not kept:
        return Rule.NOTHING_KEPT
    if any(map(covered, shares(masks[r]).values())):
        return Rule.GAP
    if config.recheck and any(map(covered, shares(region).values())):
        return Rule.REGION
    return Rule.SIZE if region.mean() >= config.alpha3 else (removed, kept, region)


def check(outcome, expected, config, rule_counts):
    if isinstance(outcome, Rejection):
        rule_counts.append(outcome.rule)
        assert outcome.rule == expected
        assert (outcome.against is None) == (outcome.rule in (Rule.NOTHING_KEPT, Rule.SIZE))
        return
    removed, kept, region = expected
    assert (outcome.removed, outcome.kept) == (removed, kept)
    assert np.array_equal(region_mask(outcome, (WIDTH, HEIGHT)), region)
    assert (outcome.outline is not None) == (config.region == "masks")


OPTIONS = [
    {},
    {"crowds": "ignore"},
    {"gap": "keep"},
    {"recheck": False},
    {"multi": False},
    {"multi": False, "gap": "keep"},
    {"min_kept_area": 0.1},
    {"alpha1": 0.2, "alpha2": 0.5, "alpha3": 0.2, "gap": "keep", "min_kept_area": 0.05},
]


@pytest.mark.parametrize("region", ["boxes", "masks"])
@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_options_equal_the_painted_reference(drawn, region, options):
    images, tables = drawn
    config = SelectionConfig(region=region, **options)
    rows = np.random.default_rng(0).permutation(len(images))
    found, rules = list(select(tables, rows, config)), []
    assert len(found) == len(images)
    for row, outcomes in zip(rows, found, strict=True):
        expected = reference(images[row], config)
        assert [outcome.candidate for outcome in outcomes] == list(expected)
        for outcome in outcomes:
            check(outcome, expected[outcome.candidate], config, rules)
    assert Rule.NOTHING_KEPT in rules
    assert (Rule.GAP in rules) == (config.gap == "reject" or not config.multi)
    assert Rule.REGION not in rules or (config.recheck and config.multi)


@pytest.mark.parametrize("numbers", [1, 40, 2**20])
@pytest.mark.parametrize("config", [SelectionConfig(), MASKS], ids=["boxes", "masks"])
def test_an_image_is_judged_alike_in_any_company_and_any_parts(drawn, config, numbers, monkeypatch):
    _, tables = drawn
    rows = np.arange(60)
    together = list(select(tables, rows, config))
    monkeypatch.setattr("synth.selection._IMAGES", 7)
    monkeypatch.setattr("synth.coverage.NUMBERS", numbers)
    assert list(select(tables, rows, config)) == together
    alone = [next(select(tables, rows[row : row + 1], config)) for row in rows]
    assert alone == together
    assert list(select(tables, rows[:0], config)) == []


def test_a_rejection_names_the_class_that_would_be_covered_most(tmp_path):
    image = [(0, (0, 0, 10, 10), 0, ""), (1, (5, 0, 10, 10), 0, ""), (2, (4, 2, 8, 4), 0, "")]  # 0.5 and 0.75 in 0
    tables = write(tmp_path / "tables", [image])
    assert next(select(tables, np.array([0]), SelectionConfig()))[0] == Rejection(0, Rule.GAP, against=2)


def test_without_the_recheck_what_joined_may_cover_a_class(tmp_path):
    # 1 lies inside 0 by 0.85 and joins; what it adds covers half of 2, which 0 alone does not touch
    image = [(0, (0, 0, 17, 2), 0, ""), (1, (0, 0, 20, 2), 0, ""), (2, (17, 0, 6, 2), 0, "")]
    tables = write(tmp_path / "tables", [image])
    strict, lax = (next(select(tables, np.array([0]), SelectionConfig(recheck=check)))[0] for check in (True, False))
    assert strict == Rejection(0, Rule.REGION, against=2)
    assert (lax.removed, lax.kept) == ({0, 1}, {2})


def test_the_mask_of_a_removal_grows_like_a_box(tmp_path):
    box = (5, 4, 6, 3)
    image = [(category, b, 0, outline(painted(b))) for category, b in enumerate([box, (15, 10, 4, 4)])]
    tables = write(tmp_path / "tables", [image])
    by_boxes, by_masks = (next(select(tables, np.array([0]), c))[0] for c in (SelectionConfig(), MASKS))
    for dilation in (0, 1, 6):
        masks = [region_mask(removal, (WIDTH, HEIGHT), dilation) for removal in (by_boxes, by_masks)]
        assert np.array_equal(*masks)
        assert masks[0].sum() == {0: 6 * 3, 1: 8 * 5, 6: 17 * 13}[dilation]


cents = st.integers(0, 2400)
decimal_box = st.tuples(cents, cents, cents, cents).map(lambda c: (*np.sort(c[::2]), *np.sort(c[1::2])))


@settings(max_examples=50, deadline=None)
@given(st.lists(st.tuples(decimal_box, st.integers(0, 3)), max_size=6))
def test_boxes_of_hundredths_are_judged_like_their_whole_multiples(drawn):
    """Areas of whole numbers are exact; hundredths are no binary fractions, and must lead to the same verdicts."""
    whole = np.array([(x1, y1, x2, y2) for (x1, x2, y1, y2), _ in drawn], dtype=float).reshape(-1, 4)
    labels = [category for _, category in drawn]
    assert removals(whole / 100, labels, (24, 24)) == removals(whole, labels, (2400, 2400))


def test_decimal_shares_that_equal_a_limit_are_met():
    """0.1 + 0.2 is not 0.3 to a computer, but 0.4 of a box is 0.4."""
    kept, part = (0.1, 0.1, 0.6, 0.6), (0.1, 0.1, 0.3, 0.6)
    assert [removal.candidate for removal in removals([kept, part], [0, 1], (10, 10))] == []
    inside = (0.1, 0.1, 0.5, 0.6)  # 0.8: neither joins nor stays clear
    found = removals([kept, inside, (5, 5, 6, 6)], [0, 1, 2], (10, 10), alpha1=0.81)
    assert [removal.removed for removal in found if removal.candidate == 1] == [{1}]


def test_alpha2_of_one_lets_no_class_join():
    boxes = [(0.1, 0.1, 9.7, 9.7), (0.3, 0.3, 0.7, 0.7), (1.1, 1.3, 5.3, 2.9), (11.1, 11.1, 13.3, 17.7)]
    assert all(len(removal.removed) == 1 for removal in removals(boxes, range(4), (24, 18), alpha2=1))


@pytest.mark.parametrize(
    ("segmentation", "text"),
    [
        ("", "is missing"),
        ("[[0, 0, 4, 4]]", "three or more"),
        ("[[0, 0, 4, 0, 4]]", "three or more"),
        ('[[0, 0, 4, "x", 4, 4]]', "no number"),
        ("[[0, 0, NaN, 0, 4, 4]]", "outside the image of 24 x 18"),
        ("[[0, 0, 26, 0, 4, 4]]", "outside the image of 24 x 18"),
        ('{"size": [24, 18], "counts": [432]}', r"size \[24, 18\]"),
        ('{"size": [18, 24], "counts": [5, 3]}', "do not add up to 432"),
        ('{"size": [18, 24], "counts": [-1, 433]}', "do not add up"),
        ('{"size": [18, 24]}', "neither polygons nor run lengths"),
        ("7", "neither polygons nor run lengths"),
    ],
)
def test_a_broken_outline_is_named(tmp_path, segmentation, text):
    tables = write(tmp_path / "tables", [[(1, (0, 0, 4, 4), 0, segmentation)]])
    with pytest.raises(AnnotationError, match=rf"Image 0.png .*\(b, box .*{text}.*`selection.region` to boxes"):
        list(select(tables, np.array([0]), MASKS))
    assert list(select(tables, np.array([0]), SelectionConfig())) == [[Rejection(1, Rule.NOTHING_KEPT)]]


def test_polygons_and_compressed_counts_are_masks_too(tmp_path):
    from pycocotools import mask

    square = painted((2, 2, 4, 4))
    counts = mask.encode(np.asfortranarray(square.astype(np.uint8)))["counts"].decode()
    compressed = json.dumps({"size": [HEIGHT, WIDTH], "counts": counts})
    polygons = json.dumps([[10, 2, 14, 2, 14, 6, 10, 6], [16, 2, 20, 2, 20, 6, 16, 6]])
    image = [(0, (2, 2, 4, 4), 0, compressed), (1, (10, 2, 10, 4), 0, polygons)]
    found = next(select(write(tmp_path / "tables", [image]), np.array([0]), MASKS))
    assert all(isinstance(each, Removal) for each in found)
    assert np.array_equal(region_mask(found[0], (WIDTH, HEIGHT)), square)
    assert region_mask(found[1], (WIDTH, HEIGHT)).sum() == 2 * 4 * 4
    assert found[1].boxes.tolist() == [[10, 2, 20, 6]]


def test_a_mask_may_begin_at_the_first_pixel(tmp_path):
    image = [(category, box, 0, outline(painted(box))) for category, box in enumerate([(0, 0, 4, 4), (2, 0, 4, 6)])]
    tables = write(tmp_path / "tables", [image])
    first, second = next(select(tables, np.array([0]), MASKS))  # 8 of the 24 pixels of one, 8 of the 16 of the other
    assert (first.removed, first.kept) == ({0}, {1})
    assert second == Rejection(1, Rule.GAP, against=0)


def test_a_class_of_exactly_the_least_area_counts_as_kept(tmp_path):
    tables = write(tmp_path / "tables", [[(0, (0, 0, 6, 6), 0, ""), (1, (10, 0, 9, 12), 0, "")]])  # 1 has a quarter
    enough, few = (next(select(tables, np.array([0]), SelectionConfig(min_kept_area=a)))[0] for a in (0.25, 0.2501))
    assert enough.kept == {1}
    assert few == Rejection(0, Rule.NOTHING_KEPT)


def test_degenerate_images(tmp_path):
    empty, flat, beyond = [], [(0, (3, 3, 0, 5), 0, "")], [(0, (30, 0, 5, 5), 0, ""), (1, (20, 0, 50, 5), 0, "")]
    tables = write(tmp_path / "tables", [empty, flat, beyond])
    assert list(select(tables, np.arange(3), SelectionConfig())) == [[], [], [Rejection(1, Rule.NOTHING_KEPT)]]
    broken = write(tmp_path / "broken", [[(0, (0, 0, float("nan"), 5), 0, "")]])
    with pytest.raises(AnnotationError, match=r"Image 0.png .* must be finite"):
        list(select(broken, np.array([0]), SelectionConfig()))


@pytest.mark.parametrize(
    ("key", "value"),
    [("alpha1", 0), ("alpha3", 1.1), ("min_kept_area", 1.0), ("region", "box"), ("crowds", "no"), ("gap", "fill")],
)
def test_values_that_cannot_work_are_refused_by_their_key(key, value):
    with pytest.raises(ConfigError, match=f"`selection.{key}` is "):
        replace(SelectionConfig(), **{key: value})

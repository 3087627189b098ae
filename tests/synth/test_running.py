"""What a run makes under its options: captions and queries per image, networks, image captioners, and its report."""

import csv
import signal
from collections import Counter
from copy import copy
from dataclasses import dataclass, replace
from typing import ClassVar

import cv2
import numpy as np
import pytest

import synth
from datamodules.errors import ConfigError, UnreadableImageError
from datamodules.synthetic_set import SyntheticSet
from synth import SynthesisConfig, job, workspace, writer
from synth.captions import CaptionStrategy, PromptCaptions
from synth.fills import Fill, MeanFill, ZeroFill
from synth.progress import Meter
from synth.rules import Rule

SPLITS = {"pairs": {"train": ["train", "restval"]}, "queries": {"test": ["test"]}}


@pytest.fixture
def config(data, tmp_path):
    return SynthesisConfig(data=data, output=tmp_path / "out", fill=ZeroFill(), **SPLITS)


def test_all_captions_that_work_give_a_pair_each(config, rows):
    counts = synth.run(replace(config, captions_per_image="all"), alone=True).splits["train"]
    written = rows(config.output, "train")
    by_image = Counter(row["source_image_id"] for row in written)
    assert by_image == {100: 1, 101: 2, 102: 1}
    assert (counts.images, counts.used, counts.kept) == (5, 3, 4)
    assert counts.images == counts.used + sum(counts.dropped.values())
    assert len({row["caption_id"] for row in written}) == len({row["source_caption_id"] for row in written}) == 4
    for row in written:
        assert (row["image_id"] - 2**40) // 256 == row["source_image_id"]
        assert (config.output / "train" / row["file_name"]).is_file()
    originals = config.data.tables.image_ids
    assert len(SyntheticSet.read(config.output, ["train"], config.data.tables.class_names, originals)) == 4


def test_captions_that_lose_the_same_class_share_an_image(config, tmp_path, draw_data, rows):
    twins = draw_data("twins", [("a", "train", ["dog", "cat"], ["A dog", "A dog and a cat", "A cat near a dog"])])
    only = replace(config, data=twins, pairs={"train": ["train"]}, queries={}, captions_per_image="all")
    seen = set()
    for seed in range(8):
        output = tmp_path / f"seed{seed}"
        synth.run(replace(only, seed=seed, output=output), alone=True)
        written = rows(output, "train")
        files = {row["file_name"] for row in written}
        assert files == {path.name for path in (output / "train").glob("*.png")}
        assert len(written) == 2
        assert len({(row["image_id"], row["caption_id"]) for row in written}) == 2
        seen.add(len(files))
    assert seen == {1, 2}


def test_all_queries_are_all_distinct_removals(config, rows):
    summary = synth.run(replace(config, queries_per_image="all"), alone=True)
    written = rows(config.output, "test")
    found = Counter(row["source_image_id"] for row in written)
    assert found == {106: 2, 107: 3}
    assert len({row["file_name"] for row in written}) == summary.splits["test"].kept == 5
    assert {tuple(row["removed"]) for row in written if row["source_image_id"] == 107} == {
        ("dog",),
        ("frisbee",),
        ("cat",),
    }


@dataclass(frozen=True)
class Batched(Fill):
    """Black from a pretended network, which must be asked for several images at once."""

    name: ClassVar[str] = "zero"
    on_device: ClassVar[bool] = True
    sizes: ClassVar[list[int]] = []

    def batch(self, images, masks):
        self.sizes.append(len(images))
        return super().batch(images, masks)

    def paint(self, image, mask):
        return np.zeros(3, np.uint8)


@pytest.mark.parametrize("workers", [0, 1])
def test_a_fill_on_the_device_gets_batches(config, tmp_path, workers, contents):
    synth.run(config, alone=True)
    other = replace(config, fill=Batched(), batch_size=3, workers=workers, output=tmp_path / "batched")
    Batched.sizes.clear()
    synth.run(other, alone=workers == 1)
    assert Batched.sizes == [3, 2]
    before, after = contents(config.output), contents(other.output)
    assert {key: before[key] for key in before if "/" in key} == {key: after[key] for key in after if "/" in key}


class Seer(CaptionStrategy):
    """A captioner that tells which pixels are black by naming the classes it should not or should see."""

    name: ClassVar[str] = "seer"
    needs_image: ClassVar[bool] = True

    def write(self, requests):
        return [self._look(request) for request in requests]

    def _look(self, request):
        assert (request.image == 0).all(-1).any()
        names = request.class_names
        gone, stays = names[min(request.removed)], names[min(request.kept)]
        return {100: f"A {stays}", 101: f"A {gone} and a {stays}", 102: "Grass", 104: Rule.NO_WORDS}[request.seed[1]]


@pytest.mark.parametrize("fill", [ZeroFill(), Batched()])
def test_a_captioner_sees_the_filled_image_and_is_read_again(config, fill, rows):
    counts = synth.run(replace(config, caption=Seer(), fill=fill), alone=True).splits["train"]
    written = rows(config.output, "train")
    assert [row["source_image_id"] for row in written] == [100]
    assert written[0]["caption_strategy"] == "seer"
    assert counts.dropped[Rule.STILL_NAMED] == counts.dropped[Rule.NO_KEPT_WORD] == counts.dropped[Rule.NO_WORDS] == 1
    assert [path.name for path in (config.output / "train").glob("*.png")] == [written[0]["file_name"]]
    assert counts.images == counts.used + sum(counts.dropped.values())


def test_workers_do_without_the_threads_of_opencv(config, monkeypatch):
    real, before = ZeroFill.paint, cv2.getNumThreads()
    cv2.setNumThreads(2)
    monkeypatch.setattr(ZeroFill, "paint", lambda *given: real(*given) if cv2.getNumThreads() == 1 else 1 / 0)
    try:
        assert synth.run(replace(config, workers=1), alone=True).made
    finally:
        cv2.setNumThreads(before)


def test_a_captioner_of_images_writes_one_caption_for_each(config):
    with pytest.raises(ConfigError, match="`captions_per_image` is all, but Seer of `caption` sees the image alone"):
        replace(config, caption=Seer(), captions_per_image="all")


def test_prompts_need_no_class_in_the_source_caption(config, rows):
    counts = synth.run(replace(config, caption=PromptCaptions(templates=["a photo of {}."])), alone=True)
    written = rows(config.output, "train")
    assert [row["source_image_id"] for row in written] == [100, 101, 102, 104]
    assert counts.splits["train"].dropped[Rule.FEW_CLASSES] == 1
    for row in written:
        assert all(name in row["text"] for name in row["kept"])
        assert not any(name in row["text"] for name in row["removed"])


def test_feathering_blends_inside_the_region_alone(config, tmp_path, rows):
    from PIL import Image

    synth.run(replace(config, fill=MeanFill()), alone=True)
    synth.run(replace(config, fill=MeanFill(), feather=2, output=tmp_path / "soft"), alone=True)
    for row in rows(config.output, "test"):
        hard, soft = (
            np.asarray(Image.open(root / "test" / row["file_name"])) for root in (config.output, tmp_path / "soft")
        )
        changed = (hard != soft).any(-1)
        assert changed.any()
        for x, y, width, height in (map(int, box) for box in row["removed_boxes"]):
            changed[y : y + height, x : x + width] = False
        assert not changed.any()


def test_the_table_of_classes_counts_what_was_kept_and_rejected(config, rows):
    summary = synth.run(replace(config, queries_per_image="all"), alone=True)
    with (config.output / "classes.csv").open() as table:
        found = {
            (row["split"], row["class"], row["beside"], row["outcome"]): int(row["count"])
            for row in csv.DictReader(table)
        }
    written = rows(config.output, "test")
    assert found["test", "dog", "", "kept"] == sum("dog" in row["removed"] for row in written)
    assert found["test", "dog", "cat", "kept"] == sum("dog" in r["removed"] and "cat" in r["kept"] for r in written)
    rejected = sum(summary.splits["train"].rejected.values())
    rules = [key for key in found if key[0] == "train" and key[3] != "kept"]
    assert sum(found[key] for key in rules if not key[2]) == rejected == 1
    again = synth.run(replace(config, queries_per_image="all"), alone=True)
    assert again.splits["train"].tally == summary.splits["train"].tally


def test_the_closing_tables_have_classes_and_pairs(config, capsys):
    synth.run(config, alone=True).show()
    assert synth.run(config, alone=True).class_table(2).row_count == 4
    assert "classes.csv" in capsys.readouterr().err


def test_a_run_inside_another_does_without_the_trainer(config, monkeypatch):
    monkeypatch.setattr(job, "_ranks", None)
    for key, value in {"LOCAL_RANK": "1", "RANK": "3", "WORLD_SIZE": "4", "SLURM_NTASKS": "4"}.items():
        monkeypatch.setenv(key, value)
    assert synth.run(replace(config, trainer={"devices": 4}), alone=True).made


class TwoRanks(job._Alone):
    """Two ranks one after the other in this process: neither knows what the other met."""

    def run(self, stage):
        for rank in range(2):
            twin = copy(stage)
            twin._shards, twin._unreadable = {}, set(stage._unreadable)
            twin.start(rank, 2, "cpu")
            for batch in twin.loader(rank, 2):
                twin.step(batch)


def test_ranks_share_the_images_and_count_the_unreadable_ones_together(config, tmp_path, contents, monkeypatch):
    synth.run(config, alone=True)
    monkeypatch.setattr(job, "_ranks", lambda _: TwoRanks())
    again = replace(config, output=tmp_path / "again")
    with monkeypatch.context() as patched:
        patched.setattr(workspace, "clear", lambda _: None)
        synth.run(again)
    lines = [path.read_text().splitlines() for path in (again.output / ".run").rglob("rank-?.jsonl")]
    assert sorted(map(len, lines)) == [1, 1, 1, 2]
    synth.run(again)
    assert contents(again.output) == contents(config.output)
    broken = replace(config, output=tmp_path / "broken")
    config.data.max_unreadable = 1
    for name in ("a", "b"):
        (config.data.root / f"{name}.png").write_bytes(b"no image")
    with pytest.raises(UnreadableImageError, match="2 images cannot be read, more than `max_unreadable` 1"):
        synth.run(broken)


def test_ranks_meet_even_where_nothing_is_left_to_fill(config, monkeypatch):
    """A rank that comes late must not look at a set that the first one is ending."""
    met = []

    class Pair(job._Alone):
        several = True

        def run(self, stage):
            met.append(len(stage.loader(0, 1)))
            super().run(stage)

    monkeypatch.setattr(job, "_ranks", lambda _: Pair())
    with monkeypatch.context() as patched:
        patched.setattr(writer, "finish", lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            synth.run(config)
    synth.run(config)
    assert met == [5, 0]


def test_a_request_to_end_is_not_put_off_while_filling(config, monkeypatch):
    found, real = [], ZeroFill.paint
    monkeypatch.setattr(ZeroFill, "paint", lambda *_: found.append(signal.getsignal(signal.SIGTERM)) or real(*_))
    synth.run(config)
    assert found == [signal.getsignal(signal.SIGTERM)] * 5


def test_a_run_that_the_trainer_cuts_short_can_go_on(config):
    with pytest.raises(
        ConfigError, match="3 images of 5 were not made, as if options in `trainer` had cut the run short"
    ):
        synth.run(replace(config, trainer={"limit_predict_batches": 2}))
    assert synth.run(config).made


@pytest.mark.parametrize("options", [{"devises": 2}, {"accelerator": "gpus"}, {"devices": 0}])
def test_options_that_the_trainer_does_not_take_are_told(config, options):
    with pytest.raises(ConfigError, match="`trainer` has options that Lightning's Trainer does not take: "):
        synth.run(replace(config, trainer=options))
    assert not config.output.exists()


def test_progress_is_a_line_now_and_then_without_a_terminal(capsys):
    with Meter(every=0.0) as meter:
        task = meter.add("train: fill", 2000, 998)
        meter.advance(task)
        meter.advance(task, 4000)
    lines = capsys.readouterr().err.splitlines()
    assert [line.split(",  ")[0][:29] for line in lines] == [
        "train: fill: 999 of 2,000, 0.",
        "train: fill: 2,000 of 2,000, ",
    ][: len(lines)]
    assert len(lines) == 2
    with Meter(every=3600.0) as meter:
        list(meter.track(range(5), 5, "choose"))
    assert capsys.readouterr().err == ""


def test_only_one_rank_shows_its_progress(capsys):
    with Meter(visible=False, every=0.0) as meter:
        list(meter.track(range(5), 5, "choose"))
        meter.say("Image 7 cannot be read. " * 9)
    assert capsys.readouterr().err == "Image 7 cannot be read. " * 9 + "\n"

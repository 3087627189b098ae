"""A run that is killed goes on where it was and ends in the same files; two runs keep out of each other's way."""

import json
import os
import signal
import subprocess
import sys
import textwrap
import time
from dataclasses import replace
from pathlib import Path

import pytest

import synth
from datamodules.errors import ConfigError, UnreadableImageError
from synth import SynthesisConfig, job, shards, workspace, writer
from synth.fills import MeanFill, ZeroFill
from synth.rules import Rule
from synth.shards import Outcome, Shard

PROJECT = Path(__file__).parents[2]
SPLITS = {"pairs": {"train": ["train", "restval"]}, "queries": {"val": ["val"], "test": ["test"]}}
IMAGES = 6


@pytest.fixture
def config(data, tmp_path):
    return SynthesisConfig(data=data, output=tmp_path / "out", fill=ZeroFill(), **SPLITS)


@pytest.fixture
def undisturbed(config, tmp_path, contents):
    """The files of a run that nothing disturbed."""
    whole = replace(config, output=tmp_path / "undisturbed")
    synth.run(whole, alone=True)
    return contents(whole.output)


class Killed(BaseException):
    """Stands for a signal: nobody catches it."""


def dies_after(fill_class, images):
    """A fill that ends the run when it has painted so many images, and the list of what it painted."""
    painted = []

    def paint(self, image, mask):
        if len(painted) == images:
            raise Killed
        painted.append(image.tobytes())
        return fill_class.paint(self, image, mask)

    return type(
        "Dying", (fill_class,), {"paint": paint, "__module__": "synth.fills", "__qualname__": "ZeroFill"}
    )(), painted


@pytest.mark.parametrize("alone", [True, False])
def test_a_run_that_dies_goes_on_and_repeats_nothing(config, undisturbed, alone, contents):
    seen = []
    for images in (0, 1, 3, IMAGES):
        fill, painted = dies_after(ZeroFill, images)
        try:
            synth.run(replace(config, fill=fill), alone=alone)
        except Killed:
            assert not (config.output / "protocol.json").exists()
        seen += painted
    assert len(seen) == len(set(seen)) == IMAGES
    assert contents(config.output) == undisturbed


@pytest.mark.parametrize("step", ["write_split", "finish"])
def test_a_kill_while_merging_loses_nothing(config, undisturbed, monkeypatch, step, contents):
    with monkeypatch.context() as patched:
        patched.setattr(writer, step, lambda *_: (_ for _ in ()).throw(Killed))
        with pytest.raises(Killed):
            synth.run(config, alone=True)
    with monkeypatch.context() as patched:
        patched.setattr(job, "Stage", None)
        synth.run(config, alone=True)
    assert contents(config.output) == undisturbed


def test_a_kill_before_the_last_clearing_up_leaves_a_finished_set(config, undisturbed, monkeypatch, contents):
    with monkeypatch.context() as patched:
        patched.setattr(workspace, "clear", lambda _: (_ for _ in ()).throw(Killed))
        with pytest.raises(Killed):
            synth.run(config, alone=True)
    assert not synth.run(config, alone=True).made
    assert contents(config.output) == undisturbed


def break_off(config, images):
    with pytest.raises(Killed):
        synth.run(replace(config, fill=dies_after(ZeroFill, images)[0]), alone=True)


def test_what_a_crash_can_leave_is_done_again(config, undisturbed, contents):
    break_off(config, 3)
    shard = next(workspace.shard_folder(config.output, "train").glob("rank-*.jsonl"))
    whole, image = shard.read_bytes(), next((config.output / "train").glob("*.png"))
    shard.write_bytes(b'{"file_name": "0"}\n\0\0\0\n' + whole[:-20])
    image.write_bytes(b"")
    (config.output / "train" / ".x.png.7.part").touch()
    (config.output / "train" / "000000000999-001.png").touch()
    synth.run(config, alone=True)
    assert contents(config.output) == undisturbed


def test_shards_of_any_number_of_ranks_are_read(config, undisturbed, contents):
    break_off(config, 3)
    folder = workspace.shard_folder(config.output, "train")
    lines = (folder / "rank-0.jsonl").read_text().splitlines(keepends=True)
    (folder / "rank-0.jsonl").write_text(lines[0])
    (folder / "rank-7.jsonl").write_text("".join(lines[1:]))
    fill, painted = dies_after(ZeroFill, 99)
    synth.run(replace(config, fill=fill), alone=True)
    assert len(painted) == IMAGES - 3
    assert contents(config.output) == undisturbed


def test_another_config_cannot_go_on_with_an_unfinished_set(config):
    break_off(config, 2)
    with pytest.raises(ConfigError, match=r"set made with `fill\.class_path` 'synth\.fills\.ZeroFill' instead"):
        synth.run(replace(config, fill=MeanFill()), alone=True)
    synth.run(replace(config, workers=1, trainer={"max_time": None}), alone=True)


def test_an_error_in_a_fill_keeps_what_is_finished(config, undisturbed, monkeypatch, contents):
    with monkeypatch.context() as patched:
        fail = iter([False, False, True])
        real = ZeroFill.paint
        patched.setattr(ZeroFill, "paint", lambda *given: 1 / 0 if next(fail) else real(*given))
        with pytest.raises(ZeroDivisionError):
            synth.run(config)
    assert len(list(config.output.rglob("*.png"))) == 2
    synth.run(config)
    assert contents(config.output) == undisturbed


@pytest.mark.parametrize("alone", [True, False])
def test_a_killed_worker_is_one_sentence_and_the_run_goes_on(config, undisturbed, monkeypatch, alone, contents):
    with monkeypatch.context() as patched:
        patched.setattr(ZeroFill, "paint", lambda *_: os.kill(os.getpid(), signal.SIGKILL))
        with pytest.raises(ConfigError, match=r"`workers` 1 asks for was killed, .*; lower `workers` and start"):
            synth.run(replace(config, workers=1), alone=alone)
    synth.run(config, alone=True)
    assert contents(config.output) == undisturbed


def test_an_interrupted_run_says_so_and_goes_on(config, undisturbed, monkeypatch, contents):
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # a job in the background ignores it
    with monkeypatch.context() as patched:
        patched.setattr(ZeroFill, "paint", lambda *_: signal.raise_signal(signal.SIGINT))
        with pytest.raises(KeyboardInterrupt):
            synth.run(config)
    signal.signal(signal.SIGINT, before)  # Lightning ignores further ones while it shuts down
    synth.run(config)
    assert contents(config.output) == undisturbed


def test_a_full_disk_is_one_sentence_and_loses_nothing(config, undisturbed, monkeypatch, contents):
    with monkeypatch.context() as patched:
        real, lines = Shard.write, []

        def write(self, outcome):
            if len(lines) == 2:
                raise OSError(28, "No space left on device")
            lines.append(real(self, outcome))

        patched.setattr(Shard, "write", write)
        with pytest.raises(ConfigError, match=r"`output` .* cannot be written \(No space left on device\); make room"):
            synth.run(config, alone=True)
    synth.run(config, alone=True)
    assert contents(config.output) == undisturbed


def test_an_unreadable_image_is_not_tried_again_unless_there_were_too_many(config):
    config.data.max_unreadable = 1
    good = (config.data.root / "a.png").read_bytes()
    (config.data.root / "a.png").write_bytes(b"no image")
    break_off(config, 1)
    (config.data.root / "a.png").write_bytes(good)
    first = synth.run(config, alone=True)
    assert first.splits["train"].dropped[Rule.UNREADABLE] == 1
    other = replace(config, output=config.output.with_name("other"))
    (config.data.root / "a.png").write_bytes(b"no image")
    break_off(other, 1)
    config.data.max_unreadable = 0
    with pytest.raises(UnreadableImageError):
        synth.run(other, alone=True)
    (config.data.root / "a.png").write_bytes(good)
    assert synth.run(other, alone=True).splits["train"].dropped[Rule.UNREADABLE] == 0


def test_outcomes_survive_their_line():
    outcome = Outcome("1-2.png", {3: "Zwei Hunde \u201cso\u201d\n"}, {4: Rule.STILL_NAMED, 5: Rule.UNREADABLE})
    line = outcome.as_line()
    assert line.count("\n") == 1
    assert Outcome.from_line(line.encode()) == outcome


def test_a_kept_caption_wins_over_a_line_without_one(tmp_path):
    (tmp_path / "1.png").write_bytes(b"x")
    for rank, outcome in enumerate([Outcome("1.png", {1: "a"}), Outcome("1.png", {}, {1: Rule.UNREADABLE})]):
        shard = Shard(tmp_path / "shards", rank)
        shard.write(outcome)
        shard.close()
    assert shards.read(tmp_path / "shards", tmp_path)["1.png"].texts == {1: "a"}


SCRIPT = """
    import sys, time
    from pathlib import Path
    sys.path[:0] = [{project!r}, {tests!r}]
    from importlib.util import module_from_spec, spec_from_file_location
    spec = spec_from_file_location("drawn", {tests!r} + "/conftest.py")
    drawn = module_from_spec(spec)
    spec.loader.exec_module(drawn)
    sys.modules["drawn"] = drawn
    from synth import SynthesisConfig, run
    from synth.fills import ZeroFill
    real = ZeroFill.paint
    def paint(self, image, mask):
        time.sleep({pause})
        return real(self, image, mask)
    ZeroFill.paint = paint
    drawn.DrawnData.__module__ = {module!r}
    data = drawn.DrawnData({root!r})
    run(SynthesisConfig(data, Path({output!r}), fill=ZeroFill(), **{options!r}), alone={alone})
"""


@pytest.fixture
def script(config, tmp_path):
    """The function that starts a run in a process of its own."""

    def start(pause=0.0, alone=True, **options):
        text = SCRIPT.format(
            project=str(PROJECT),
            tests=str(Path(__file__).parent),
            pause=pause,
            module=type(config.data).__module__,
            root=str(config.data.root),
            output=str(config.output),
            options={**SPLITS, **options},
            alone=alone,
        )
        path = tmp_path / "script.py"
        path.write_text(textwrap.dedent(text))
        # a group of its own, so that a kill takes the workers and ranks along, as a scheduler does
        return subprocess.Popen([sys.executable, str(path)], stderr=subprocess.PIPE, text=True, start_new_session=True)

    return start


def wait_until(condition, process, seconds=120):
    for _ in range(seconds * 20):
        if condition() or process.poll() is not None:
            return
        time.sleep(0.05)
    raise TimeoutError


@pytest.mark.slow
def test_sigkill_at_any_moment_ends_in_the_same_files(config, undisturbed, script, contents):
    """One run killed after one image, one after four, by the run alone and with its workers; then a third ends."""
    for images, workers, group in ((1, 0, True), (4, 2, False)):
        process = script(pause=0.4, workers=workers)
        wait_until(lambda: len(list(config.output.glob("*/*.png"))) >= images, process)  # noqa: B023
        (os.killpg if group else os.kill)(process.pid, signal.SIGKILL)
        assert process.wait() == -signal.SIGKILL
        assert not (config.output / "protocol.json").exists()
    synth.run(config, alone=True)
    assert contents(config.output) == undisturbed


@pytest.mark.slow
def test_a_second_run_on_the_same_output_refuses(config, undisturbed, script, contents):
    process = script(pause=1.0)
    wait_until(lambda: list(config.output.glob("*/*.png")), process)
    with pytest.raises(ConfigError, match="is being written by another run"):
        synth.run(config, alone=True)
    process.wait()
    assert contents(config.output) == undisturbed


@pytest.mark.slow
@pytest.mark.ddp
def test_two_ranks_make_the_same_files_as_one(config, undisturbed, script, contents):
    process = script(alone=False, trainer={"devices": 2, "strategy": "ddp"})
    assert process.wait(500) == 0, process.stderr.read()
    assert contents(config.output) == undisturbed


def test_an_unfinished_set_keeps_its_config_and_lock_in_one_folder(config):
    break_off(config, 1)
    assert sorted(path.name for path in config.output.iterdir()) == [".run", "test", "train", "val"]
    assert json.loads((config.output / ".run" / "config.json").read_text()) == writer.identity(config)

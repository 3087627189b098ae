"""Every fill with every writer of captions, from one config of Scenes; models are tiny and random."""

import json
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest

import synth
from datamodules import ScenesDataModule
from datamodules.images import open_rgb
from datamodules.scenes import ScenesConfig
from datamodules.synthetic_set import SyntheticSet
from synth import SynthesisConfig
from synth.captions import CaptioningModel, NounPhraseRemoval, PromptCaptions
from synth.fills import BlurFill, LamaFill, MeanFill, NavierStokesFill, PatchMatchFill, TeleaFill, ZeroFill, box_mask

torch = pytest.importorskip("torch")

FILLS = {
    fill.name: fill
    for fill in (ZeroFill(), MeanFill(), BlurFill(), TeleaFill(), NavierStokesFill(), PatchMatchFill(patch_size=1))
}
SMALL = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}


@pytest.fixture(scope="module")
def config(tmp_path_factory):
    """A synthesis of a few small scenes, whose data are read once."""
    root = tmp_path_factory.mktemp("scenes")
    scenes = ScenesConfig(train=24, val=0, test=4, resolution=48)
    data = ScenesDataModule(root / "scenes", scenes, cache_dir=root / "cache")
    data.prepare_data()
    data.mentions()
    return SynthesisConfig(data, root / "unused", pairs={"train": ["train"]}, queries={"test": ["test"]}, dilation=1)


class Average(torch.nn.Module):
    """Paints the mean of what it is shown."""

    def forward(self, image: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        return image * (1 - mask) + mask * image.mean([2, 3], True)


@pytest.fixture(scope="module")
def lama(tmp_path_factory):
    """LaMa with a network that fits into one line."""
    path = tmp_path_factory.mktemp("lama") / "tiny.pt"
    with pytest.warns(FutureWarning, match="torch.jit"):
        torch.jit.save(torch.jit.script(Average()), path)
    return LamaFill(path)


@pytest.fixture(scope="module")
def captioning_model(config, tmp_path_factory):
    """A captioner of random weights that always sees the commonest class, and then something else without a name."""
    from transformers import BertTokenizer, CLIPImageProcessor, GitConfig, GitForCausalLM, GitProcessor

    tables = config.data.tables
    commonest = tables.class_names[Counter(tables.categories.tolist()).most_common(1)[0][0]]
    words = {
        word: number
        for number, word in enumerate(
            ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *commonest.split(), "and", "so", "on"]
        )
    }
    vision = {**SMALL, "image_size": 16, "patch_size": 8}
    ids = {"vocab_size": len(words), "pad_token_id": 0, "bos_token_id": 2, "eos_token_id": 3}
    images = CLIPImageProcessor(size={"shortest_edge": 16}, crop_size={"height": 16, "width": 16})
    folder = tmp_path_factory.mktemp("git")
    torch.manual_seed(0)
    GitForCausalLM(GitConfig(vision_config=vision, **SMALL, **ids)).save_pretrained(folder)
    GitProcessor(images, BertTokenizer(vocab=words)).save_pretrained(folder)
    return CaptioningModel(str(folder), num_beams=1, max_new_tokens=1, prompt=commonest)


def strategy(request, name):
    return {"noun_phrases": NounPhraseRemoval, "prompts": PromptCaptions}.get(
        name, lambda: request.getfixturevalue(name)
    )()


@pytest.mark.parametrize("caption", ["noun_phrases", "prompts", "captioning_model"])
@pytest.mark.parametrize("fill", [*FILLS, "lama"])
def test_every_fill_goes_with_every_caption(request, config, rows, tmp_path, fill, caption):
    both = replace(
        config,
        fill=FILLS[fill] if fill in FILLS else request.getfixturevalue(fill),
        caption=strategy(request, caption),
        output=tmp_path / "out",
    )
    counts = synth.run(both, alone=True).splits
    data, matcher = both.data, both.data.matcher
    assert len(SyntheticSet.read(both.output, ["train"], matcher.class_names, data.tables.image_ids)) > 0
    assert counts["train"].kept + counts["train"].dropped.total() == counts["train"].images == 24
    for row in rows(both.output, "train"):
        assert (row["fill"], row["caption_strategy"]) == (fill, caption)
        assert_only_the_region_changed(both, row)
    written = rows(both.output, "train")
    named = matcher.mentions([row["text"] for row in written])
    for row, found in zip(written, named, strict=True):
        names = {matcher.class_names[index] for index in np.flatnonzero(found)}
        assert names & set(row["kept"])
        assert not names & set(row["removed"])
    assert json.loads((both.output / "protocol.json").read_text())["config"]["fill"]["version"] == both.fill.version


def assert_only_the_region_changed(config, row):
    source = config.data.tables.image_ids.tolist().index(row["source_image_id"])
    before = np.asarray(config.data.read_image(source))
    changed = (np.asarray(open_rgb(config.output / "train" / row["file_name"])) != before).any(-1)
    x, y, width, height = np.array(row["removed_boxes"]).T
    region = box_mask(np.stack([x, y, x + width, y + height], 1), before.shape[1::-1], config.dilation)
    assert changed[region].any()
    assert not changed[~region].any()

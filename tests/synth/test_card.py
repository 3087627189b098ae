"""The card of a set: its head is YAML that says which folder is which split."""

import pytest
import yaml

from synth import SynthesisConfig
from synth.card import dataset_card
from synth.report import SplitCounts


@pytest.mark.parametrize(
    ("folder", "split"), [("train", "train"), ("train-2017", "train_2017"), ("2017", "2017"), ("no", "no")]
)
def test_a_split_is_a_text_whatever_its_folder_is_called(data, tmp_path, folder, split):
    config = SynthesisConfig(data=data, output=tmp_path / "out", pairs={folder: ["train"]})
    _, head, text = dataset_card(config, {folder: SplitCounts(7, 5, 3)}).split("---\n")
    (named,) = yaml.safe_load(head)["configs"]
    assert named["data_files"] == [{"split": split, "path": f"{folder}/**"}]
    assert f"| {folder} | 7 | 3 |" in text

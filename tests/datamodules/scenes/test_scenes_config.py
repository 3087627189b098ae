import pytest

from datamodules.errors import ConfigError
from datamodules.scenes import ScenesConfig


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("train", -1),
        ("rho", 1.01),
        ("rho", -0.1),
        ("test_rho", 2.0),
        ("rho", float("nan")),
        ("resolution", 16),
        ("captions", 0),
        ("seed", -1),
    ],
)
def test_a_value_that_cannot_work_is_named(key, value):
    with pytest.raises(ConfigError, match=rf"^scenes\.{key} is .*{str(value)[:3]}.*\.$"):
        ScenesConfig(**{key: value})


def test_an_empty_data_set_is_refused():
    with pytest.raises(ConfigError, match="at least one image"):
        ScenesConfig(train=0, val=0, test=0)


def test_only_the_test_split_takes_test_rho():
    config = ScenesConfig(rho=0.9, test_rho=0.0)
    assert [config.rho_of(split) for split in ("train", "val", "test")] == [0.9, 0.9, 0.0]
    assert ScenesConfig(rho=0.9).rho_of("test") == 0.9

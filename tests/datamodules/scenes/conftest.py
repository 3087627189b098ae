import pytest

from datamodules.scenes import ScenesConfig
from datamodules.scenes.writer import SceneDrawer


@pytest.fixture(scope="session")
def drawn():
    """250 scenes of 64 pixels with their captions."""
    drawer = SceneDrawer(ScenesConfig(rho=0.5))
    return [drawer.draw("train", index) for index in range(250)]

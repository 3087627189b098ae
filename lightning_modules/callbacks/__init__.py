"""What happens around a run: its record and its closing table."""

from lightning_modules.callbacks.closing_table import ClosingTable
from lightning_modules.callbacks.save_config import SaveRunConfig

__all__ = ["ClosingTable", "SaveRunConfig"]

"""What happens around a run: its record, its closing table and its embeddings."""

from lightning_modules.callbacks.closing_table import ClosingTable
from lightning_modules.callbacks.save_config import SaveRunConfig
from lightning_modules.callbacks.save_embeddings import SaveEmbeddings

__all__ = ["ClosingTable", "SaveEmbeddings", "SaveRunConfig"]

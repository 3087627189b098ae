"""What happens around a run: its record, its closing table, its results per query and embeddings, its early end."""

from lightning_modules.callbacks.closing_table import ClosingTable
from lightning_modules.callbacks.couples_seen import CouplesSeen
from lightning_modules.callbacks.finite_loss import FiniteLoss
from lightning_modules.callbacks.log_retrieved import LogRetrieved
from lightning_modules.callbacks.progress_bar import CalmProgressBar
from lightning_modules.callbacks.querybank import Querybank
from lightning_modules.callbacks.save_config import SaveRunConfig
from lightning_modules.callbacks.save_embeddings import SaveEmbeddings
from lightning_modules.callbacks.save_predictions import SavePredictions
from lightning_modules.callbacks.save_queries import SaveQueries

__all__ = [
    "CalmProgressBar",
    "ClosingTable",
    "CouplesSeen",
    "FiniteLoss",
    "LogRetrieved",
    "Querybank",
    "SaveEmbeddings",
    "SavePredictions",
    "SaveQueries",
    "SaveRunConfig",
]

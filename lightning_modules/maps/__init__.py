"""Where an image encoder looks: Grad-CAM of the similarity to a text, and attention rollout."""

from __future__ import annotations

from lightning_modules.maps.grad_cam import find_layer, grad_cam
from lightning_modules.maps.rollout import attention_rollout

__all__ = ["attention_rollout", "find_layer", "grad_cam"]

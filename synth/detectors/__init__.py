"""Detectors: which objects does an image show, and where? For data sets that have captions but no boxes."""

from synth.detectors.base import Detections, Detector
from synth.detectors.pretrained import TransformersDetector
from synth.detectors.yolox import YoloxDetector

__all__ = ["Detections", "Detector", "TransformersDetector", "YoloxDetector"]

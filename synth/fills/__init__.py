"""What stands where an object stood: every fill takes an image and a mask, and leaves all other pixels alone."""

from synth.fills.base import Fill
from synth.fills.diffusion import DiffusersFill
from synth.fills.lama import LamaFill
from synth.fills.marching import NavierStokesFill, TeleaFill
from synth.fills.masks import Mask, Pixels, box_mask, dilated, feathered
from synth.fills.network import NetworkFill
from synth.fills.patches import PatchMatchFill
from synth.fills.plain import BlurFill, MeanFill, ZeroFill

__all__ = [
    "BlurFill",
    "DiffusersFill",
    "Fill",
    "LamaFill",
    "Mask",
    "MeanFill",
    "NavierStokesFill",
    "NetworkFill",
    "PatchMatchFill",
    "Pixels",
    "TeleaFill",
    "ZeroFill",
    "box_mask",
    "dilated",
    "feathered",
]

for _fill in (BlurFill, DiffusersFill, LamaFill, MeanFill, NavierStokesFill, PatchMatchFill, TeleaFill, ZeroFill):
    _fill.__module__ = __name__  # the path that protocols of finished sets record; it must outlive the files' layout

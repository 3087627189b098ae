"""Boxes from a detector, for people who have images and captions but no boxes."""

"""Matrices as SVG: one scale, every cell named, every name escaped."""

from dataclasses import replace
from xml.etree import ElementTree

import numpy as np

from synth.cooccurrence import Change, Cooccurrence
from synth.heat_map import Panel, conditional_figure, draw

SVG = "{http://www.w3.org/2000/svg}"


def parsed(figure):
    return ElementTree.fromstring(figure)  # noqa: S314 (text of our own)


def test_the_figure_has_both_matrices_on_one_scale():
    before = Cooccurrence.of(np.array([[1, 1, 0], [1, 0, 0], [0, 1, 0], [0, 1, 0]], bool))
    after = before + Cooccurrence.of(np.array([[1, 0, 0]], bool))
    figure = parsed(conditional_figure(Change(before, after, ("dog", "a<b", "never")), "images"))
    panels = figure.findall(f"{SVG}g")
    titles = [[title.text for title in panel.iter(f"{SVG}title")] for panel in panels]
    assert [len(found) for found in titles] == [2, 2, 1]  # no tooltip where there is no number
    assert titles[0][0] == "P(a<b | dog) = 0.500"
    assert titles[1][0] == "P(a<b | dog) = 0.333"
    assert titles[2][0] == "change of P(a<b | dog): -0.167"
    limits = [[text.text for text in panel.iter(f"{SVG}text")][-2:] for panel in panels]
    assert limits[0] == limits[1] == ["0", "0.5"]
    assert limits[2] == ["-0.167", "0.167"]
    fills = {rect.get("fill") for rect in panels[0].iter(f"{SVG}rect") if rect.find(f"{SVG}title") is not None}
    assert "#08306b" in fills


def test_a_figure_of_nothing_is_a_figure():
    nothing = Cooccurrence.of(np.zeros((0, 2), bool))
    assert parsed(conditional_figure(Change(nothing, nothing, ("a", "b")), "images")).tag == f"{SVG}svg"
    panel = Panel("P", np.zeros((2, 2)), 0.0, "{value}")
    assert "<title>" not in draw([panel], ["a", "b"])
    assert parsed(draw([replace(panel, title="<P>")], ["a", "b"])).find(f"{SVG}g/{SVG}text").text == "<P>"

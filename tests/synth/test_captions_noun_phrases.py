"""Which words go with a removed class, and which stay."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from datamodules.phrases import Phrase
from synth.captions import remove_phrases
from synth.rules import Rule

REMOVED, KEPT, OTHER = 1, 2, 3


def parse(marked):
    """Turn "[a dog] near {a cat}" into a caption and its phrases: [removed], {kept}, <no class>, [{both}]."""
    caption, phrases, start = "", [], 0
    marks = {"[": {REMOVED}, "{": {KEPT}, "<": set(), "|": {REMOVED, KEPT}}
    for found in re.finditer(r"([\[{<|])([^\]}>|]*)[\]}>|]", marked):
        caption += marked[start : found.start()]
        begin = len(caption)
        caption += found.group(2)
        phrases.append(Phrase(begin, len(caption), frozenset(marks[found.group(1)])))
        start = found.end()
    return caption + marked[start:], phrases


def edit(marked):
    return remove_phrases(*parse(marked), {REMOVED}, {KEPT})


@pytest.mark.parametrize(
    ("marked", "expected"),
    [
        ("{Two dogs} fighting over [a frisbee]", "Two dogs fighting over"),
        ("{Two dogs} fighting over [a frisbee].", "Two dogs fighting over."),
        ("{Two dogs} fighting over [a frisbee] .", "Two dogs fighting over."),
        ("[A dog] and {a frisbee} on <grass>", "A frisbee on grass"),
        ("[a dog] and {a frisbee} on <grass>", "a frisbee on grass"),
        ("{A frisbee} and [a dog] on <grass>", "A frisbee on grass"),
        ("{A man}, [a dog] and {a horse}", "A man and a horse"),
        ("{A man}, {a dog} and [a horse]", "A man, a dog"),
        ("{A man}, {a dog}, and [a horse].", "A man, a dog."),
        ("{A man} , [a dog] , [a cat] and {a horse} .", "A man and a horse ."),
        ("[Dogs], [cats] & {men}", "Men"),
        ("{A man} riding [a horse] and holding {a ball}", "A man riding and holding a ball"),
        ("<A photo> of [a dog] and {a cat}", "A photo of a cat"),
        ("{A table} with [a pizza], <a fork> and <a knife>", "A table with a fork and a knife"),
        ("On [a boat], {a man} sits", "On, a man sits"),
        ("{A cat} ([a dog]) sits", "A cat sits"),
        ("{A cat} (with [a dog]) sits", "A cat (with) sits"),
        ("[The dog] is watching {a man}", "Is watching a man"),
        ("{A cat}  on [a tv] next to [a tv]", "A cat  on next to"),
        ("|A man's dog| sees {a man}", "Sees a man"),
        ("{A sandy} land [a band]", "A sandy land"),
        ("[A dog]; {a cat} sits", "A cat sits"),
        ("[A dog]. {A cat} sits.", "A cat sits."),
        ("{A man} near [jockey]'s riding", "A man near riding"),
        ("[A couple]\u2019s {dog} sits", "Dog sits"),
        ("{A man} on [skis]' and <hills>", "A man on hills"),
        ("{A man} says 'no [dog]' loudly", "A man says 'no' loudly"),
        ("{A cat} near [a dog] 'smiling'", "A cat near 'smiling'"),
        ("{A girl} near <a tree> and and [small boy].", "A girl near a tree."),
        ("{A HORSE} AND [A DOG]'S BALL", "A HORSE BALL"),
    ],
)
def test_the_rest_stays_verbatim_and_tidy(marked, expected):
    assert edit(marked) == expected


@pytest.mark.parametrize(
    ("marked", "rule"),
    [
        ("{A cat} on <a mat>", Rule.NOT_NAMED),
        ("<A mat>", Rule.NOT_NAMED),
        ("[A dog].", Rule.NO_WORDS),
        ("[A dog] and [a dog]", Rule.NO_WORDS),
        ("[A dog] on <grass>", Rule.NO_KEPT_WORD),
        ("|A man with a dog| outside", Rule.NO_KEPT_WORD),
    ],
)
def test_captions_that_cannot_be_used_name_their_rule(marked, rule):
    assert edit(marked) is rule


def test_a_named_class_that_the_image_lacks_is_no_kept_class():
    caption, phrases = parse("[A dog] near {a cat}")
    assert remove_phrases(caption, phrases, {REMOVED}, {OTHER}) is Rule.NO_KEPT_WORD


words = st.sampled_from(["red", "near", "on", "of", "is", "under", "and", ",", "or"])
phrase = st.sampled_from(["[a dog]", "{a cat}", "<the mat>", "[two dogs]"])


@given(st.lists(st.one_of(words, phrase), max_size=12).map(" ".join))
def test_no_removed_word_and_every_other_word_in_order(marked):
    caption, phrases = parse(marked)
    text = remove_phrases(caption, phrases, {REMOVED}, {KEPT})
    if isinstance(text, Rule):
        return
    left = re.sub(r"\[[^\]]*\]", "", marked)
    content = [word for word in re.findall(r"\w+", left) if word not in ("and", "or")]
    assert [word for word in re.findall(r"\w+", text) if word not in ("and", "or")] == content
    assert "dog" not in text
    assert text == text.strip()

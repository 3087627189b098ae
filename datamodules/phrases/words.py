"""The word list of a matcher: a yaml file of the words for each class. `coco_words.yaml` explains the format."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from functools import cached_property
from hashlib import sha256
from pathlib import Path
from typing import Any, NamedTuple

from datamodules.errors import ConfigError, MissingPathError
from datamodules.phrases.chunkers import split_words

_SECTIONS: dict[str, Any] = {
    "classes": dict,
    "nothing": list,
    "senses": dict,
    "nouns_only": list,
    "articled": dict,
    "likenesses": list,
    "yields": list,
    "heads": list,
    "measures": list,
    "unreal": list,
    "plurals": dict,
}
_MIN_FUZZY = 7  # shorter words have too many neighbours ("bear" and "beer") for spelling mistakes to be guessed


class Entry(NamedTuple):
    """What a term stands for.

    Attributes:
        term: the term as the file has it.
        classes: class indices that it names; empty where the words are part of another concept.
        plural: True for a plural form.
    """

    term: str
    classes: frozenset[int]
    plural: bool


class Sense(NamedTuple):
    """One of the meanings of a term: the class where the caption has a word that fits `cues` (None fits always)."""

    classes: frozenset[int]
    cues: re.Pattern[str] | None


class Yield(NamedTuple):
    """Terms that denote what stands beside them ("baby elephant") when a class of `to` is named within reach."""

    terms: frozenset[str]
    to: frozenset[int]
    caption: bool


def join_words(words: list[str]) -> str:
    """Write words together, so that "skate board", "skate-board" and "skateboard" are the same key."""
    return "".join(word for word in words if word != "-")


class WordList:
    """A parsed word list.

    Args:
        path: the yaml file.

    Raises:
        MissingPathError: if there is no such file.
        ConfigError: if the file is not a word list; the message names the file and the entry.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        if not path.is_file():
            raise MissingPathError(f"The word list {path} does not exist: give the path of a yaml file of word lists.")
        raw = path.read_bytes()
        self.digest = sha256(raw).hexdigest()
        self._sections = self._checked(raw)
        self.class_names: tuple[str, ...] = tuple(self._sections["classes"])
        self._irregular: Mapping[str, str] = self._sections["plurals"]
        self.entries = self._entries()
        self._guesses: dict[str, Entry | None] = {}
        self._check_known("nouns_only", self._sections["nouns_only"])
        self._check_known("articled", self._sections["articled"])
        self._beginnings = frozenset(key[:length] for key in self.entries for length in range(1, len(key) + 1))
        self.nouns_only = frozenset(self._sections["nouns_only"])
        self.articled = {
            term: self._cues(f"articled: {term}", cues) for term, cues in self._sections["articled"].items()
        }
        self.likenesses = [self._likeness(n, rule) for n, rule in enumerate(self._sections["likenesses"], 1)]
        self.heads = frozenset(self._sections["heads"])
        self.measures = self._forms("measures")
        self.unreal = self._forms("unreal")
        self.senses = {term: self._senses(term, senses) for term, senses in self._sections["senses"].items()}
        self.yields = [self._yield(number, rule) for number, rule in enumerate(self._sections["yields"], 1)]

    def starting(self, words: list[str], start: int) -> list[tuple[int, Entry]]:
        """Return the entries that begin at `words[start]`, each with the word after its last one, the longest first."""
        found, key = [], ""
        for end, word in enumerate(words[start:], start + 1):
            if word == "-":
                continue
            key += word
            if key not in self._beginnings:
                break
            if key in self.entries:
                found.append((end, self.entries[key]))
        return found[::-1]

    def guess(self, word: str) -> Entry | None:
        """Return the entry whose spelling is one letter (or two swapped letters) away from a long word, if any."""
        if len(word) < _MIN_FUZZY or not word.isalpha():
            return None
        if word not in self._guesses:
            self._guesses[word] = next(self._similar(word), None)
        return self._guesses[word]

    def _similar(self, word: str) -> Iterator[Entry]:
        for key in sorted(_shortened(word)):
            for candidate in self._neighbours.get(key, ()):
                if _same_frame(candidate, word) and _one_slip(candidate, word):
                    yield self.entries[candidate]

    @cached_property
    def _neighbours(self) -> dict[str, list[str]]:
        neighbours: dict[str, list[str]] = {}
        for key, entry in self.entries.items():
            if len(key) >= _MIN_FUZZY - 1 and key.isalpha() and entry.classes and entry.term not in self.senses:
                for short in _shortened(key):
                    neighbours.setdefault(short, []).append(key)
        return neighbours

    def _checked(self, raw: bytes) -> dict[str, Any]:
        import yaml

        try:
            sections = yaml.load(raw, getattr(yaml, "CSafeLoader", yaml.SafeLoader))  # noqa: S506 - ten times as fast
        except (yaml.YAMLError, UnicodeDecodeError) as error:
            raise ConfigError(
                f"{self.path} is not valid yaml ({' '.join(str(error).split())}): mend that line."
            ) from None
        if not isinstance(sections, dict) or not isinstance(sections.get("classes"), dict) or not sections["classes"]:
            raise self._wrong("classes", "it must map every class name to its words")
        for name, content in sections.items():
            if name not in _SECTIONS:
                raise self._wrong(name, f"the sections of a word list are {', '.join(_SECTIONS)}")
            self._check_section(name, content)
        return {name: sections.get(name, kind()) for name, kind in _SECTIONS.items()}

    def _check_section(self, name: str, content: Any) -> None:
        if not isinstance(content, _SECTIONS[name]):
            raise self._wrong(name, f"it must be a {'list' if _SECTIONS[name] is list else 'mapping'}")
        if name == "classes":
            for label, words in content.items():
                self._check_words(f"classes: {label}", words)
        elif _SECTIONS[name] is list and name not in ("yields", "likenesses"):
            self._check_words(name, content)

    def _check_words(self, where: str, words: Any) -> None:
        if not isinstance(words, list):
            raise self._wrong(where, "it must be a list of words")
        for word in words:
            if not isinstance(word, str) or not word.strip():
                raise self._wrong(
                    f"{where}: {word!r}", "a word must be text; put yes, no, on, off and numbers in quotes"
                )

    def _check_known(self, where: str, terms: Iterable[str]) -> None:
        for unknown in sorted(set(terms) - {entry.term for entry in self.entries.values()}):
            raise self._wrong(f"{where}: {unknown}", "it repeats a term of the other sections, and none is written so")

    def _wrong(self, entry: Any, reason: str) -> ConfigError:
        return ConfigError(f"{self.path}, entry '{entry}': {reason}.")

    def _entries(self) -> dict[str, Entry]:
        entries: dict[str, Entry] = {}
        for term, classes in self._terms():
            for key, plural in self._keys(term):
                old = entries.setdefault(key, Entry(term, classes, plural))
                if old.classes != classes:
                    raise self._wrong(term, f"the words also stand under '{old.term}' with another meaning; keep one")
        return entries

    def _terms(self) -> Iterator[tuple[str, frozenset[int]]]:
        named: dict[str, frozenset[int]] = {}
        for index, (name, terms) in enumerate(self._sections["classes"].items()):
            for term in [name, *terms]:
                named[term] = named.get(term, frozenset()) | {index}
        yield from ((term, classes) for term, classes in named.items() if term not in self._sections["senses"])
        for term in [*self._sections["senses"], *self._sections["nothing"]]:
            yield term, frozenset()

    def _keys(self, term: str) -> Iterator[tuple[str, bool]]:
        words = split_words(term)[0]
        yield join_words(words), False
        head = words.index("of") - 1 if "of" in words[1:] else len(words) - 1
        for plural in self._plurals(words[head]):
            yield join_words([*words[:head], plural, *words[head + 1 :]]), True

    def _plurals(self, word: str) -> set[str]:
        regular = re.sub(r"(?<=[^aeiou])y$", "ie", re.sub(r"(s|x|z|ch|sh)$", r"\1e", word)) + "s"
        irregular = {word[: -len(one)] + many for one, many in self._irregular.items() if word.endswith(one)}
        return {regular, word + "s"} | irregular

    def _forms(self, section: str) -> frozenset[str]:
        return frozenset(key for term in self._sections[section] for key, _ in self._keys(term))

    def _senses(self, term: str, senses: Any) -> list[Sense]:
        if not isinstance(senses, dict):
            raise self._wrong(f"senses: {term}", "it must map classes (or nothing) to lists of cue words")
        where = f"senses: {term}"
        return [
            Sense(self._indices([name], where), self._cues(f"{where}: {name}", cues)) for name, cues in senses.items()
        ]

    def _cues(self, where: str, cues: Any) -> re.Pattern[str] | None:
        self._check_words(where, cues)
        return _cue_pattern(cues)

    def _likeness(self, number: int, rule: Any) -> tuple[frozenset[str], frozenset[int]]:
        where = f"likenesses: rule {number}"
        if not isinstance(rule, dict) or set(rule) != {"words", "of"}:
            raise self._wrong(where, "a rule has the keys words and of")
        self._check_words(where, rule["words"])
        return frozenset(rule["words"]), self._indices(rule["of"], where)

    def _yield(self, number: int, rule: Any) -> Yield:
        where = f"yields: rule {number}"
        if (
            not isinstance(rule, dict)
            or set(rule) != {"words", "to", "within"}
            or rule["within"] not in ("phrase", "caption")
        ):
            raise self._wrong(where, "a rule has the keys words, to and within (phrase or caption)")
        self._check_words(where, rule["words"])
        self._check_known(where, rule["words"])
        return Yield(frozenset(rule["words"]), self._indices(rule["to"], where), rule["within"] == "caption")

    def _indices(self, names: Any, where: str) -> frozenset[int]:
        if names == "any":
            return frozenset(range(len(self.class_names)))
        self._check_words(where, names)
        for name in names:
            if name != "nothing" and name not in self.class_names:
                raise self._wrong(where, f"'{name}' is none of the classes")
        return frozenset(self.class_names.index(name) for name in names if name != "nothing")


def _cue_pattern(cues: list[str]) -> re.Pattern[str] | None:
    if not cues:
        return None
    return re.compile(r"\b(?:" + "|".join(re.escape(cue).replace(r"\*", r"\w*") for cue in cues) + r")\b")


def _shortened(word: str) -> set[str]:
    return {word} | {word[:cut] + word[cut + 1 :] for cut in range(len(word))}


def _same_frame(right: str, wrong: str) -> bool:
    """Tell whether first and last letters agree, but for an end cut off or added; "village" is no "villager"."""
    cut = right[:-1] == wrong and right[-1] != "r"
    return right[0] == wrong[0] and (right[-1] == wrong[-1] or cut or right == wrong[:-1])


def _one_slip(right: str, wrong: str) -> bool:
    """Tell whether one letter was dropped or added, a vowel changed, or two neighbours swapped."""
    if len(right) != len(wrong):
        longer, shorter = sorted((right, wrong), key=len, reverse=True)
        return shorter in _shortened(longer)
    differing = [place for place, (one, other) in enumerate(zip(right, wrong, strict=True)) if one != other]
    if len(differing) == 2:
        first, second = differing
        return second == first + 1 and right[first] == wrong[second] and right[second] == wrong[first]
    return len(differing) == 1 and {right[differing[0]], wrong[differing[0]]} <= set("aeiouy")

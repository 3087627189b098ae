"""Which classes does a caption name, and with which words? One protocol, one matcher per data set."""

from datamodules.phrases.protocol import Phrase, PhraseMatcher

__all__ = ["Phrase", "PhraseMatcher"]

"""Which classes does a caption name, and with which words? One protocol, one matcher per data set."""

from datamodules.phrases.chunkers import Chunker, SpacyChunker
from datamodules.phrases.coco import CocoMatcher
from datamodules.phrases.matcher import WordListMatcher
from datamodules.phrases.protocol import Phrase, PhraseMatcher
from datamodules.phrases.rule_chunker import RuleChunker

__all__ = ["Chunker", "CocoMatcher", "Phrase", "PhraseMatcher", "RuleChunker", "SpacyChunker", "WordListMatcher"]

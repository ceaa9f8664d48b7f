"""The tokenizer: a `tiktoken.Encoding` over a task's own vocabulary. Nothing is downloaded.

Every number, operator, word and tag of a task is one token, so a model of 0.6 million parameters spends
nothing on spelling. A token may contain spaces (" + ", "Use "): the text stays pleasant to read and no
token is spent on a space.

Three properties of tiktoken have to be handled, because each of them fails silently or badly:
  1. text that the split pattern does not match is dropped without a word, so the pattern ends in a catch-all;
  2. a piece outside of the vocabulary panics inside Rust, so the pieces are looked up first;
  3. a number pattern like \\d{1,2} would read 123 as 12 and 3, so a run of digits is always one piece.

>>> tok = Tokenizer("demo", ["<think>", "</think>", " + ", " = ", *map(str, range(100))])
>>> tok.encode("<think>12 + 3 = 15</think>")
[2, 18, 4, 9, 5, 21, 3]
>>> tok.decode([18, 4, 9])
'12 + 3'
>>> tok.encode("12 + 345")
Traceback (most recent call last):
    ...
ValueError: '345' is not in the vocabulary of task demo; neighbouring digits are read as one number
"""
import re

import tiktoken

PAD, EOS = "<|pad|>", "<|eos|>"


class Tokenizer(tiktoken.Encoding):
    """`encode`, `decode` and `n_vocab` as in tiktoken; ids 0 and 1 are the special tokens `pad` and `eos`.

    Note that decoding forgets where tokens end: the ids of "1" and "2" decode to "12", which encodes to
    another id. Everything in this project passes ids on; DAgger, which encodes a sampled text again, checks first
    that the ids are the same.
    """

    def __init__(self, name, vocabulary):
        words = sorted((w for w in vocabulary if not w.isdigit()), key=len, reverse=True)  # longest first
        pattern = "|".join([*map(re.escape, words), "[0-9]+", r"[\s\S]"])
        super().__init__(name, pat_str=pattern,
                         mergeable_ranks={w.encode(): i + 2 for i, w in enumerate(vocabulary)},
                         special_tokens={PAD: 0, EOS: 1})
        self.pad, self.eos = 0, 1
        self.vocabulary = frozenset(vocabulary)
        self.pieces = re.compile(pattern)

    def encode(self, text, **kwargs):
        """text -> list of token ids. Raises ValueError that names the first piece outside of the vocabulary."""
        for piece in self.pieces.findall(text):
            if piece not in self.vocabulary:
                raise ValueError(f"{piece!r} is not in the vocabulary of task {self.name}"
                                 + "; neighbouring digits are read as one number" * (piece.isdigit() and len(piece) > 1))
        return super().encode_ordinary(text)

"""Banned words: which ids are forbidden next so that a text never contains a word, however it is tokenized.

A text contains a word if no letter or digit stands beside it, on each side where the word itself has a letter or digit: `cat` is in
`a cat.` but not in `cats`. So the next character decides whether a word is complete: an id is forbidden if it completes a word (by the
character after it), or if it ends with one and nothing that follows can lengthen it: at `max_tokens`, and with tokenizers whose tokens
are whole words. A character split over several tokens counts as a non-letter after a word. The prompt is part of the text: a word that it
begins is not completed.

An automaton: the state of a row is how much of each word its text ends with. States are few; the ids forbidden in each are computed once.
"""

import codecs
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor


class TextState(NamedTuple):
    """What the automaton remembers of a text."""

    matches: tuple[tuple[int, int], ...]
    """(index of a word, number of its characters that the text ends with) for each word that may still be completed."""
    after_alnum: bool
    """Whether the last character is a letter or digit."""
    partial: bytes
    """Bytes at the end that are not yet a character."""


START = TextState((), False, b"")
PARTIAL_CHARACTER = "\N{REPLACEMENT CHARACTER}"
"""First character of spellings that begin inside a character."""


class BannedWords:
    """The automaton; states are numbered from 0, the empty text."""

    def __init__(self, words: Sequence[str], spellings: Sequence[bytes], device: torch.device):
        """`spellings`: [V] what each id adds to the text before it."""
        self.words, self.spellings, self.device = tuple(words), spellings, device
        self._first_characters = [spelling.decode(errors="replace")[:1] for spelling in spellings]
        self._words_can_grow = any(character.isalnum() for character in self._first_characters)
        self._states: list[TextState] = [START]
        self._numbers: dict[TextState, int] = {START: 0}
        self._transitions: dict[tuple[int, int], int] = {}
        self._masks: dict[int, tuple[Tensor, Tensor]] = {}

    def next_state(self, number: int, id: int) -> int:
        """The state that an id leads to."""
        key = (number, id)
        if key not in self._transitions:
            state, _ = self._read(self._states[number], self.spellings[id])
            self._transitions[key] = self._number(state)
        return self._transitions[key]

    def forbidden(self, number: int, last: bool) -> Tensor:
        """[V] bool: the ids forbidden next; `last`: nothing follows them."""
        completing, ending = self._try_all(self._states[number])
        return completing | ending if last or not self._words_can_grow else completing

    def _number(self, state: TextState) -> int:
        number = self._numbers.setdefault(state, len(self._states))
        if number == len(self._states):
            self._states.append(state)
        return number

    def _try_all(self, state: TextState) -> tuple[Tensor, Tensor]:
        """[V] bool: the ids that complete a word, and those after which the text ends with one."""
        number = self._number(state)
        if number not in self._masks:
            unmatched = TextState((), state.after_alnum, b"")
            if state == unmatched:
                masks, candidates = torch.zeros(2, len(self.spellings), dtype=torch.bool), list(range(len(self.spellings)))
            else:  # only ids that continue a match differ from the state without matches
                masks = torch.stack(self._try_all(unmatched)).cpu()
                candidates = [id for id, character in enumerate(self._first_characters) if self._continues(state, character)]
            for id in candidates:
                after, completed = self._read(state, self.spellings[id])
                ends = any(matched == len(self.words[word]) for word, matched in after.matches)
                masks[0, id] = completed or (ends and bool(after.partial))  # the rest of a character may be a non-letter
                masks[1, id] = ends
            self._masks[number] = (masks[0].to(self.device), masks[1].to(self.device))
        return self._masks[number]

    def _continues(self, state: TextState, character: str) -> bool:
        """Whether a spelling with this first character may continue a match."""
        if state.partial or character in ("", PARTIAL_CHARACTER):
            return True
        return any(self.words[word][matched:][:1] in ("", character) for word, matched in state.matches)

    def _read(self, state: TextState, spelling: bytes) -> tuple[TextState, bool]:
        """The state after more text, and whether a word was completed on the way."""
        decoder = codecs.getincrementaldecoder("utf-8")("replace")
        matches, after_alnum, completed = state.matches, state.after_alnum, False
        for character in decoder.decode(state.partial + spelling):
            is_alnum, extended = character.isalnum(), []
            for word, matched in (*matches, *((word, 0) for word in range(len(self.words)))):
                text = self.words[word]
                if matched == len(text):
                    completed |= not is_alnum
                elif text[matched] == character and not (matched == 0 and after_alnum and text[0].isalnum()):
                    if matched + 1 < len(text) or is_alnum:
                        extended.append((word, matched + 1))
                    else:  # a word that ends in a punctuation mark is complete, whatever follows
                        completed = True
            matches, after_alnum = tuple(extended), is_alnum
        return TextState(matches, after_alnum, decoder.getstate()[0]), completed

"""Banned words: which ids may not come next so that a text never contains a word, in whatever tokens it is spelled.

A text contains a word where no letter or digit stands beside it, if a letter or digit is at that end of the word itself: `cat` is in
`a cat.` but not in `cats`. So a word is spoilt or completed by what follows it: an id is out of the question where it completes one (by the
character behind it), or where it spells one to its end and nothing could follow that makes it longer: at the last
token allowed, and with tokenizers whose tokens are whole words. A character that comes in several tokens counts as no letter behind a
word. The prompt is part of the text: a word that it begins is not completed.

A row's state is how much of each word its text ends with. States are few, and which ids each forbids is found once, in text.
"""

import codecs
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor


class TextState(NamedTuple):
    """What matters of a text."""

    begun: tuple[tuple[int, int], ...]
    """(word, characters of it that the text ends with), of each word that may still be completed."""
    beside: bool
    """Whether the last character is a letter or digit."""
    rest: bytes
    """Bytes at the end that are not yet a character."""


START = TextState((), False, b"")
PART = "\N{REPLACEMENT CHARACTER}"
"""Opens what begins with a part of a character."""


class BannedWords:
    """Follows texts, each state being known by a number."""

    def __init__(self, words: Sequence[str], spellings: Sequence[bytes], device: torch.device):
        """`spellings`: [V] what each id adds to the text before it."""
        self.words, self.spellings, self.device = tuple(words), spellings, device
        self._openings = [spelling.decode(errors="replace")[:1] for spelling in spellings]
        self._may_go_on = any(opening.isalnum() for opening in self._openings)
        self._states: list[TextState] = [START]
        self._numbers: dict[TextState, int] = {START: 0}
        self._after: dict[tuple[int, int], int] = {}
        self._found: dict[int, tuple[Tensor, Tensor]] = {}

    def after(self, number: int, id: int) -> int:
        """The state that an id leads to."""
        key = (number, id)
        if key not in self._after:
            state, _ = self._read(self._states[number], self.spellings[id])
            if state not in self._numbers:
                self._numbers[state] = len(self._states)
                self._states.append(state)
            self._after[key] = self._numbers[state]
        return self._after[key]

    def forbidden(self, number: int, last: bool) -> Tensor:
        """[V] bool: the ids that may not come next; `last`: nothing follows them."""
        completed, spelt = self._try_all(self._states[number])
        return completed | spelt if last or not self._may_go_on else completed

    def _try_all(self, state: TextState) -> tuple[Tensor, Tensor]:
        """[V] bool: the ids that complete a word, and those after which the text ends with one."""
        number = self._numbers.setdefault(state, len(self._states))
        if number == len(self._states):
            self._states.append(state)
        if number not in self._found:
            fresh = TextState((), state.beside, b"")
            if state == fresh:
                found, trying = torch.zeros(2, len(self.spellings), dtype=torch.bool), list(range(len(self.spellings)))
            else:  # only ids that go on with a word already begun do anything else than after another text
                found = torch.stack(self._try_all(fresh)).cpu()
                trying = [id for id, opening in enumerate(self._openings) if self._matters(state, opening)]
            for id in trying:
                after, completed = self._read(state, self.spellings[id])
                spelt = any(place == len(self.words[word]) for word, place in after.begun)
                found[0, id] = completed or (spelt and bool(after.rest))  # a part of a character may turn out to be anything
                found[1, id] = spelt
            self._found[number] = (found[0].to(self.device), found[1].to(self.device))
        return self._found[number]

    def _matters(self, state: TextState, opening: str) -> bool:
        """Whether ids of this opening go on with what the text ends with."""
        if state.rest or opening in ("", PART):
            return True
        return any(self.words[word][place:][:1] in ("", opening) for word, place in state.begun)

    def _read(self, state: TextState, spelling: bytes) -> tuple[TextState, bool]:
        """The state after more of the text, and whether a word was completed on the way."""
        decoder = codecs.getincrementaldecoder("utf-8")("replace")
        begun, beside, completed = state.begun, state.beside, False
        for character in decoder.decode(state.rest + spelling):
            beside_now, going = character.isalnum(), []
            for word, place in (*begun, *((word, 0) for word in range(len(self.words)))):
                text = self.words[word]
                if place == len(text):
                    completed |= not beside_now
                elif text[place] == character and not (place == 0 and beside and text[0].isalnum()):
                    if place + 1 < len(text) or beside_now:
                        going.append((word, place + 1))
                    else:  # a word that ends in a mark is complete, whatever follows
                        completed = True
            begun, beside = tuple(going), beside_now
        return TextState(begun, beside, decoder.getstate()[0]), completed

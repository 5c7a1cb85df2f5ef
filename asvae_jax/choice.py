"""A word of a config that is another one in each of several runs trained together."""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax


class Choice(NamedTuple):
    """One of some words, known only while the program runs.

    Fields:
      words: all that it may be.
      place: an integer scalar, which of them it is, from 0.
    """

    words: tuple[str, ...]
    place: jax.Array


def by_word(word: str | Choice, function: Callable[[str], Any]) -> Any:
    """`function(word)`. Of a choice the branch of its word, which under `vmap` means every branch, of which one is
    taken: all must give arrays of the same shapes, and finite slopes at what the runs of other words hand them."""
    if isinstance(word, Choice):
        return jax.lax.switch(word.place, [partial(function, each) for each in word.words])
    return function(word)

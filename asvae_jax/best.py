"""The checkpoint that was best so far, kept apart from the newest ones."""

import contextlib
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from asvae_jax.checkpoint import CheckpointStore
from asvae_jax.errors import CheckpointError
from asvae_jax.features.networks import is_figure
from asvae_jax.settings import HIGHER_IS_BETTER, Checkpoint, Config
from asvae_jax.update import TrainState

_KEEP_ONE = Checkpoint(every_steps=1, keep_last=1, keep_every_steps=0)


class _Judged(NamedTuple):
    """A figure's name and how good it is, higher being better."""

    name: str
    merit: float


_NONE = _Judged("", -math.inf)


class BestCheckpoint(contextlib.AbstractContextManager):
    """Keeps in `folder` the state whose figure `config.evaluation.best` was best; that figure lies in its meta data, so
    that a run which goes on knows it. A figure that is not a number is never best, and one by other features or of
    another number of images, which has another name, cannot be compared: the new one is kept.

    Args:
      folder: where it is kept.
      config: the run's.
    """

    def __init__(self, folder: Path, config: Config):
        self._config, self._figure = config, config.evaluation.best
        self._store = CheckpointStore(folder, _KEEP_ONE)
        self._best = _NONE
        for step in self._store.steps():
            self._best = self._judged(self._stored_figures(step))

    def offer(self, state: TrainState, statistics: Mapping[str, Any], figures: Mapping[str, float]) -> bool:
        """Keeps the state if its figures are better than all before; whether they are."""
        offered = self._judged(figures)
        comparable = offered.name == self._best.name
        if offered == _NONE or (comparable and offered.merit <= self._best.merit):
            return False
        self._best = offered
        # A run whose newest checkpoint is damaged goes back, maybe to before what was best so far.
        self._store.set_aside_after(int(state.step) - 1)
        self._store.save(state, statistics, self._config, figures)
        self._store.wait()
        return True

    def _judged(self, figures: Mapping[str, float]) -> _Judged:
        """The figure in question among all; _NONE if it is not there or no number."""
        sign = 1 if self._figure in HIGHER_IS_BETTER else -1
        found = [_Judged(name, sign * value) for name, value in figures.items() if is_figure(name, self._figure)]
        return found[0] if found and math.isfinite(found[0].merit) else _NONE

    def _stored_figures(self, step: int) -> dict[str, float]:
        try:
            return self._store.read_meta(step)["figures"]
        except CheckpointError:  # whatever comes next is better than what cannot be read
            return {}

    def __exit__(self, *error: Any) -> None:
        """Frees the store."""
        self._store.__exit__(*error)

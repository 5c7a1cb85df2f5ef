"""What training is fed with, and the compiled steps that take it."""

import itertools
from collections.abc import Iterator

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from asvae_jax import update
from asvae_jax.data.augment import to_value_range
from asvae_jax.data.images import BatchOrder, ahead, read_batches
from asvae_jax.distributed import over_batch, replicated, to_global
from asvae_jax.run import state_template
from asvae_jax.settings import Config, ImageData, ToyEvaluation

# (state, pixels [n, B, H, W, C], or nothing for a toy) -> (state, metrics [n]); one compiled call
Dispatch = jax.stages.Wrapped


class TrainingData:
    """Where a step's images come from: drawn on the device for a toy, read from a prepared set otherwise."""

    def __init__(self, config: Config, mesh: Mesh):
        self._config, self._mesh = config, mesh
        if isinstance(config.data, ImageData):
            # TFDS takes a second to import, and a toy needs none of it.
            from asvae_jax.data.records import Split

            self._images = Split(config.data, "train").held()
            self._order = BatchOrder(len(self._images), config.data.batch_size, config.seed)
            self._calibration_order = BatchOrder(len(self._images), config.chunk_size, config.seed)

    @property
    def size(self) -> str:
        """How much there is of it, for people."""
        if self._config.is_toy:
            return "drawn on the device"
        return f"{len(self._images):,} training images {self._config.example_shape}"

    def compiled_steps(self, config: Config) -> Dispatch:
        """`steps_per_dispatch` steps of `config.method` as one program with donated state."""
        whole = replicated(self._mesh)
        if config.is_toy:
            toy_steps = update.make_toy_steps(config, over_batch(self._mesh))
            return jax.jit(
                lambda state: toy_steps(state, config.training.steps_per_dispatch),
                donate_argnums=0,
                in_shardings=(whole,),
                out_shardings=whole,
            )
        image_steps = update.make_steps(config, over_batch(self._mesh))
        return jax.jit(
            image_steps,
            donate_argnums=0,
            in_shardings=(whole, over_batch(self._mesh, axis=1)),
            out_shardings=whole,
        )

    def lower_steps(self, config: Config) -> jax.stages.Lowered:
        """The same program, traced for inspection."""
        state = state_template(config, replicated(self._mesh))
        if config.is_toy:
            return self.compiled_steps(config).lower(state)
        pixels = (config.training.steps_per_dispatch, config.data.batch_size, *config.example_shape)
        return self.compiled_steps(config).lower(state, jax.ShapeDtypeStruct(pixels, jnp.uint8))

    def batches(self, first_step: int) -> Iterator[tuple[jax.Array, ...]]:
        """What each dispatch from `first_step` on takes beside the state, without end: nothing for a toy, else
        uint8 pixels [n, B, H, W, C], on the devices before they are needed."""
        if not isinstance(self._config.data, ImageData):
            return itertools.repeat(())
        read = read_batches(
            self._images,
            self._order,
            first_step=first_step,
            group=self._config.training.steps_per_dispatch,
            threads=self._config.data.read_threads,
            process=jax.process_index(),
            processes=jax.process_count(),
        )
        return ahead((to_global(self._mesh, pixels, axis=1),) for pixels in read)

    def calibration_batches(self) -> Iterator[jax.Array]:
        """Training images for batch-norm statistics, the same at each call; none for a toy."""
        evaluation, data = self._config.evaluation, self._config.data
        if isinstance(evaluation, ToyEvaluation) or not isinstance(data, ImageData):
            return
        for step in range(evaluation.calibration_batches):
            own = np.split(self._calibration_order[step], jax.process_count())[jax.process_index()]
            pixels = to_global(self._mesh, self._images.rows(own))
            yield to_value_range(data, pixels.astype(jnp.float32) / 255)


def program_memory(compiled: jax.stages.Compiled) -> tuple[int, int]:
    """Bytes of a program's arguments and of its temporaries on one device."""
    memory = compiled.memory_analysis()
    return (memory.argument_size_in_bytes, memory.temp_size_in_bytes) if memory else (0, 0)

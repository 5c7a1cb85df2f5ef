"""How fast this machine trains a config: `python -m asvae_jax benchmark --config=configs/mnist5k.py`."""

import json
import platform
import time
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from asvae_jax import distributed
from asvae_jax.provenance import commit, device_name, versions
from asvae_jax.settings import Config
from asvae_jax.start import fresh_state
from asvae_jax.training_data import TrainingData, program_memory

_REPEATS = 20
_AT_MOST_SECONDS = 60.0


def benchmark(config: Config) -> dict[str, Any]:
    """Compiles the training program of a config and times it on the data that training would use.

    Returns:
      Seconds to compile, seconds a step (median, and the 10 % and 90 % quantiles over repeated calls), images and
      FLOP a second (FLOP as the compiler counts them in its own program), and bytes of memory: the program's
      arguments and temporaries on a device, and the peak that the device reports, where it does.
    """
    mesh = distributed.make_mesh(config)
    data = TrainingData(config, mesh)
    began = time.perf_counter()
    compiled = data.lower_steps(config).compile()
    compile_seconds = time.perf_counter() - began

    state, per_dispatch = fresh_state(config, mesh), config.training.steps_per_dispatch
    batches = data.batches(0)
    state, _ = compiled(state, *next(batches))
    jax.block_until_ready(state.params)
    seconds: list[float] = []
    while len(seconds) < _REPEATS and (len(seconds) < 3 or sum(seconds) < _AT_MOST_SECONDS):
        began = time.perf_counter()
        state, _ = compiled(state, *next(batches))
        jax.block_until_ready(state.params)
        seconds.append((time.perf_counter() - began) / per_dispatch)
    ceiling = _matrix_product_rate()
    low, median, high = np.quantile(seconds, [0.1, 0.5, 0.9])

    # The compiler counts the body of a loop once, whatever the number of its turns.
    flop, memory, device = (
        (compiled.cost_analysis() or {}).get("flops", 0.0),
        program_memory(compiled),
        jax.devices()[0],
    )
    return {
        "config": config.to_dict(),
        "device": f"{mesh.size} x {device_name()}",
        "machine": platform.machine(),
        "versions": versions(),
        "commit": commit(),
        "compile_seconds": compile_seconds,
        "step_seconds_median": float(median),
        "step_seconds_p10": float(low),
        "step_seconds_p90": float(high),
        "images_per_second": config.data.batch_size / float(median),
        "flop_per_step": flop * mesh.size,
        "flop_per_second": flop * mesh.size / float(median),
        "matrix_product_flop_per_second": ceiling,
        "argument_bytes": memory[0],
        "temporary_bytes": memory[1],
        "peak_bytes": (device.memory_stats() or {}).get("peak_bytes_in_use"),
    }


def _matrix_product_rate() -> float:
    """FLOP/s of a large float32 matrix product on one device: a ceiling for the arithmetic of this machine."""
    n = 8192 if jax.default_backend() != "cpu" else 2048
    matrix = jax.random.normal(jax.random.key(0), (n, n))
    product = jax.jit(jnp.matmul)
    seconds = []
    for _ in range(6):
        began = time.perf_counter()
        jax.block_until_ready(product(matrix, matrix))
        seconds.append(time.perf_counter() - began)
    # The first call compiles.
    return 2 * n**3 / float(np.median(seconds[1:]))


def table(result: dict[str, Any]) -> str:
    """The figures as lines of text, and the whole as JSON below them."""
    peak = result["peak_bytes"]
    rows = {
        "device": result["device"],
        "compile": f"{result['compile_seconds']:.1f} s",
        "step": f"{result['step_seconds_median'] * 1e3:.2f} ms "
        f"(10-90 %: {result['step_seconds_p10'] * 1e3:.2f}-{result['step_seconds_p90'] * 1e3:.2f})",
        "images": f"{result['images_per_second']:,.0f} /s",
        "arithmetic": f"{result['flop_per_step'] / 1e9:.2f} GFLOP a step, "
        f"{result['flop_per_second'] / 1e9:,.0f} GFLOP/s "
        f"(a matrix product alone: {result['matrix_product_flop_per_second'] / 1e9:,.0f})",
        "memory": f"{(result['argument_bytes'] + result['temporary_bytes']) / 2**20:,.0f} MiB in the program a device, "
        + (f"{peak / 2**20:,.0f} MiB peak" if peak else "peak not reported by this device"),
    }
    return "\n".join(f"{name:<12}{value}" for name, value in rows.items()) + "\n" + json.dumps(result)

"""Which images come when, and how they are read."""

import itertools
import time

import numpy as np
import pytest

from asvae_jax.data.images import BatchOrder, ahead, padded_batches, read_batches
from asvae_jax.errors import ConfigError

# 8 batches of 12, and 4 images over.
IMAGES, BATCH, PER_EPOCH = 100, 12, 8


class Numbered:
    """Images that are their own indices, read at such uneven speed that threads overtake each other."""

    def __init__(self):
        self._turns = itertools.count()

    def __len__(self) -> int:
        return IMAGES

    def rows(self, indices: np.ndarray) -> np.ndarray:
        time.sleep(0.002 * (next(self._turns) % 3 == 0))
        return indices


def taken(steps: int, *, first_step: int = 0, threads: int = 2, **share: int) -> np.ndarray:
    """Indices [steps, rows] as they are read."""
    order = BatchOrder(IMAGES, BATCH, seed=3)
    batches = read_batches(Numbered(), order, first_step=first_step, group=1, threads=threads, **share)
    return np.concatenate(list(itertools.islice(batches, steps)))


@pytest.fixture(scope="module")
def order() -> np.ndarray:
    """Three epochs and a batch of the next, [3 * PER_EPOCH + 1, BATCH]."""
    order = BatchOrder(IMAGES, BATCH, seed=3)
    return np.stack([order[step] for step in range(3 * PER_EPOCH + 1)])


# The order


def test_every_epoch_takes_no_image_twice_and_drops_what_fills_no_batch(order):
    epochs = order[: 3 * PER_EPOCH].reshape(3, -1)
    for epoch in epochs:
        assert len(set(epoch)) == len(epoch) == PER_EPOCH * BATCH and set(epoch) <= set(range(IMAGES))
    # Other images are dropped in each, and the others come in another order.
    assert len({frozenset(epoch) for epoch in epochs}) == 3
    assert all(np.mean(one == other) < 0.1 for one, other in itertools.combinations(epochs, 2))


@pytest.mark.parametrize(("images", "batch_size"), [(96, 12), (12, 12), (5, 1)])
def test_every_epoch_is_a_permutation_where_batches_fill_it(images, batch_size):
    order = BatchOrder(images, batch_size, seed=0)
    assert order.batches_per_epoch == images // batch_size
    for epoch in range(5):
        steps = range(epoch * order.batches_per_epoch, (epoch + 1) * order.batches_per_epoch)
        np.testing.assert_array_equal(np.sort(np.concatenate([order[step] for step in steps])), np.arange(images))


def test_batch_is_a_function_of_seed_and_step_alone(order):
    # From another object, and whatever was asked for before.
    other = BatchOrder(IMAGES, BATCH, seed=3)
    for step in np.random.default_rng(0).permutation(len(order)):
        np.testing.assert_array_equal(other[int(step)], order[step])


def test_order_is_the_same_from_version_to_version():
    # Whoever changes these changes what every stored run goes on with.
    order = BatchOrder(10, 3, seed=1)
    assert [order[step].tolist() for step in range(4)] == [[2, 9, 8], [3, 6, 7], [1, 4, 0], [0, 6, 2]]


def test_order_changes_with_the_seed():
    one, other = (BatchOrder(IMAGES, BATCH, seed=seed) for seed in (3, 4))
    assert np.mean([one[step] == other[step] for step in range(2 * PER_EPOCH)]) < 0.1


def test_fewer_images_than_a_batch_are_refused():
    with pytest.raises(ConfigError, match=r"batch of 1,001 is more than the 1,000 training images"):
        BatchOrder(1_000, 1_001, seed=0)


# Reading


@pytest.mark.parametrize("threads", [1, 2, 4])
def test_threads_do_not_change_the_order(threads, order):
    np.testing.assert_array_equal(taken(len(order), threads=threads), order)


@pytest.mark.parametrize("processes", [1, 2, 3, 4])
def test_rows_of_all_processes_together_are_the_batch(processes, order):
    shares = [taken(len(order), process=process, processes=processes) for process in range(processes)]
    assert all(share.shape == (len(order), BATCH // processes) for share in shares)
    np.testing.assert_array_equal(np.concatenate(shares, axis=1), order)


@pytest.mark.parametrize("first_step", [1, PER_EPOCH - 1, PER_EPOCH, 2 * PER_EPOCH + 3])
def test_reading_begins_at_exactly_the_step_asked_for(first_step, order):
    np.testing.assert_array_equal(taken(4, first_step=first_step), order[first_step : first_step + 4])


@pytest.mark.parametrize("first_step", [0, 5])
def test_group_puts_steps_together(first_step, order):
    seeded = BatchOrder(IMAGES, BATCH, seed=3)
    batches = read_batches(Numbered(), seeded, first_step=first_step, group=5, threads=2, process=1, processes=2)
    # Across the seams of epochs, too.
    for start in range(first_step, first_step + 20, 5):
        np.testing.assert_array_equal(next(batches), order[start : start + 5, BATCH // 2 :])


def test_ahead_yields_the_same_and_asks_for_two_more_than_are_needed():
    asked = []

    def items():
        for item in range(6):
            asked.append(item)
            yield item

    items_ahead = ahead(items())
    for item in range(6):
        assert next(items_ahead) == item
        assert asked == list(range(min(item + 3, 6)))
    assert list(items_ahead) == []
    assert list(ahead(iter([7]))) == [7] and list(ahead(iter([]))) == []


@pytest.mark.parametrize("processes", [1, 2, 3])
@pytest.mark.parametrize(("count", "batch_size"), [(10, 4), (8, 4), (12, 4), (3, 4), (1, 1), (359, 52)])
def test_padded_batches_take_each_index_exactly_once_over_all_processes(count, batch_size, processes):
    shares = [list(padded_batches(count, batch_size, process, processes)) for process in range(processes)]
    # As many for each process, and no more than it takes.
    assert {len(share) for share in shares} == {-(-count // (batch_size * processes))}
    batches = list(itertools.chain(*shares))
    assert all(indices.shape == mask.shape == (batch_size,) for indices, mask in batches)
    kept = np.concatenate([indices[mask] for indices, mask in batches])
    # One process takes them in order.
    np.testing.assert_array_equal(kept if processes == 1 else np.sort(kept), np.arange(count))
    # The padding is real images, so that no figure of it can be other than finite.
    assert all(np.all((indices >= 0) & (indices < count)) for indices, _ in batches)

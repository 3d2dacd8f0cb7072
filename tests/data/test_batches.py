from itertools import islice

import numpy as np
import pytest

from d2tune.data.batches import SampleKey, TrainingBatches


def batches(**changes: object) -> TrainingBatches:
    options: dict = {"batch_size": 3, "short_side_range_px": (100, 140), "seed": 7} | changes
    return TrainingBatches([False] * 8 + [True] * 5, **options)


def first(number: int, of: TrainingBatches) -> list[list[SampleKey]]:
    return list(islice(iter(of), number))


def test_starting_later_gives_what_would_have_come() -> None:
    assert first(30, batches())[11:] == first(19, batches(start=11))


def test_another_seed_gives_other_batches() -> None:
    assert first(5, batches()) != first(5, batches(seed=8))


def test_every_image_is_seen_in_every_epoch() -> None:
    per_epoch = 5  # 13 images in batches of 3
    for epoch in range(3):
        keys = [key for batch in first(15, batches())[epoch * per_epoch : (epoch + 1) * per_epoch] for key in batch]
        assert {key.index for key in keys} == set(range(13))


def test_orders_of_epochs_differ() -> None:
    orders = [[key.index for batch in first(10, batches())[at : at + 5] for key in batch] for at in (0, 5)]
    assert orders[0] != orders[1]


def test_one_short_side_in_a_batch_and_all_of_the_range_over_time() -> None:
    sides = []
    for batch in first(600, batches()):
        assert len({key.short_side_px for key in batch}) == 1
        sides.append(batch[0].short_side_px)
    assert min(sides) == 100 and max(sides) == 140
    assert abs(np.mean(sides) - 120) < 2


def test_orientations_mix_only_in_the_rest_of_an_epoch() -> None:
    mixed = [len({key.index >= 8 for key in batch}) == 2 for batch in first(50, batches())]
    # 8 landscape and 5 portrait images make 2 and 1 whole batches and a rest of two
    assert sum(mixed) <= 50 * 2 / 5


def test_seeds_of_augmentation_are_all_different() -> None:
    seeds = [key.seed for batch in first(200, batches()) for key in batch]
    assert len(set(seeds)) == len(seeds)


@pytest.mark.parametrize("world", [2, 3])
def test_processes_share_each_batch(world: int) -> None:
    alone = first(12, batches(batch_size=6))
    shared = [first(12, batches(batch_size=6 // world, rank=rank, world=world)) for rank in range(world)]
    assert [[key for own in step for key in own] for step in zip(*shared, strict=True)] == alone


def test_processes_have_their_images_of_each_part_of_a_batch() -> None:
    alone = first(3, batches(batch_size=8))
    shared = [first(3, batches(batch_size=4, rank=rank, world=2, accumulate=2)) for rank in (0, 1)]
    for whole, one, two in zip(alone, *shared, strict=True):
        assert one + two == [whole[at] for at in (0, 1, 4, 5, 2, 3, 6, 7)]


def test_fewer_images_than_a_batch() -> None:
    few = TrainingBatches([False], batch_size=4, short_side_range_px=(50, 50), seed=0)
    assert [key.index for key in first(1, few)[0]] == [0, 0, 0, 0]

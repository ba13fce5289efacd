"""What "matched" rests on: a digest changes with anything that a sample was given."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from bench.streams import DIGEST_KIND, WAITING, Digest, Streams

IDS = torch.arange(40)
CPU = torch.device("cpu")
Change = Callable[[Tensor], None]
"""Changes the payloads of 3 epochs, [3, 40, K], in place."""


def masks() -> Tensor:
    draws = [Streams(0, 0).samples("mask", epoch, IDS).uniform(16) for epoch in range(3)]
    return torch.stack(draws) < 0.6


def boxes() -> Tensor:
    return torch.stack([Streams(0, 0).samples("crop", e, IDS).uniform(5) for e in range(3)])


def text(payload: Tensor, first: int = 0) -> str:
    digest = Digest.zero(CPU)
    for epoch, values in enumerate(payload):
        digest.add(first + epoch, IDS, values)
    return digest.text()


def permute_one(payload: Tensor) -> None:
    """The same entries of one sample in another order: 0 and 1 of a mask, top and left of a box."""
    row = payload[1, 7]
    other = int((row != row[0]).nonzero()[0])
    row[[0, other]] = row[[other, 0]]


def move_by_a_percent(payload: Tensor) -> None:
    payload[2, 30, 1] += 0.01


def exchange(one: tuple[int, int], two: tuple[int, int]) -> Change:
    def change(payload: Tensor) -> None:
        payload[one], payload[two] = payload[two].clone(), payload[one].clone()

    return change


EXCHANGES = [
    exchange((0, 6), (1, 5)),  # the sum of epoch and number is the same
    exchange((1, 9), (0, 10)),
    exchange((0, 5), (1, 6)),
    exchange((0, 6), (1, 6)),
    exchange((1, 6), (1, 7)),
    exchange((0, 8), (2, 6)),
]


@pytest.mark.parametrize("change", [permute_one, *EXCHANGES])
@pytest.mark.parametrize("make", [masks, boxes])
def test_no_exchange_goes_unseen(make: Callable[[], Tensor], change: Change) -> None:
    payload = make()
    change(payload)
    assert not torch.equal(payload, make())
    assert text(payload) != text(make())


def test_a_crop_moved_by_a_percent_is_seen() -> None:
    payload = boxes()
    move_by_a_percent(payload)
    assert text(payload) != text(boxes())
    payload = boxes()
    payload[0, 0, 0] += 2**-20
    assert text(payload) != text(boxes())


def test_two_samples_that_change_places_in_the_order_are_seen() -> None:
    places = torch.stack([Streams(0, 0).order(epoch, 40)[:, None] + 40 * epoch for epoch in (0, 1)])
    for change in (*EXCHANGES[:5],):
        swapped = places.clone()
        change(swapped)
        assert text(swapped) != text(places)


def test_later_epochs_are_others() -> None:
    assert text(masks(), first=1) != text(masks())


def test_order_and_splitting_of_a_batch_do_not_matter() -> None:
    payload, digest = masks(), Digest.zero(CPU)
    for epoch in (2, 0, 1):
        for part in IDS.flip(0).split(7):
            digest.add(epoch, part, payload[epoch][part])
    assert digest.text() == text(payload)


def test_known_digests_do_not_change() -> None:
    """Golden: a change here needs another :data:`DIGEST_KIND`, or records would seem unmatched."""
    assert Digest.zero(CPU).text() == f"{DIGEST_KIND}:{0:016x}"
    assert (text(masks()), text(boxes())) == ("b:6eaa172f37a7fe3c", "b:929a7d4f5b54269e")


def test_a_single_bit_of_the_sum_is_in_the_text() -> None:
    for total in (0, 1, 2, 1 << 62, -1):
        shown = Digest(torch.tensor(total)).text()
        assert shown == f"{DIGEST_KIND}:{total & ((1 << 64) - 1):016x}"


def test_a_sum_that_is_read_on_the_way_goes_on() -> None:
    payload, digest = masks(), Digest.zero(CPU)
    for epoch in range(3):
        digest.add(epoch, IDS, payload[epoch])
        assert digest.text() == digest.text()
    assert digest.text() == text(payload)


def test_what_waits_is_added_before_it_is_much() -> None:
    digest = Digest.zero(CPU)
    for count in range(1, WAITING + 1):
        digest.add(0, IDS[:1], masks()[0, :1])
        assert len(digest._waiting) == count % WAITING


def test_a_digest_stays_on_its_device() -> None:
    digest, meta = Digest.zero(torch.device("meta")), torch.device("meta")
    digest.add(0, IDS.to(meta), boxes()[0].to(meta))
    assert digest.total.device == meta

"""Which tensors the compiled kernels take, and that every item is worked on once, whatever the threads."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
import torch

from models.kernels.dispatch import has_compiled_kernels, run_on_threads


@pytest.fixture(autouse=True)
def _same_threads_afterwards() -> Iterator[None]:
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


def test_only_floats_of_the_cpu_have_compiled_kernels() -> None:
    assert has_compiled_kernels(torch.zeros(1))
    assert has_compiled_kernels(torch.zeros(1, dtype=torch.float64))
    for dtype in (torch.bfloat16, torch.float16, torch.int32):
        assert not has_compiled_kernels(torch.zeros(1, dtype=dtype))
    assert not has_compiled_kernels(torch.zeros(1, device="meta"))


@pytest.mark.parametrize("num_threads", [1, 2, 5])
@pytest.mark.parametrize("num_items", [1, 2, 7, 1000])
def test_every_item_is_worked_on_once(num_items: int, num_threads: int) -> None:
    torch.set_num_threads(num_threads)
    times = np.zeros(num_items, int)

    def count(first: int, end: int, by: int) -> None:
        times[first:end] += by

    run_on_threads(count, num_items, 3)
    assert (times == 3).all()


def test_an_error_in_a_thread_is_raised() -> None:
    torch.set_num_threads(4)

    def fail(first: int, end: int) -> None:
        raise ValueError("item")

    with pytest.raises(ValueError, match="item"):
        run_on_threads(fail, 100)

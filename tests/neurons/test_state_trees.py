"""State is a tree of tensors; everything done to it is a map over that tree."""

from __future__ import annotations

import pytest
import torch

from spyolo.neurons import LIFState, LTCState, detach, leaves, map_state, start


def tree() -> dict:
    u = torch.arange(3.0, requires_grad=True)
    return {
        "ltc": LTCState(u * 2, u * 3),
        "nested": ([LIFState(u + 1, u + 2)], (u * u, None)),
        "none": None,
        "count": 7,
    }


def test_map_keeps_the_shape_of_the_tree():
    before = tree()
    after = map_state(lambda v: v + 100, before)
    assert list(after) == list(before)
    assert isinstance(after["ltc"], LTCState) and after["ltc"].b is None
    assert isinstance(after["nested"][0], list) and isinstance(after["nested"][0][0], LIFState)
    assert isinstance(after["nested"], tuple) and after["nested"][1][1] is None
    assert after["none"] is None and after["count"] == 7
    assert after["ltc"].s.tolist() == [100, 103, 106]
    assert before["ltc"].s.tolist() == [0, 3, 6]


def test_leaves_come_in_order():
    assert [v.tolist() for v in leaves(tree())] == [[0, 2, 4], [0, 3, 6], [1, 2, 3], [2, 3, 4], [0, 1, 4]]
    assert list(leaves(None)) == []


def test_detach_cuts_every_graph_and_copies_nothing():
    before = tree()
    after = detach(before)
    assert all(v.requires_grad for v in leaves(before))
    assert not any(v.requires_grad for v in leaves(after))
    assert all(a.data_ptr() == b.data_ptr() for a, b in zip(leaves(after), leaves(before), strict=True))


@pytest.mark.parametrize("dtype, state", [(torch.bfloat16, torch.float32), (torch.float32, torch.float32), (torch.float64, torch.float64)])
@pytest.mark.parametrize("kind", ["zeros", "uniform"])
def test_start_is_fp32_or_wider(dtype: torch.dtype, state: torch.dtype, kind: str):
    u = start(torch.Size([2, 3]), torch.zeros(1, dtype=dtype), kind)
    assert u.dtype == state and u.shape == (2, 3)


def test_uniform_start_is_the_same_in_every_precision():
    a, b = (start(torch.Size([2, 3]), torch.zeros(1, dtype=t), "uniform", seed=3) for t in (torch.float32, torch.float64))
    assert torch.equal(a.double(), b)


def test_uniform_rows_share_no_memory():
    u = start(torch.Size([2, 3]), torch.zeros(1), "uniform")
    u[0] = -1
    assert (u[1] >= 0).all()


def test_unknown_start_is_refused():
    with pytest.raises(ValueError, match="zeros, uniform; got 'ones'"):
        start(torch.Size([1]), torch.zeros(1), "ones")

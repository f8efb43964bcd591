"""State is a tree of tensors that goes in and comes out: named tuples, tuples, lists, dicts, tensors, None.

Detaching, moving, batching are maps over that tree; nothing hides in a module.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any, TypeVar

import torch
from torch import Tensor

Tree = TypeVar("Tree")
STARTS = ("zeros", "uniform")


def map_state(f: Callable[[Tensor], Tensor], state: Tree) -> Tree:
    """The same tree with `f` applied to every tensor."""
    tree: Any = state
    if isinstance(tree, Tensor):
        return f(tree)  # type: ignore[return-value]
    if isinstance(tree, dict):
        return {k: map_state(f, v) for k, v in tree.items()}  # type: ignore[return-value]
    if isinstance(tree, tuple) and hasattr(tree, "_fields"):
        return type(tree)(*(map_state(f, v) for v in tree))  # type: ignore[return-value]
    if isinstance(tree, tuple | list):
        return type(tree)(map_state(f, v) for v in tree)  # type: ignore[return-value]
    return tree


def detach(state: Tree) -> Tree:
    """Cut the graph: what online learning does between two updates."""
    return map_state(Tensor.detach, state)


def leaves(state: Any) -> Iterator[Tensor]:
    """All tensors of the tree, in order."""
    if isinstance(state, Tensor):
        yield state
    elif isinstance(state, dict):
        for v in state.values():
            yield from leaves(v)
    elif isinstance(state, tuple | list):
        for v in state:
            yield from leaves(v)


def sum_of(state: Any) -> Tensor:
    """Sum of all tensors of the tree, on the device and without graph: it is finite when all of them are."""
    return torch.stack([x.detach().sum() for x in leaves(state)]).sum()


def first_not_finite(sums: Mapping[str, Tensor]) -> str:
    """Name of the first of these numbers that is NaN or infinite, read from the device in one go; empty where there is none."""
    finite = torch.stack(list(sums.values())).isfinite().tolist() if sums else []
    return "" if all(finite) else list(sums)[finite.index(False)]


def start(shape: torch.Size, like: Tensor, kind: str = "zeros", seed: int = 0) -> Tensor:
    """Membrane potentials before the first step, fp32 or wider (a bf16 state loses small updates).

    Args:
        shape: [B, ...].
        like: gives device and dtype.
        kind: `zeros`, or `uniform`: U(0, 1) as in the reference, but drawn from `seed` and the same for every row of the batch, so
            that a picture's result depends neither on its neighbours nor on what ran before.
    """
    dtype = torch.promote_types(like.dtype, torch.float32)
    if kind == "zeros":
        return torch.zeros(shape, dtype=dtype, device=like.device)
    if kind == "uniform":
        generator = torch.Generator().manual_seed(seed)
        return torch.rand(shape[1:], generator=generator).to(like.device, dtype).expand(shape).clone()
    raise ValueError(f"start must be one of {', '.join(STARTS)}; got {kind!r}")

"""Tensors that know of which tensors of a file they were made."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor


class Traced(Tensor):
    """A tensor that knows the names of those it was made of."""

    sources: frozenset[str]

    @classmethod
    def __torch_function__(
        cls,
        func: Callable[..., Any],
        types: Iterable[type],
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        """Compute as a plain tensor does, and hand the names on."""
        result = super().__torch_function__(func, types, args, kwargs or {})  # type: ignore[no-untyped-call]
        sources = frozenset().union(*(sources_of(t) for t in _tensors((args, kwargs))))
        for tensor in _tensors(result):
            if isinstance(tensor, cls):
                tensor.sources = sources
        return result


def trace(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The same tensors, each with its name for a source; no values are copied."""
    traced: dict[str, Tensor] = {}
    for name, tensor in state.items():
        named = tensor.detach().as_subclass(Traced)
        named.sources = frozenset([name])
        traced[name] = named
    return traced


def sources_of(tensor: Tensor) -> frozenset[str]:
    """Names of the tensors that one was made of; none of a tensor that was not traced."""
    sources: frozenset[str] = getattr(tensor, "sources", frozenset())
    return sources


def plain(tensor: Tensor) -> Tensor:
    """The tensor without its names."""
    with torch._C.DisableTorchFunctionSubclass():  # noqa: SLF001 - as torch documents it
        return tensor.as_subclass(Tensor)


def _tensors(value: Any) -> Iterator[Tensor]:
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, dict):
        for part in value.values():
            yield from _tensors(part)
    elif isinstance(value, list | tuple):
        for part in value:
            yield from _tensors(part)

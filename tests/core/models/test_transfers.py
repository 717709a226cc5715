import pytest
import torch

from emcache.models.transfers import begin_to_fetch, stack_on

CPU = torch.device("cpu")
GPU = torch.device("cuda")
DEVICES = [
    CPU,
    pytest.param(
        GPU, marks=pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU here")
    ),
]


@pytest.mark.parametrize("device", DEVICES, ids=str)
@pytest.mark.parametrize("dtype", [torch.float16, torch.uint8], ids=str)
def test_tensors_are_stacked_on_the_device(device: torch.device, dtype: torch.dtype) -> None:
    # So many that on a GPU the memory that was pinned is used again.
    for step in range(20):
        some = [torch.full((300, 200), step + place).to(dtype) for place in range(3)]
        stacked = stack_on(some, device)
        some[0].zero_()
        assert stacked.device.type == device.type
        assert stacked.dtype == dtype
        assert [int(each.unique()) for each in stacked] == [step, step + 1, step + 2]


def test_what_is_on_the_device_already_is_stacked_there() -> None:
    there = [torch.zeros(2, device="meta")] * 3
    assert stack_on(there, torch.device("meta")).shape == (3, 2)


@pytest.mark.parametrize("device", DEVICES, ids=str)
def test_tensors_are_fetched_as_they_were(device: torch.device) -> None:
    waits = []
    for step in range(20):
        values = torch.full((512, 512), float(step), device=device)
        # Work that a GPU is still at when the copies are begun.
        mean = (values @ values).mean() / 512
        waits.append(begin_to_fetch({"values": values, "mean": mean}, device))
    for step, wait in enumerate(waits):
        fetched = wait()
        assert fetched["values"].device.type == "cpu"
        assert fetched["values"].unique().tolist() == [step]
        assert float(fetched["mean"]) == pytest.approx(step**2)

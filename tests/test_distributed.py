"""Several processes that train one detector: the arithmetic of one process, one checkpoint, one set of figures."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from processes import together
from torch import Tensor

from spyolo import builders, distributed, engine
from spyolo.boxes import Objects
from spyolo.data import SAMPLE_CLASSES, Batch, DetectionDataset, VOCSet, collate
from spyolo.detection import DetectionLoss, SpikingYOLO, build_detector
from spyolo.distributed import ALONE, Peers
from spyolo.errors import InputError
from spyolo.learning import BPTT, FPTT
from spyolo.neurons import norms

ALPHA = 0.3

# --- one process with batch B, and two with B / 2 each ---

CASES: dict[str, dict[str, Any]] = {
    "20 updates in float64": {"dtype": torch.float64, "batches": 10},
    "FPTT-K, the article's form": {"dtype": torch.float64, "batches": 3, "form": "paper", "plan": [2, 1]},
    "BPTT, clipped": {"dtype": torch.float64, "batches": 3, "rule": "bptt", "plan": [2]},
    "in two pieces": {"dtype": torch.float64, "batches": 3, "accumulate": 2},
    "one process sees nothing": {"dtype": torch.float64, "batches": 2, "nothing": True},
    "five updates in fp32": {"dtype": torch.float32, "batches": 5, "plan": [1]},
    "first gradient of Adam": {"dtype": torch.float64, "batches": 1, "rule": "adam", "plan": [1]},
}


def tiny(root: Path, dtype: torch.dtype) -> tuple[SpikingYOLO, list[Batch]]:
    """A detector with norms calibrated, then frozen; and four batches of four pictures."""
    torch.manual_seed(0)
    detector = build_detector("spyv4_lite", len(SAMPLE_CLASSES), width=0.05, threshold=0.3).to(dtype)
    dataset = DetectionDataset(VOCSet(root, "2007:train", SAMPLE_CLASSES), 64, "eval")
    batches = [collate([dataset[i] for i in range(k, k + 4)]) for k in range(0, 16, 4)]
    engine.recalibrate(detector, batches, 2, device=torch.device("cpu"))
    engine.train_mode(detector, freeze_norms=True)
    return detector, batches


def learn(peers: Peers, root: Path, case: dict[str, Any]) -> dict[str, Tensor]:
    """Everything that training a little leaves, by name."""
    detector, batches = tiny(root, case["dtype"])
    sgd = torch.optim.SGD(detector.parameters(), lr=0.02, momentum=0.9)
    rules = {
        "fptt": lambda: FPTT(sgd, ALPHA, form=case.get("form", "feddyn"), clip=1.0),
        "bptt": lambda: BPTT(sgd, clip=0.5),
        "adam": lambda: BPTT(torch.optim.Adam(detector.parameters())),
    }
    rule = rules[case.get("rule", "fptt")]()
    for k in range(case["batches"]):
        batch = batches[k % 4]
        objects = [Objects.empty()] * 2 + batch.objects[2:] if "nothing" in case else batch.objects
        places = peers.share_of(list(range(4)))
        log = engine.train_batch(
            detector, DetectionLoss(), rule, batch.images[places], [objects[i] for i in places], case.get("plan", [1, 1]),
            peers=peers, accumulate=case.get("accumulate", 1),
        )  # fmt: skip
    names = [name for name, _ in detector.named_parameters()]
    left = {f"w.{n}": w.detach() for n, w in zip(names, rule.weights)} | {f"grad.{n}": w.grad for n, w in zip(names, rule.weights)}
    left |= {f"{kind}.{n}": t for kind, tensors in rule.state_dict().items() for n, t in zip(names, tensors)}
    left = {k: v for k, v in left.items() if v is not None}
    peers.check_same(left)
    told = torch.stack([log.loss, log.box, log.objectness, log.classes, log.rate])
    return left | {"log": peers.sum_(told.to(case["dtype"]))}


def all_cases(peers: Peers, root: Path) -> dict[str, dict[str, Tensor]]:
    return {name: learn(peers, root, case) for name, case in CASES.items()}


@pytest.fixture(scope="module")
def of_two(sample_root) -> dict[str, dict[str, Tensor]]:
    return together(2, all_cases, sample_root)[0]


@pytest.mark.parametrize("name", CASES)
def test_two_processes_with_half_a_batch_each_are_one_with_the_whole(of_two, sample_root, name):
    case = CASES[name]
    alone, both = learn(ALONE, sample_root, case | {"accumulate": 1}), of_two[name]
    assert alone.keys() == both.keys()  # also: the same weights have a gradient
    worst = max((alone[k] - both[k]).abs().max().item() for k in alone)
    assert worst < (1e-5 if case["dtype"] == torch.float32 else 1e-12 if case["batches"] == 1 else 1e-9)
    if case.get("plan") != [1]:
        untouched = tiny(sample_root, case["dtype"])[0].state_dict()
        assert max((alone[f"w.{k}"] - v).abs().max().item() for k, v in untouched.items() if f"w.{k}" in alone) > 1e-3


@pytest.mark.parametrize("options", [{}, {"form": "paper"}, {"rule": "bptt", "plan": [2]}])
def test_a_batch_in_pieces_is_the_batch(sample_root, options):
    case = {"dtype": torch.float64, "batches": 4} | options
    whole, pieces = learn(ALONE, sample_root, case), learn(ALONE, sample_root, case | {"accumulate": 4})
    assert max((whole[k] - pieces[k]).abs().max().item() for k in whole) < 1e-9


def test_shares_of_a_batch_are_cut_from_the_same_order():
    whole = list(builders.EpochOrder(22, 6, seed=3, epoch=1))
    shares = [list(builders.EpochOrder(22, 6, 3, 1, peers=Peers(rank, 3))) for rank in range(3)]
    assert [[i for part in parts for i in part] for parts in zip(*shares)] == whole
    assert all(len(part) == 2 for share in shares for part in share)


def test_evaluation_deals_whole_batches_and_leaves_none_out():
    dealt = [Peers(rank, 3).deal_batches(22, 5) for rank in range(3)]
    assert [len(batches) for batches in dealt] == [2, 2, 1]
    assert sorted(batch for batches in dealt for batch in batches) == ALONE.deal_batches(22, 5)
    assert [i for batch in ALONE.deal_batches(22, 5) for i in batch] == list(range(22))


# --- what processes say to each other ---


def talk(peers: Peers) -> dict[str, Any]:
    told: dict[str, Any] = {"rank": peers.rank}
    told["agree"] = peers.agree([peers.rank == 1, False], torch.device("cpu"))
    told["share"] = peers.share({"from": peers.rank})
    told["gather"] = peers.gather(peers.rank * 10)
    told["done"] = peers.first_does(lambda: f"by {peers.rank}")
    try:
        peers.first_does(lambda: exec("from spyolo.errors import InputError; raise InputError('no such file')"))
    except (InputError, SystemExit) as error:
        told["bad"] = repr(error)
    t = torch.full((3, 2, 2, 2), float(peers.rank)).contiguous(memory_format=torch.channels_last)
    peers.copy_first_([t])
    told["copied"] = t.sum().item()
    peers.mean_([many := torch.full((5,), float(peers.rank)), torch.ones(2, dtype=torch.float64)])
    told["mean"] = many.tolist()
    a = torch.arange(6.0)
    peers.check_same({"a": a, "b": torch.tensor([True])})
    if peers.rank == 1:
        a[2:4] = a[2:4].flip(0)  # the same numbers in other places
    try:
        peers.check_same({"b": torch.ones(1), "a": a})
    except (InputError, SystemExit) as error:
        told["differ"] = repr(error)
    return told


def test_what_processes_tell_each_other(monkeypatch):
    monkeypatch.setattr(distributed, "BUCKET", 3)
    first, second = together(2, talk)
    for told in (first, second):
        assert told["agree"] == [True, False] and told["share"] == {"from": 0} and told["done"] == "by 0"
        assert told["copied"] == 0 and told["mean"] == [0.5] * 5
    assert first["gather"] == [0, 10] and second["gather"] == []
    assert first["bad"] == "InputError('no such file')" and second["bad"] == "SystemExit(2)"
    assert "the processes no longer hold the same a (1 of 2 tensors differ)" in first["differ"] and second["differ"] == "SystemExit(2)"


def test_a_checksum_sees_each_bit_and_its_place():
    t = torch.randn(100)
    flipped, moved = t.clone(), t.clone()
    flipped[17] = torch.nextafter(flipped[17], torch.tensor(1e9))
    moved[[3, 4]] = moved[[4, 3]]
    sums = {int(distributed.checksum(x)) for x in (t, flipped, moved, t.bfloat16(), t.double())}
    assert len(sums) == 5


def test_gradients_travel_in_buckets_of_one_type(monkeypatch):
    monkeypatch.setattr(distributed, "BUCKET", 10)
    tensors = [torch.zeros(4), torch.zeros(4), torch.zeros(4), torch.zeros(30), torch.zeros(1, dtype=torch.float64)]
    assert [len(b) for b in distributed.buckets(tensors)] == [2, 1, 1, 1]
    assert list(distributed.buckets([])) == []


# --- bad input ---


@pytest.mark.parametrize(
    ("changes", "peers", "message"),
    [
        ({"batch": 4}, Peers(0, 3), "4 pictures cannot be shared equally by 3 process(es): make --batch a multiple of 3, such as 3"),
        ({"batch": 8, "accumulate": 3}, Peers(0, 2), "each in 3 pieces (accumulate): make --batch a multiple of 6, such as 6"),
        ({"batch": 4, "accumulate": 3}, ALONE, "make --batch a multiple of 3"),
        ({"batch": 32}, Peers(0, 2), "16 pictures to train on are less than one batch of 32"),
    ],
)  # fmt: skip
def test_a_batch_that_does_not_divide_is_refused(tiny_config, changes, peers, message):
    with pytest.raises(InputError) as error:
        builders.check_batch(tiny_config(**changes), 16, peers)
    assert message in str(error.value)
    with pytest.raises(SystemExit if peers.world > 1 else InputError):  # said once
        builders.check_batch(tiny_config(**changes), 16, Peers(peers.world - 1, peers.world))


def test_synchronised_norms_are_for_cuda_only(tiny_config):
    from spyolo.trainer import synchronised

    detector = build_detector("spyv4_lite", 3, width=0.05)
    names = list(detector.state_dict())
    with pytest.raises(InputError, match="sync_norm needs CUDA; on a CPU each process's norms see its own share"):
        synchronised(detector, torch.device("cpu"))
    detector = synchronised(detector, torch.device("cuda"))  # as modules only
    assert list(detector.state_dict()) == names and all(type(m) is torch.nn.SyncBatchNorm for m in norms(detector))
    with pytest.raises(InputError, match="sync_norm goes with norm batch, not with renorm"):
        tiny_config(sync_norm=True, norm="renorm")


def test_frozen_norms_stay_as_they_are(tiny_config):
    from spyolo.trainer import Trainer

    trainer = Trainer(tiny_config(freeze_norms=True, epochs=1, limit=8), quiet=True)
    before = {k: v.clone() for k, v in trainer.detector.named_buffers()}
    assert trainer.fit()
    assert all(torch.equal(v, before[k]) for k, v in trainer.detector.named_buffers())



"""Several processes that train one detector: the arithmetic of one process, one checkpoint, one set of figures."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
import warnings
from contextlib import nullcontext
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
import torch
from processes import together
from torch import Tensor

from spyolo import builders, distributed, engine
from spyolo.boxes import Objects
from spyolo.checkpoint import load_tensors
from spyolo.cli import run, train
from spyolo.config import Config
from spyolo.data import SAMPLE_CLASSES, Batch, DetectionDataset, VOCSet, collate
from spyolo.detection import DetectionLoss, SpikingYOLO, build_detector
from spyolo.distributed import ALONE, Peers
from spyolo.errors import InputError
from spyolo.files import write_whole
from spyolo.learning import BPTT, FPTT
from spyolo.neurons import norms
from spyolo.resuming import holds_this_run
from spyolo.run_folder import RunFolder
from spyolo.running import EpochOrder, choose_device
from spyolo.scaling import Batch as CostOfBatch
from spyolo.scaling import Network, allreduce_seconds, batch_seconds, efficiency
from spyolo.trainer import Trainer

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
    worst = max((alone[k] - both[k]).abs().max().item() for k in alone if k != "log")
    torch.testing.assert_close(alone["log"], both["log"], rtol=1e-5, atol=1e-6)  # rates are taken in fp32
    assert worst < (1e-5 if case["dtype"] == torch.float32 else 1e-12 if case["batches"] == 1 else 1e-9)
    if case.get("plan") != [1]:
        untouched = tiny(sample_root, case["dtype"])[0].state_dict()
        assert max((alone[f"w.{k}"] - v).abs().max().item() for k, v in untouched.items() if f"w.{k}" in alone) > 1e-3


@pytest.mark.parametrize("options", [{}, {"form": "paper"}, {"rule": "bptt", "plan": [2]}])
def test_a_batch_in_pieces_is_the_batch(sample_root, options):
    case = {"dtype": torch.float64, "batches": 4} | options
    whole, pieces = learn(ALONE, sample_root, case), learn(ALONE, sample_root, case | {"accumulate": 4})
    torch.testing.assert_close(whole.pop("log"), pieces.pop("log"), rtol=1e-5, atol=1e-6)
    assert max((whole[k] - pieces[k]).abs().max().item() for k in whole) < 1e-9


def test_shares_of_a_batch_are_cut_from_the_same_order():
    whole = list(EpochOrder(22, 6, seed=3, epoch=1))
    shares = [list(EpochOrder(22, 6, 3, 1, peers=Peers(rank, 3))) for rank in range(3)]
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


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"WORLD_SIZE": "y"}, "WORLD_SIZE must be a whole number at least 1, got 'y'"),
        ({"WORLD_SIZE": "-2"}, "WORLD_SIZE must be a whole number at least 1, got '-2'"),
        ({"RANK": "2"}, "RANK must be a whole number between 0 and 1, got '2'"),
        ({"LOCAL_WORLD_SIZE": "0"}, "LOCAL_WORLD_SIZE must be a whole number at least 1"),
        ({"MASTER_ADDR": None}, "MASTER_ADDR is missing"),
        ({"MASTER_PORT": None}, "MASTER_PORT is missing"),
        ({"MASTER_PORT": "seven"}, "MASTER_PORT must be a whole number between 0 and 65535, got 'seven'"),
    ],
)
def test_an_environment_that_is_not_torchrun_s_is_told(monkeypatch, changes, said):
    whole = {"RANK": "0", "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "29500"}
    for name, value in (whole | changes).items():
        monkeypatch.setenv(name, value) if value is not None else monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(torch.distributed, "init_process_group", lambda *_: pytest.fail("waited for the others"))
    with pytest.raises(InputError) as error, distributed.joined():
        pass
    assert f"the environment variable {said}" in str(error.value) and "torchrun sets all" in str(error.value)


def test_processes_that_do_not_find_each_other_are_told(monkeypatch):
    def lost(*_: object) -> None:
        raise torch.distributed.DistNetworkError("The client socket has timed out\nafter 60000ms")

    for name, value in {"RANK": "0", "WORLD_SIZE": "2", "MASTER_ADDR": "nowhere", "MASTER_PORT": "29500"}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(torch.distributed, "init_process_group", lost)
    with pytest.raises(InputError, match=r"2 processes do not find each other at .*nowhere:29500 \(The client socket has timed out after"):
        distributed.joined().__enter__()
    monkeypatch.delenv("RANK")  # of a scheduler that sets WORLD_SIZE alone
    with distributed.joined() as peers:
        assert peers is ALONE


def test_synchronised_norms_are_for_cuda_only(tiny_config):
    detector = build_detector("spyv4_lite", 3, width=0.05)
    names = list(detector.state_dict())
    with pytest.raises(InputError, match="sync_norm needs CUDA; on a CPU each process's norms see its own share"):
        distributed.synchronised(detector, torch.device("cpu"))
    detector = distributed.synchronised(detector, torch.device("cuda"))  # as modules only
    assert list(detector.state_dict()) == names and all(type(m) is torch.nn.SyncBatchNorm for m in norms(detector))
    with pytest.raises(InputError, match="sync_norm goes with norm batch, not with renorm"):
        tiny_config(sync_norm=True, norm="renorm")


def test_frozen_norms_stay_as_they_are(tiny_config):
    trainer = Trainer(tiny_config(freeze_norms=True, epochs=1, limit=8), quiet=True)
    before = {k: v.clone() for k, v in trainer.detector.named_buffers()}
    assert trainer.fit()
    assert all(torch.equal(v, before[k]) for k, v in trainer.detector.named_buffers())


# --- runs ---

SHORT = {"limit": 8, "val_limit": 3, "recalibrate": 1, "eval_every": 9, "epochs": 2, "batch": 4, "save_seconds": 0, "plain_epochs": 1}


def fit(peers: Peers, config: Config, stop_before: int = 0, resume: bool = False) -> tuple[bool, list[str]]:
    """A run, or what is left of it, ended by a signal that reaches the last process only before batch `stop_before`."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        trainer = Trainer(config, resume=resume, quiet=True, peers=peers)
    inner, seen = trainer.set_rates, iter(range(1, 10**6))

    def set_rates() -> None:
        trainer.stopping |= next(seen) == stop_before and peers.rank == peers.world - 1
        inner()

    trainer.set_rates = set_rates  # type: ignore[method-assign]
    nothing = {"plot": lambda *_: None, "board": lambda *_: None}  # drawing takes longer than training here
    with mock.patch.multiple(RunFolder, **nothing):  # and only here: one process of these tests is the one that runs them all
        return trainer.fit(), [str(w.message) for w in caught if "process(es)" in str(w.message)]


def runs(peers: Peers, whole: Config, stopped: Config, frozen: Config) -> dict[str, Any]:
    """One run; the same stopped and resumed; one whose norms are frozen; and one in the middle of which all but one process leave."""
    told = {"whole": fit(peers, whole), "stopped": fit(peers, stopped, stop_before=3)}
    told["resumed"] = fit(peers, stopped, resume=True)
    fit(peers, frozen)
    return told


@pytest.fixture(scope="module")
def two_runs(tiny_config) -> dict[str, Any]:
    configs = {
        "whole": tiny_config(**SHORT), "stopped": tiny_config(**SHORT),
        "frozen": tiny_config(**SHORT | {"freeze_norms": True, "epochs": 1, "parts": 1, "limit": 16}),
    }  # fmt: skip
    first, second = together(2, runs, *configs.values())
    return configs | {"first": first, "second": second}


def tensors_of(config: Config, name: str = "last") -> dict[str, Tensor]:
    return load_tensors(Path(config.out) / f"{name}.safetensors")[0]


def test_a_run_of_two_processes_stops_together_and_resumes_to_the_bit(two_runs):
    for told in (two_runs["first"], two_runs["second"]):
        assert told["whole"] == (True, []) and told["stopped"] == (False, []) and told["resumed"] == (True, [])
    for name in ("last", "best"):
        whole, resumed = (tensors_of(two_runs[k], name) for k in ("whole", "stopped"))
        assert whole.keys() == resumed.keys() and [k for k in whole if not torch.equal(whole[k], resumed[k])] == []
    logs = [(Path(two_runs[k].out) / "log.csv").read_text().splitlines() for k in ("whole", "stopped")]
    seconds = logs[0][0].split(",").index("seconds")
    without = [[[v for i, v in enumerate(line.split(",")) if i != seconds] for line in log] for log in logs]
    assert without[0] == without[1] and len(logs[0]) == 3


def test_a_run_of_two_processes_is_the_run_of_one(two_runs, tiny_config):
    """Four updates in fp32, norms frozen; and the log's means are those of whole batches."""
    config = two_runs["frozen"].updated({"out": str(Path(two_runs["frozen"].out).with_name("alone"))})
    assert Trainer(config, quiet=True).fit()
    alone, both = tensors_of(config), tensors_of(two_runs["frozen"])
    kinds = ("model.", "average.", "lam.", "ema.")
    for k in (k for k in alone if k.startswith(kinds)):
        torch.testing.assert_close(both[k], alone[k], atol=1e-4, rtol=1e-4, msg=k)
    rows = [(Path(c.out) / "log.csv").read_text().splitlines()[1].split(",") for c in (config, two_runs["frozen"])]
    assert [float(v) for v in rows[0][3:8]] == pytest.approx([float(v) for v in rows[1][3:8]], rel=1e-3)


def test_another_number_of_processes_goes_on_with_one_warning(tiny_config):
    config = tiny_config(**SHORT)
    assert together(2, fit, config, 3)[0] == (False, [])
    before = tensors_of(config)
    done, warned = fit(ALONE, config, resume=True)
    assert done and len(warned) == 1 and "was written by 2 process(es) and goes on with 1: the same batches of 4 pictures" in warned[0]
    assert before["meters"].shape == (2, 5) and before["meters"].any(1).all()
    after = tensors_of(config)
    assert any(not torch.equal(before[k], after[k]) for k in before if k.startswith("model."))
    assert len((Path(config.out) / "log.csv").read_text().splitlines()) == 3


def test_what_is_there_of_sums_goes_on_with_the_first_process():
    saved = torch.tensor([[1.0, 2.0], [3.0, 4.0]])
    for peers, expected in (
        (Peers(1, 2), [[0, 0], [3, 4]]), (Peers(0, 3), [[4, 6], [0, 0], [0, 0]]), (Peers(1, 3), [[0, 0]] * 3), (ALONE, [[4, 6]]),
    ):  # fmt: skip
        assert peers.own_rows(saved).tolist() == expected


# --- evaluation ---


def evaluate(peers: Peers, weights: Path, root: Path, out: Path) -> None:
    """tools/eval.py in this process, which has joined its peers already."""
    options = ["--weights", str(weights), "--data", str(root), "--split", "2007:train", "--batch", "3", "--timesteps", "1,2", "--quiet"]
    options += ["--confidence", "0.01", "--workers", "0", "--energy-pictures", "7", "--json", str(out), "--save-predictions", f"{out}.coco"]
    with mock.patch.object(distributed, "joined", lambda: nullcontext(peers)):
        assert run("eval", options) == 0


def test_evaluation_on_one_two_and_three_processes_gives_the_same_figures(weights_file, sample_root, tmp_path):
    """16 pictures in batches of 3: neither the batches nor the pictures divide evenly."""
    evaluate(ALONE, weights_file, sample_root, tmp_path / "1")
    for world in (2, 3):
        together(world, evaluate, weights_file, sample_root, tmp_path / str(world))
    metrics = [json.loads((tmp_path / str(world)).read_text()) for world in (1, 2, 3)]
    assert metrics[0] == metrics[1] == metrics[2]
    assert metrics[0]["energy"]["total_mj"] > 0 and len(metrics[0]["anytime"]) == 2
    said = [(tmp_path / f"{world}.coco").read_bytes() for world in (1, 2, 3)]
    assert said[0] == said[1] == said[2] and len(json.loads(said[0])) > 50


# --- torchrun: a process that dies ---

WORKER = """
import os, sys
from pathlib import Path
from spyolo.neurons.fused import Compiling
from spyolo.run_folder import RunFolder
Compiling.enabled = False
RunFolder.plot = RunFolder.board = lambda *_: None
rank, life = (int(os.environ[k]) for k in ("RANK", "TORCHELASTIC_RESTART_COUNT"))
Path(sys.argv[1], f"pid.{rank}.{life}").write_text(str(os.getpid()))
from spyolo.cli import run, train
sys.exit(run("train", sys.argv[2:]))
"""


def launch(folder: Path, config: Config, *options: str) -> subprocess.Popen[str]:
    (folder / "worker.py").write_text(WORKER)
    (folder / "preset.yaml").write_text(config.to_yaml())
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", "--max-restarts=3"]
    command += ["--monitor-interval=0.1"]
    command += [str(folder / "worker.py"), str(folder), "--quiet", "--preset", str(folder / "preset.yaml"), *options]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=os.environ | {"OMP_NUM_THREADS": "1"})


@pytest.mark.slow
@pytest.mark.parametrize("victim", [0, 1])
def test_a_process_killed_in_the_middle_of_an_epoch_costs_nothing(tiny_config, tmp_path, victim):
    """kill -9 of one of two: torchrun starts both anew, and they go on from the last checkpoint to the result of an undisturbed run."""
    whole, killed = (tiny_config(**SHORT | {"epochs": 4, "limit": 16}) for _ in range(2))
    assert together(2, fit, whole)[0][0]
    process = launch(tmp_path, killed)
    deadline = time.monotonic() + 200
    while not (Path(killed.out) / "last.safetensors").exists():
        assert process.poll() is None and time.monotonic() < deadline, process.stdout.read()
        time.sleep(0.02)
    os.kill(int((tmp_path / f"pid.{victim}.0").read_text()), signal.SIGKILL)
    output, _ = process.communicate(timeout=300)
    assert process.returncode == 0, output
    assert (tmp_path / "pid.0.1").exists() and (tmp_path / "pid.1.1").exists() and "mAP@0.5" in output
    for name in ("last", "best"):
        a, b = tensors_of(whole, name), tensors_of(killed, name)
        assert a.keys() == b.keys() and [k for k in a if not torch.equal(a[k], b[k])] == []
    assert len((Path(killed.out) / "log.csv").read_text().splitlines()) == 5


def test_continuing_takes_up_this_run_and_no_other(tiny_config):
    config = tiny_config(epochs=1)
    assert not holds_this_run(config)
    write_whole(Path(config.out) / "config.yaml", config.to_yaml())
    assert holds_this_run(config.updated({"workers": 3, "max_minutes": 5}))
    with pytest.raises(InputError, match=r"already holds another run \(lr 0.001, not 0.1, epochs 1, not 2\); --resume it, or give another"):
        holds_this_run(config.updated({"epochs": 2, "lr": 0.1}))
    with pytest.raises(InputError, match="--resume RUN goes on with a run that is there, --continue also starts one; give one of them"):
        train.main(["--resume", config.out, "--continue"])


# --- the model of the cost ---


def test_the_model_of_the_cost_says_what_rings_and_trees_do():
    ring, tree = Network(1e9, 1e-5), Network(1e9, 1e-5, tree=True)
    assert allreduce_seconds(1e9, 1, ring) == 0
    assert allreduce_seconds(1e9, 2, ring) == pytest.approx(1 + 2e-5)  # each half is sent and comes back
    assert allreduce_seconds(1e9, 1024, ring) == pytest.approx(2 * 1023 / 1024 + 2 * 1023e-5)
    assert allreduce_seconds(1e9, 1024, tree) == pytest.approx(2 * 1023 / 1024 + 20e-5)
    online, once = (CostOfBatch(compute=0.1, updates=k, gradient=24e6) for k in (8, 1))
    assert batch_seconds(online, 1, tree) == 0.1 and efficiency(once, 64, tree) > efficiency(online, 64, tree) > 0
    assert batch_seconds(online, 64, tree) - batch_seconds(once, 64, tree) == pytest.approx(7 * allreduce_seconds(24e6, 64, tree))


def test_one_gpu_is_not_for_several_processes():
    with pytest.raises(InputError, match="device cuda:1 is one GPU, for 2 processes: give cuda, and each takes its own"):
        choose_device("cuda:1", Peers(0, 2, 0, 2))

"""What a task asks, and the networks built for it."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from official_files import refused, write_mnist, write_wav

from spyolo.errors import InputError
from spyolo.neurons import DENSE_GATES, LTCUnit, Readout
from spyolo.sequence.batch import Batch
from spyolo.sequence.config import SequenceConfig, load_sequence_preset, sequence_presets
from spyolo.sequence.engine import evaluate, gathered, questions
from spyolo.sequence.networks import build_network
from spyolo.sequence.objectives import ACCURACY, BITS, MSE, NLL, PERPLEXITY, Tally, Truth
from spyolo.sequence.tasks import TASKS, build_task
from spyolo.sequence.tasks.adding import Adding
from spyolo.sequence.tasks.language import Language


def config(**changes) -> SequenceConfig:
    return SequenceConfig().updated(changes)


# --- presets ---


def test_every_task_has_a_preset_that_names_it():
    assert set(sequence_presets()) == set(TASKS)
    for name in TASKS:
        assert load_sequence_preset(name).task == name


# --- the adding problem ---


def test_the_sum_of_the_two_marked_values_one_in_each_half():
    batch = Adding(timesteps=11, batch=64).train_batch(list(range(64)), epoch=3)
    values, marks = batch.inputs.unbind(-1)
    assert marks.unique().tolist() == [0, 1] and (marks[:5].sum(0) == 1).all() and (marks[5:].sum(0) == 1).all()
    assert torch.allclose((values * marks).sum(0), batch.targets) and values.min() >= 0 and values.max() < 1


def test_sequences_are_new_each_time_and_the_test_is_not():
    task = Adding(timesteps=10, batch=4)
    a, b, again = (task.train_batch([0, 1, 2, 3], e).inputs for e in (0, 1, 0))
    assert a.equal(again) and not a.equal(b)
    assert not Adding(10, 4, seed=1).train_batch([0, 1, 2, 3], 0).inputs.equal(a)
    first, second = (list(task.test_batches(400)) for _ in range(2))
    assert [b.size for b in first] == [400, 400, 200] and all(x.inputs.equal(y.inputs) for x, y in zip(first, second))


def test_the_size_of_its_batches_does_not_change_the_test(tmp_path):
    folder = str(write_mnist(tmp_path))
    for task in (Adding(10, 4), build_task(config(task="rmnist", data=folder, timesteps=5))):
        whole = next(task.test_batches(task.tests))
        for size in (1, 5):
            inputs, targets = zip(*((b.inputs, b.targets) for b in task.test_batches(size)))
            assert torch.cat(inputs, 1).equal(whole.inputs) and torch.cat(targets).equal(whole.targets)
    assert Adding(10, 4, seed=1).test_batch([0]).inputs.ne(Adding(10, 4).test_batch([0]).inputs).any()
    as_before = Adding(10, 4).draw(1000, Adding(10, 4).drawn(2, 0))  # the published figures are of these
    assert next(Adding(10, 4).test_batches(1000)).inputs.equal(as_before.inputs)


def test_answering_one_has_an_error_of_a_sixth():
    targets = torch.cat([b.targets for b in Adding(50, 8).test_batches(1000)])
    assert float((targets - 1).square().mean()) == pytest.approx(1 / 6, abs=0.02)


def test_a_mark_in_each_half_needs_two_steps():
    assert Adding(2, 4).train_batch([0, 1, 2, 3], 0).inputs.shape == (2, 4, 2)
    assert "needs 2 timesteps or more, got 1" in refused(build_task, config(timesteps=1))


# --- text ---


def test_windows_go_on_from_one_another(tmp_path):
    path = tmp_path / "a.txt"
    path.write_text("".join(chr(97 + i % 26) for i in range(1000)))
    task = Language(path, "char", timesteps=40, batch=4)
    first, second = task.train_batch([0, 1, 2, 3], 0), task.train_batch([4, 5, 6, 7], 0)
    assert first.fresh and not second.fresh and first.inputs.shape == (40, 4, 26)
    letters = torch.cat([first.targets, second.targets])
    assert ((letters[1:] - letters[:-1]) % 26 == 1).all()  # the alphabet goes on over the border of the windows
    assert first.input(1).argmax(-1).equal(first.targets[0])
    assert sum(b.targets.numel() for b in task.test_batches(1)) <= 50 and task.samples == (900 // 4 - 1) // 40 * 4


def test_a_limit_on_a_text_is_one_on_its_windows(tmp_path):
    path = tmp_path / "a.txt"
    path.write_text("to be or not to be " * 100)
    chosen = config(task="char", data=str(path), timesteps=10, batch=4)
    assert build_task(chosen).samples == 4 * 42 and build_task(chosen.updated({"limit": 2})).samples == 8


# --- judged by a validation part ---


def test_the_last_tenth_is_held_out_of_training(tmp_path):
    data = str(write_mnist(tmp_path, train=24, test=4))
    whole = build_task(config(task="smnist", data=data))
    task = build_task(config(task="smnist", data=data, judge="validation", limit=20))
    assert (task.samples, task.tests) == (18, 2)
    judged = list(task.test_batches(1))
    for batch, place in zip(judged, (18, 19), strict=True):
        assert batch.inputs.equal(whole.train_batch([place], 0).inputs) and batch.targets.equal(whole.train_batch([place], 0).targets)
    assert len(list(build_task(config(task="smnist", data=data, judge="validation", test_limit=1)).test_batches(5))) == 1
    assert "of 9 there is none" in refused(build_task, config(task="smnist", data=data, judge="validation", limit=9))


def test_of_data_that_lie_class_by_class_as_many_of_each_are_held_out(tmp_path):
    """Of 4 and 16: the rarer class is not left to training alone."""
    for digit, count in ((0, 5), (1, 17)):
        for k in range(count):
            write_wav(tmp_path / f"{digit}_{'eve' if k == 0 else 'ann'}_{k}.wav", np.ones(2000, np.int16))
    chosen = config(task="digits", data=str(tmp_path), test_speakers="eve", judge="validation")
    task = build_task(chosen)
    assert (task.samples, task.tests) == (18, 2) and sorted(next(task.test_batches(2)).targets.tolist()) == [0, 1]
    trained, judged = task.places("train", list(range(18))), task.places("train", [18, 19])
    assert sorted(trained + judged) == list(range(20)) and "eve" not in {p.stem.split("_")[1] for p, _ in task.files["train"]}
    assert judged == build_task(chosen.updated({"seed": 7})).places("train", [18, 19])
    few = build_task(chosen.updated({"limit": 10}))
    assert (few.samples, few.tests) == (9, 1) and len(set(few.places("train", list(range(10))))) == 10


def test_the_size_of_its_batches_does_not_change_what_is_held_out(tmp_path):
    task = build_task(config(task="rmnist", data=str(write_mnist(tmp_path, train=60, test=4)), timesteps=5, judge="validation"))
    whole, apart = (torch.cat([b.inputs for b in task.test_batches(size)], 1) for size in (6, 2))
    assert whole.sum() > 0 and whole.equal(apart)


def test_tasks_with_a_validation_part_of_their_own(tmp_path):
    path = tmp_path / "a.txt"
    path.write_text("".join("ab"[i < 950] for i in range(975)) + "c" * 25)
    test, valid = (build_task(config(task="char", data=str(path), timesteps=5, batch=2, judge=j)) for j in ("test", "validation"))
    letters = [set(torch.cat([b.targets.flatten() for b in task.test_batches(1)]).tolist()) for task in (test, valid)]
    assert len(letters[0]) == len(letters[1]) == 1 and letters[0] != letters[1] and test.samples == valid.samples

    test, valid = (build_task(config(task="adding", timesteps=8, judge=j)) for j in ("test", "validation"))
    assert test.samples == valid.samples and test.tests == valid.tests
    assert not next(test.test_batches(1)).inputs.equal(next(valid.test_batches(1)).inputs)


# --- what is asked when, and the figures ---


def test_steps_at_which_a_label_is_asked_for():
    assert list(questions(6, 3, "last")) == [5] and list(questions(3, 1, "every")) == [0, 1, 2]
    parts = questions(7, 3, "parts")
    assert list(parts) == [2, 4, 6] and [round(q.weight, 3) for q in parts.values()] == [0.333, 0.667, 1.0]
    assert [(q.weight, q.part) for q in questions(6, 2, "auxiliary").values()] == [(1.0, 0), (1.0, 1)]


def test_figures():
    logits = torch.tensor([[2.0, 0.0], [0.0, 1.0], [0.0, 3.0]])
    tally = Tally(ACCURACY)
    tally.add(logits, Truth(torch.tensor([0, 1, 0])))
    assert tally.value() == pytest.approx(2 / 3)
    uniform = torch.zeros(5, 8)
    for objective, value in ((BITS, 3.0), (PERPLEXITY, 8.0)):
        tally = Tally(objective)
        tally.add(uniform, Truth(torch.arange(5)))
        assert tally.value() == pytest.approx(value)
    tally = Tally(NLL)
    tally.add(torch.zeros(2, 88), Truth(torch.zeros(2, 88)))
    assert tally.value() == pytest.approx(88 * math.log(2))
    tally = Tally(MSE)
    tally.add(torch.tensor([[1.0], [2.0]]), Truth(torch.tensor([1.0, 4.0])))
    assert tally.value() == 2


def test_steps_behind_a_sequence_s_end_count_for_nothing():
    outputs, y, valid = torch.tensor([[0.0, 9.0], [5.0, 0.0]]), torch.tensor([0, 0]), torch.tensor([False, True])
    assert float(ACCURACY.loss(outputs, Truth(y, valid))) == pytest.approx(float(ACCURACY.each(outputs, y)[1]) / 2)
    tally = Tally(ACCURACY)
    tally.add(outputs, Truth(y, valid))
    assert tally.value() == 1 and tally.count == 1
    ended = gathered(torch.ones(2, 2), outputs, valid, "last")
    assert ended.tolist() == [[1, 1], [5, 0]] and gathered(torch.ones(2, 2), outputs, None, "mean").tolist() == [[1, 10], [6, 1]]


def test_the_mean_output_of_a_sequence_is_over_its_own_steps():
    class Counting(torch.nn.Linear):  # output at step t: the input, 2 t
        def forward(self, x, state):
            return x, None

    inputs = torch.arange(4.0)[:, None, None].expand(4, 2, 1) * 2
    for lengths, error in ((None, 0.0), (torch.tensor([4, 2]), 2.0)):  # means 3 and 1
        batch = Batch(inputs, torch.tensor([3.0, 3.0]), 4, lengths)
        found = evaluate(Counting(1, 1), MSE, [batch], predict="mean")
        assert found["mse"] == pytest.approx(error)


# --- networks ---


@pytest.mark.parametrize("cell", ["ltc", "lif", "alif", "snu", "ssnu", "lstm", "gru"])
def test_every_neuron_takes_the_config_s_options(cell):
    chosen = config(cell=cell, hidden="8, 6", threshold=0.7, decay=0.6, surrogate="arctan", adaptive=True)
    network = build_network(chosen, Adding(4, 2))
    output, state = network(torch.zeros(3, 2), None)
    assert output.shape == (3, 1) and len(state.cells) == 2
    found = evaluate(network, MSE, Adding(4, 2).test_batches(500))
    assert network.training
    evaluate(network.eval(), MSE, Adding(4, 2).test_batches(1000))
    assert not network.training  # as it came
    assert math.isfinite(found["mse"]) and found["mse"] == found["test_loss"]


def test_the_published_size_of_the_jsb_network():
    class Chords(Adding):
        inputs, outputs = (88,), 88

    network = build_network(load_sequence_preset("jsb"), Chords(4, 2))
    assert sum(p.numel() for p in network.parameters()) == 49_138  # 88-150-88, facts of the authors' notebook


def test_the_published_size_of_the_adding_network():
    network = build_network(load_sequence_preset("adding"), Adding(4, 2))
    dead = 128 * 256 + 128  # the reference declares an adaptation gate that nothing reads
    assert sum(p.numel() for p in network.parameters()) == 82_689 - dead
    assert (network.cells[0].unit.gate.linear.bias == -3).all()


def test_convolutions_are_read_from_a_word(tmp_path):
    chosen = config(task="mnist", data=str(write_mnist(tmp_path)), conv="4c3-p2-6c5-p2", hidden="10", conv_gate="depthwise", timesteps=2)
    task = build_task(chosen)
    network = build_network(chosen, task)
    assert [type(c.unit) for c in network.cells] == [LTCUnit] * 3
    output, state = network(task.train_batch([0, 1], 0).input(0), None)
    assert output.shape == (2, 10) and [tuple(c.s.shape[1:]) for c in state.cells] == [(4, 14, 14), (6, 7, 7), (10,)]
    for conv, said in (("p2-4c3", "a convolution comes first"), ("4c2", "odd kernel"), ("4x3", "no layer"), ("4c3-p99", "does not fit"),
                       ("9" * 5000 + "c3", "is no layer"), ("99999999999c3", "too large behind 1 channels"), ("4c129", "a kernel of 127"),
                       ("4096c3-4096c127", "'4096c127' is too large behind 4096 channels")):  # fmt: skip
        assert said in refused(build_network, chosen.updated({"conv": conv}), task)
    assert "ltc, lif or alif" in refused(build_network, chosen.updated({"cell": "lstm"}), task)
    assert "give conv" in refused(build_network, chosen.updated({"conv": ""}), task)
    assert "no pictures" in refused(build_network, chosen, Adding(4, 2))


@pytest.mark.parametrize("hidden", [(8,), ()])
def test_maps_are_flattened_whatever_follows_them(tmp_path, hidden):
    """Here as many features as the dense layer has neurons; and no dense layer at all."""
    chosen = config(task="mnist", data=str(write_mnist(tmp_path)), conv="2c3-p14", hidden=hidden, timesteps=2)
    task = build_task(chosen)
    for reads in ("output", "membrane"):
        network = build_network(chosen.updated({"reads": reads}), task)
        assert network(task.train_batch([0, 1], 0).input(0), None)[0].shape == (2, 10)


@pytest.mark.parametrize("adaptive", [False, True])
@pytest.mark.parametrize("gate", DENSE_GATES)
def test_every_gate_on_offer_works_in_a_dense_layer(gate, adaptive):
    network = build_network(config(gate=gate, hidden="5, 4", adaptive=adaptive), Adding(4, 2))
    state = None
    for _ in range(3):
        output, state = network(torch.ones(3, 2), state)
    output.sum().backward()
    assert output.shape == (3, 1) and all(p.grad is not None for p in network.cells[0].unit.gate.parameters())
    with pytest.raises(InputError, match="gate must be one of concat_linear, sum_linear, static"):
        config(gate="depthwise")


def test_a_gate_bias_of_zero_is_not_the_gate_s_own():
    def bias(**changes):
        return build_network(config(hidden="5", **changes), Adding(4, 2)).cells[0].unit.gate.linear.bias

    assert config().gate_bias is None and config(gate_bias="none").gate_bias is None
    assert (bias(gate="sum_linear") == -5).all() and bias().count_nonzero()
    assert not bias(gate="sum_linear", gate_bias=0).count_nonzero() and not bias(gate_bias=0).count_nonzero()


def test_neurons_with_time_constants_of_their_own():
    """Spread evenly over the range, for both kinds of gate, drawn from the seed; the rest of the network is as without."""
    for gate in ("concat_linear", "sum_linear"):
        built = [build_network(config(hidden="400", gate=gate, slowest=n, gate_bias=-2), Adding(4, 2)) for n in (100, 100, 0)]
        spread, again, alike = (net.cells[0].unit.gate.linear.bias for net in built)
        constants = 1 / spread.sigmoid()
        assert 2 <= constants.min() < 4 and 97 < constants.max() <= 100.01 and 46 < constants.mean() < 56
        assert spread.equal(again) and (alike == -2).all()
        assert built[0].cells[0].synapse.weight.equal(built[2].cells[0].synapse.weight)
    with pytest.raises(InputError, match="slowest is a time constant of 2 steps or more"):
        config(slowest=1)


def test_a_learned_readout_begins_with_some_of_the_past():
    assert Readout(2, 1, "learned", decay=0.9).logit.sigmoid().item() == pytest.approx(0.9)
    with pytest.raises(ValueError, match=r"decay must be in \(0, 1\)"):
        Readout(2, 1, "learned", decay=0.0)
    with pytest.raises(InputError, match="readout learned starts from a readout_decay over 0"):
        config(readout="learned", readout_decay=0)
    assert config(readout="leaky", readout_decay=0).readout_decay == 0


def test_seeds_are_numbers_that_a_generator_takes():
    with pytest.raises(InputError, match="seed must be between 0 and 4294967295"):
        config(seed=20261126151500)
    assert config(seed=2**32 - 1).seed == 2**32 - 1


def test_words_are_embedded(tmp_path):
    path = tmp_path / "a.txt"
    path.write_text(" ".join(f"w{i % 700}" for i in range(9000)))
    chosen = config(task="word", data=str(path), batch=2, timesteps=5, embed=7, hidden="6")
    task = build_task(chosen)
    assert task.vocabulary > 512
    output, _ = build_network(chosen, task)(task.train_batch([0, 1], 0).input(0), None)
    assert output.shape == (2, task.vocabulary)


def test_one_weight_seed_one_network():
    a, b, c = (build_network(config(hidden="5", seed=s), Adding(4, 2)).state_dict() for s in (0, 0, 1))
    assert all(a[k].equal(b[k]) for k in a) and not all(a[k].equal(c[k]) for k in a)


def test_tasks_that_there_are_not():
    assert "task must be one of adding, smnist" in refused(build_task, config(task="spelling"))

"""Pictures, sounds, piano rolls and texts: what is read, and what is said of a file that is wrong."""

from __future__ import annotations

import gzip
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from official_files import idx_bytes, refused, write_mnist, write_wav

from spyolo.sequence.config import SequenceConfig, load_sequence_preset
from spyolo.sequence.places import data_root
from spyolo.sequence.readers.idx import read_idx, read_pictures
from spyolo.sequence.readers.pianoroll import read_rolls
from spyolo.sequence.readers.sound import log_mel, mel_filters, read_wav
from spyolo.sequence.readers.text import read_corpus
from spyolo.sequence.tasks import TASKS, build_task
from spyolo.sequence.tasks.digits import SpokenDigits
from spyolo.sequence.tasks.music import Music
from spyolo.sequence.tasks.pictures import Pictures, find_pictures

# --- where data lie ---


def test_a_root_comes_from_the_argument_or_the_variable(tmp_path, monkeypatch):
    monkeypatch.delenv("SPYOLO_DATA", raising=False)
    assert "--data is missing" in refused(data_root, "", "mnist", "x")
    monkeypatch.setenv("SPYOLO_DATA", str(tmp_path))
    assert "no such file or folder" in refused(data_root, "", "mnist", "x")
    assert "cannot be looked for (File name too long)" in refused(data_root, "x" * 300, "mnist", "x")
    (tmp_path / "mnist").mkdir()
    assert data_root("", "mnist", "x") == tmp_path / "mnist" and data_root(str(tmp_path), "mnist", "x") == tmp_path


@pytest.mark.parametrize("task", [t for t in TASKS if t != "adding"])
def test_every_task_says_which_data_it_needs(task, monkeypatch):
    monkeypatch.delenv("SPYOLO_DATA", raising=False)
    said = refused(build_task, SequenceConfig().updated({"task": task}))
    assert said.startswith("--data is missing: ") and "SPYOLO_DATA" in said


def test_without_a_network_the_download_says_what_to_do(tmp_path, monkeypatch):
    from torchvision.datasets import MNIST

    def no_network(self) -> None:
        raise RuntimeError("Error downloading train-images-idx3-ubyte.gz")

    monkeypatch.setattr(MNIST, "download", no_network)
    assert "By hand: put its four .gz files into a folder" in refused(find_pictures, str(tmp_path), "mnist", download=True)


@pytest.fixture
def fetched(monkeypatch):
    """What was fetched, and where to: in place of torchvision, files laid out as it lays them out."""
    calls = []

    def fetch(kind, root) -> None:
        calls.append((kind, root))
        write_mnist(root / kind / "raw")

    monkeypatch.setitem(find_pictures.__globals__, "fetch", fetch)
    monkeypatch.delenv("SPYOLO_DATA", raising=False)
    return calls


@pytest.mark.parametrize("laid_out", [".", "raw", "FashionMNIST/raw"])
def test_what_is_there_is_not_fetched_again(laid_out, tmp_path, fetched, monkeypatch):
    folder = write_mnist(tmp_path / "fashion-mnist" / laid_out)
    assert find_pictures(str(tmp_path / "fashion-mnist"), "fashion-mnist", download=True) == folder
    monkeypatch.setenv("SPYOLO_DATA", str(tmp_path))
    assert find_pictures("", "fashion-mnist", download=True) == folder
    assert not fetched


def test_what_is_not_there_is_fetched_into_the_folder_given_or_the_variables_or_data(tmp_path, fetched, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for given, variable, root in (("", "", Path("data")), ("", "all", Path("all/mnist")), ("mine", "all", Path("mine"))):
        monkeypatch.setenv("SPYOLO_DATA", variable)
        for _ in range(2):  # the second time it is there
            assert find_pictures(given, "mnist", download=True) == root / "MNIST" / "raw"
        assert fetched.pop() == ("MNIST", root) and not fetched


def test_the_rest_of_half_a_set_is_fetched(tmp_path, fetched):
    (write_mnist(tmp_path) / "t10k-labels-idx1-ubyte.gz").unlink()
    assert find_pictures(str(tmp_path), "mnist", download=True) == tmp_path / "MNIST" / "raw" and len(fetched) == 1


# --- pictures ---


def test_idx_plain_or_gzipped(tmp_path):
    array = np.arange(24, dtype=np.uint8).reshape(2, 3, 4)
    (tmp_path / "a").write_bytes(idx_bytes(array))
    (tmp_path / "a.gz").write_bytes(gzip.compress(idx_bytes(array)))
    assert np.array_equal(read_idx(tmp_path / "a"), array) and np.array_equal(read_idx(tmp_path / "a.gz"), array)
    (tmp_path / "a").write_bytes(idx_bytes(array)[:-1])
    assert "cut off" in refused(read_idx, tmp_path / "a")
    (tmp_path / "a").write_bytes(b"\x00\x00\x0d\x01")
    assert "not an IDX file of bytes" in refused(read_idx, tmp_path / "a")
    (tmp_path / "a.gz").write_bytes(gzip.compress(idx_bytes(array))[:-9])
    assert "cannot be read" in refused(read_idx, tmp_path / "a.gz")


def test_labels_of_another_length(tmp_path):
    folder = write_mnist(tmp_path)
    (folder / "train-labels-idx1-ubyte.gz").write_bytes(gzip.compress(idx_bytes(np.arange(5))))
    assert "24 pictures and 5 labels of train" in refused(read_pictures, folder, "train")
    (folder / "train-labels-idx1-ubyte.gz").unlink()
    assert "train-labels-idx1-ubyte (or train-labels-idx1-ubyte.gz) is missing" in refused(read_pictures, folder, "train")


def test_labels_that_are_none_and_pictures_that_are_not_there(tmp_path):
    folder = write_mnist(tmp_path, train=4)
    (folder / "train-labels-idx1-ubyte.gz").write_bytes(gzip.compress(idx_bytes(np.array([0, 9, 12, 3], np.uint8))))
    assert "picture 2 of train has the label 12; 0 to 9 are wanted" in refused(Pictures, folder, "still")
    for shape in ((), (0, 28, 28), (4, 0, 0), (4, 784)):
        (folder / "train-images-idx3-ubyte.gz").write_bytes(gzip.compress(idx_bytes(np.zeros(shape, np.uint8))))
        (folder / "train-labels-idx1-ubyte.gz").write_bytes(gzip.compress(idx_bytes(np.zeros(shape[:1], np.uint8))))
        assert "train holds no pictures with a label each" in refused(Pictures, folder, "still")
    (folder / "train-images-idx3-ubyte.gz").write_bytes(gzip.compress(idx_bytes(np.zeros((4, 14, 14), np.uint8))))
    assert "pictures of (14, 14) to train on and of (28, 28) to test on" in refused(Pictures, folder, "still")


def test_pictures_as_torchvision_lays_them_out(tmp_path):
    write_mnist(tmp_path / "MNIST" / "raw")
    assert find_pictures(str(tmp_path), "mnist") == tmp_path / "MNIST" / "raw"
    assert "FashionMNIST" in refused(find_pictures, str(tmp_path), "fashion-mnist")


def test_four_ways_to_show_a_picture(tmp_path):
    folder = write_mnist(tmp_path)
    pixels, permuted = (Pictures(folder, shown) for shown in ("pixels", "permuted"))
    a, b = (task.train_batch([0, 3], 0) for task in (pixels, permuted))
    assert a.inputs.shape == b.inputs.shape == (784, 2, 1) and a.targets.tolist() == [0, 3]
    assert float(a.input(2 * 28)[0, 0]) == pytest.approx(200 / 255)
    assert a.inputs.sort(0)[0].equal(b.inputs.sort(0)[0]) and not a.inputs.equal(b.inputs)
    assert b.inputs.equal(Pictures(folder, "permuted", seed=5).train_batch([0, 3], 0).inputs)  # one scrambled order for all runs

    still = Pictures(folder, "still", 7, flat=False).test_batch([0, 3])
    assert still.timesteps == 7 and still.input(6).shape == (2, 1, 28, 28) and still.input(0).equal(still.input(6))

    spikes = Pictures(folder, "spikes", 4000)
    shown = spikes.train_batch([0], 0).inputs.float().mean(0)[0].view(28, 28)
    assert float(shown[2].mean()) == pytest.approx(200 / 255, abs=0.01) and shown[20].sum() == 0
    assert not spikes.train_batch([0], 0).inputs.equal(spikes.train_batch([0], 1).inputs)  # new spikes each epoch
    assert spikes.train_batch([0], 1).inputs.equal(spikes.train_batch([0], 1).inputs)


# --- sounds ---


def tone(hertz: float, seconds: float = 0.3, rate: int = 8000) -> np.ndarray:
    return 8000 * np.sin(2 * np.pi * hertz * np.arange(int(seconds * rate)) / rate)


def test_wav_files_that_do_not_fit(tmp_path):
    path = tmp_path / "0_ann_0.wav"
    assert read_wav(write_wav(path, tone(440)), 8000).shape == (2400,)
    assert "sampled at 16000 Hz, 8000 expected" in refused(read_wav, write_wav(path, tone(440), rate=16000), 8000)
    assert "2 channels, one expected" in refused(read_wav, write_wav(path, tone(440), channels=2), 8000)
    assert "8 bits a sample, 16 expected" in refused(read_wav, write_wav(path, tone(440), width=1), 8000)
    write_wav(path, tone(440))
    path.write_bytes(path.read_bytes()[:-100])
    assert "cut off: 2400 samples are announced, 2350 are there" in refused(read_wav, path, 8000)
    path.write_bytes(b"RIFFnonsense")
    assert "not readable as WAV" in refused(read_wav, path, 8000)
    path.write_bytes(b"")
    assert "not readable as WAV (empty file)" in refused(read_wav, path, 8000)


def test_the_mel_band_of_a_tone_is_the_one_around_it():
    filters = mel_filters(8000, 256, 20)
    mel = 2595 * math.log10(1 + 1000 / 700)
    band = round(mel / (2595 * math.log10(1 + 4000 / 700)) * 21) - 1
    spectrum = torch.stft(torch.tensor(tone(1000)).float(), 256, window=torch.hann_window(256), return_complex=True).abs().square().mean(1)
    assert (filters @ spectrum).argmax() == band
    assert (filters >= 0).all() and filters.shape == (20, 129)
    inside = filters.sum(0)[torch.linspace(0, 4000, 129).gt(100) & torch.linspace(0, 4000, 129).lt(3600)]
    assert ((inside > 0.99) & (inside < 1.01)).all()  # neighbouring triangles add up to one


def test_log_mel_is_normalised_and_takes_short_sounds():
    frames = log_mel(torch.randn(4000), 8000)
    assert frames.shape == (1 + (4000 - 256) // 80, 40)
    assert frames.mean(0).abs().max() < 1e-4 and (frames.std(0, correction=0) - 1).abs().max() < 0.02
    assert log_mel(torch.zeros(10), 8000).shape == (1, 40)


def test_speakers_of_the_test_are_never_trained_on(tmp_path):
    for digit in (0, 7):
        for k, speaker in enumerate(("ann", "bob", "eve")):
            write_wav(tmp_path / f"{digit}_{speaker}_0.wav", tone(300 + 100 * k, 0.1 + 0.1 * k))
    task = SpokenDigits(tmp_path, ("eve",))
    assert (task.samples, task.tests) == (4, 2) and all("eve" not in p.name for p, _ in task.files["train"])
    batch = task.train_batch([0, 1], 0)  # 0_ann (short), 0_bob
    assert batch.targets.tolist() == [0, 0] and batch.lengths.tolist() == [7, 17] and batch.timesteps == 17
    assert batch.valid(3) is None and batch.valid(10).tolist() == [False, True] and batch.input(10)[0].abs().sum() == 0
    task.limit(2, 1)
    assert sorted(task.train_batch([0, 1], 0).targets.tolist()) == [0, 7] and (task.samples, task.tests) == (2, 1)
    for speakers in (("zoe",), (), ("ann", "bob", "eve")):
        assert "some, not all, of ann, bob, eve" in refused(SpokenDigits, tmp_path, speakers)
    assert "no recordings" in refused(SpokenDigits, tmp_path / "none", ("eve",))


# --- piano rolls ---


def write_rolls(path, keys: int = 88, value: int = 1) -> None:
    io = pytest.importorskip("scipy.io")
    pieces = np.empty((1, 2), object)
    for i, steps in enumerate((3, 5)):
        pieces[0, i] = np.zeros((steps, keys), np.uint8)
        pieces[0, i][:, i] = value
    io.savemat(path, {f"{split}data": pieces for split in ("train", "valid", "test")})


def test_each_chord_is_predicted_from_those_before(tmp_path):
    write_rolls(tmp_path / "JSB_Chorales.mat")
    task = Music(tmp_path, "JSB_Chorales.mat")
    batch = task.train_batch([0, 1], 0)
    assert batch.inputs.shape == (5, 2, 88) and batch.lengths.tolist() == [3, 5]
    assert batch.inputs[0].sum() == 0 and batch.inputs[1:].equal(batch.targets[:-1])
    assert task.test_batch([1]).targets[:, 0, 1].tolist() == [1] * 5
    assert [task.least_steps(batch) for batch in (1, 2, 9)] == [3, 5, 5]  # a batch is as long as its longest piece
    task.limit(1)
    assert task.least_steps(2) == 3


def test_piano_rolls_have_a_validation_part_of_their_own(tmp_path):
    write_rolls(tmp_path / "JSB_Chorales.mat")
    task = Music(tmp_path, "JSB_Chorales.mat")
    task.pieces["valid"] = task.pieces["valid"][1:]
    task.validate()
    assert (task.samples, task.tests) == (2, 1) and next(task.test_batches(2)).targets[:, 0, 1].tolist() == [1] * 5
    task.pieces["valid"], task.first = [torch.ones(1, 88)], 1
    assert "piece 0 of valid has 1 chord" in refused(task.validate)


def test_the_first_chord_can_be_left_out(tmp_path):
    write_rolls(tmp_path / "JSB_Chorales.mat")
    all_of_it, task = Music(tmp_path, "JSB_Chorales.mat"), Music(tmp_path, "JSB_Chorales.mat", first_chord=False)
    batch, longer = task.train_batch([0, 1], 0), all_of_it.train_batch([0, 1], 0)
    assert batch.inputs.equal(longer.inputs[1:]) and batch.targets.equal(longer.targets[1:]) and batch.lengths.tolist() == [2, 4]
    assert task.steps() == [2, 4]
    assert build_task(load_sequence_preset("jsb").updated({"data": str(tmp_path)})).steps() == [2, 4]  # the published OSTL experiment

    one_chord = np.empty((1, 1), object)
    one_chord[0, 0] = np.zeros((1, 88))
    pytest.importorskip("scipy.io").savemat(tmp_path / "short.mat", {f"{s}data": one_chord for s in ("train", "valid", "test")})
    assert "piece 0 of train has 1 chord" in refused(Music, tmp_path / "short.mat", "short.mat", first_chord=False)


def test_piano_rolls_that_are_none(tmp_path):
    path = tmp_path / "a.mat"
    write_rolls(path, keys=87)
    assert "not a roll of 88 keys" in refused(read_rolls, path)
    write_rolls(path, value=2)
    assert "up or down" in refused(read_rolls, path)
    path.write_bytes(b"nonsense" * 40)
    assert "not readable as a MATLAB file" in refused(read_rolls, path)
    assert "no such file" in refused(read_rolls, tmp_path / "b.mat")
    pytest.importorskip("scipy.io").savemat(path, {f"{split}data": np.empty((1, 0), object) for split in ("train", "valid", "test")})
    assert "train has no pieces" in refused(read_rolls, path)
    pytest.importorskip("scipy.io").savemat(path, {"x": np.zeros(2)})
    assert "holds no traindata" in refused(read_rolls, path)


# --- text ---


def test_characters_of_a_file(tmp_path):
    path = tmp_path / "a.txt"
    path.write_text("abc" * 100 + "é")
    corpus = read_corpus(path, "char")
    assert corpus.vocabulary == ("a", "b", "c", "<unk>") and len(corpus.train) == 270 and corpus.train[:4].tolist() == [0, 1, 2, 0]
    assert len(corpus.train) + len(corpus.valid) + len(corpus.test) == 301 and corpus.test[-1] == 3


def test_marks_of_a_file_and_lines_that_are_none_make_no_words(tmp_path):
    """A byte order mark is no character; \\x0c, \\x85 and U+2028 end no line."""
    path = tmp_path / "a.txt"
    path.write_bytes(b"\xef\xbb\xbf" + "a\x0cb\x85c\u2028d e\r\n".encode() * 40)
    assert set(read_corpus(path, "char").vocabulary) == set("a\x0cb\x85c\u2028d e\n")
    corpus = read_corpus(path, "word")
    tokens = torch.cat(corpus[:3]).tolist()
    assert [corpus.vocabulary[i] for i in tokens].count("<eos>") == 40


def test_words_of_ptb(tmp_path):
    for name, text in (("train", "the cat\nthe <unk>\n"), ("valid", "the dog\n"), ("test", "cat cat\n")):
        (tmp_path / f"ptb.{name}.txt").write_text(text)
    corpus = read_corpus(tmp_path, "word")
    words = [corpus.vocabulary[i] for i in corpus.valid]
    assert words == ["the", "<unk>", "<eos>"] and len(corpus.vocabulary) == 4


def test_texts_that_are_none(tmp_path):
    path = tmp_path / "a.txt"
    path.write_bytes(b"ab\xff")
    assert "not UTF-8 text (byte 2)" in refused(read_corpus, path, "char")
    path.write_text("ab")
    assert "too short" in refused(read_corpus, path, "char")
    assert "ptb.train.txt: cannot be read" in refused(read_corpus, tmp_path, "word")
    path.write_text("a b c " * 40)
    config = SequenceConfig().updated({"task": "word", "data": str(path), "timesteps": 50, "batch": 8})
    assert "too few for 8 streams of 50 steps" in refused(build_task, config)

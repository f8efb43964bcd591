"""A run's config: what it says, where it comes from, and one clear message for whatever is wrong with it."""

from __future__ import annotations

from dataclasses import FrozenInstanceError

import pytest
import yaml

from spyolo.config import FIELDS, Config, load_config, load_preset, preset_names
from spyolo.errors import InputError
from spyolo.sequence.config import SequenceConfig
from spyolo.sequence.tasks import TASKS


def test_fields_are_reached_with_and_without_their_section():
    config = Config()
    assert config.lr == config.learning.lr == 1e-3
    with pytest.raises(AttributeError, match="learning_rate"):
        config.learning_rate  # noqa: B018
    with pytest.raises(FrozenInstanceError):
        config.lr = 2  # type: ignore[misc]


def test_values_may_come_as_text():
    """As from a command line."""
    told = {"lr": "2e-3", "epochs": "7", "strict": "yes", "classes": "cat, dog", "readout": "none", "anchors": "1,2,3,4,5,6,7,8,9,10,11,12"}
    config = Config().updated(told)
    assert (config.lr, config.epochs, config.strict, config.classes, config.readout) == (0.002, 7, True, ("cat", "dog"), None)
    assert config.anchors == tuple(float(v) for v in range(1, 13))
    assert config.size == Config().size and Config().lr == 1e-3  # the rest stays; the original too


def test_every_field_has_a_help_line():
    assert all(field.metadata["help"] for _, field, _ in FIELDS.values())


@pytest.mark.parametrize("name", preset_names())
def test_presets_load_and_name_only_fields_that_there_are(name):
    assert load_preset(name) != Config()


@pytest.mark.parametrize("settings", [Config, SequenceConfig])
def test_what_a_field_is_said_to_go_with_is_there(settings):
    for name, (_, field, _) in settings.fields().items():
        other, values = field.metadata["only"] or ("rule", ())
        known = TASKS if other == "task" else settings.fields()[other][1].metadata["choices"]
        assert set(values) <= set(known), name


def test_a_field_of_which_nothing_is_made_says_why():
    plain = Config().updated({"rule": "bptt", "augment": "train"})
    assert plain.unread("alpha") == "it goes with rule fptt, not with bptt"
    assert plain.unread("mosaic") == "it goes with augment mosaic, not with train"
    assert [plain.unread(name) for name in ("colour", "lr")] == [Config().unread("alpha"), Config().unread("mosaic")] == ["", ""]


def test_the_presets_that_are_told_of_are_there():
    assert {"sample", "voc", "memorise"} <= set(preset_names())


def test_yaml_round_trip(tmp_path):
    anchors = [10.5, 14, 23, 27, 37, 58, 81, 82, 135, 169, 344, 319]
    changes = {"classes": ["cat", "été"], "anchors": anchors, "gate": "static", "data": "a: b # c", "lr": 1e-7, "strict": True}
    config = Config().updated(changes)
    path = tmp_path / "config.yaml"
    path.write_text(config.to_yaml(), encoding="utf-8")
    assert load_config(path) == config
    assert list(yaml.safe_load(config.to_yaml())) == ["network", "dataset", "learning", "loss", "evaluation", "run"]


def test_a_file_holds_sections_or_fields_or_both(tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_text("learning:\n  lr: 0.5\nepochs: 3\nloss:\n")  # a section whose fields are all commented out
    config = load_preset(str(path))
    assert (config.lr, config.epochs) == (0.5, 3)
    path.write_text("")
    assert load_config(path) == Config()
    path.write_text("lr: 0.25\n")
    assert load_config(path, base=config).epochs == 3


WRONG = {
    "learning: {lrr: 1}": r"unknown field 'lrr'; did you mean 'lr'\?",
    "learning_rate_of_the_thing: 1": "unknown field 'learning_rate_of_the_thing'; fields are .*alpha",
    "5: 1": "unknown field '5'",
    "learning: {5: 1}": "unknown field '5'",
    "learning: 7": "learning is a section: it holds fields and their values, not 7",
    "lr: fast": "lr must be a number, got 'fast'",
    "lr: true": "lr must be a number, got True",
    "lr: .nan": "lr must be a number, got nan",
    "lr: .inf": "lr must be a number, got inf",
    "lr: [1, 2]": r"lr must be a number, got \[1, 2\]",
    "lr:": "lr must be a number, got None",
    "lr: -1": "lr must be at least 0, got -1",
    "epochs: 2.5": "epochs must be a whole number, got 2.5",
    "epochs: .inf": "epochs must be a whole number, got inf",
    "epochs: 0": "epochs must be at least 1, got 0",
    "epochs: many": "epochs must be a whole number, got 'many'",
    "smoothing: 0.7": "smoothing must be between 0 and 0.5, got 0.7",
    "strict: perhaps": "strict must be true or false, got 'perhaps'",
    "train: 2007": "train must be text, got 2007",
    "detector: yolov9": "detector must be one of spyv4, spyv4_lite, yolov4_tiny; got 'yolov9'",
    "gate: round": "gate must be one of conv, depthwise, pointwise, static; got 'round'",
    "classes: 3": "classes must be a list or none, got 3",
    "classes: {cat: 1}": "classes must be a list or none",
    "classes: [cat, 1]": "classes must be a list or none",
    "classes: [cat, dog, cat]": "classes must be names, each once",
    "rule: bptt\nweights_of: average": "weights_of average goes with rule fptt; bptt keeps none",
    "size: 100": "size must be a multiple of 32, got 100",
    "{timesteps: 3, parts: 4}": r"parts \(4\) cannot exceed timesteps \(3\)",
    "seed: 20261126151500": "seed must be between 0 and 4294967295, got 20261126151500",
    "{source: shards, lanes: 2, limit: 9}": r"lanes \(2\) deal out whole shards; with limit \(9\), lanes must be 1",
    "{source: shards, cache: ram}": "source shards makes nothing of cache: cache must be none, got ram",
    "{source: shards, window_ms: 20}": "source shards makes nothing of window_ms: window_ms must be 50.0, got 20.0",
    "{source: events, cache: disk}": "source events makes nothing of cache: cache must be none, got disk",
    "{source: events, colour: 0.5}": "source events makes nothing of colour: colour must be 1.0, got 0.5",
    "{source: events, lanes: 2}": "source events makes nothing of lanes: lanes must be 1, got 2",
    "{source: events, plain_epochs: 2}": "source events makes nothing of plain_epochs: plain_epochs must be 0, got 2",
    "{kind: lif, gate: conv}": "gate conv sets tau of ltc units, lif units have none: leave gate out",
    "{detector: yolov4_tiny, gate: static}": "gate static sets tau of ltc units, relu units have none",
    "lanes: 2": "source voc makes nothing of lanes: lanes must be 1, got 2",
    "shards_from: 'https://host/{}'": "source voc makes nothing of shards_from: shards_from must be left out, got https://host/{}",
    "window_ms: 20": "source voc makes nothing of window_ms",
    "anchors: [1, 2, 3]": "anchors needs six pairs of positive sides",
    "anchors: [0, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1]": "anchors needs six pairs of positive sides",
    "scale: [2, 1]": "scale needs two numbers, the lower first",
    "{rate_low: 0.5, rate_high: 0.1}": "rate_low .* cannot exceed rate_high",
    "- lr": "expected fields and their values, got list",
    "just words": "expected fields and their values, got str",
    "lr: [1": "not readable as YAML",
    "lr: !!python/object/apply:os.getcwd []": "not readable as YAML",
}


@pytest.mark.parametrize(("text", "message"), WRONG.items())
def test_what_is_wrong_in_a_file_is_told_with_file_and_field(tmp_path, text, message):
    path = tmp_path / "mine.yaml"
    path.write_text(text)
    with pytest.raises(InputError, match=message) as caught:
        load_config(path)
    assert str(caught.value).startswith(str(path)) and "\n" not in str(caught.value)


def test_a_file_that_is_no_text_or_not_there(tmp_path):
    with pytest.raises(InputError, match=r"nix.yaml: no such config file; presets are .*sample"):
        load_preset("nix")
    (tmp_path / "b.yaml").write_bytes(b"\xff\xfe\x00\x80")
    for path in (tmp_path, tmp_path / "b.yaml"):
        with pytest.raises(InputError, match="not readable as YAML"):
            load_config(path)


def test_the_command_line_is_named_where_it_is_to_blame():
    with pytest.raises(InputError, match=r"^command line: epochs must be a whole number"):
        Config().updated({"epochs": "x"})

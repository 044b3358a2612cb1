"""YAML from files is plain data: nothing runs, and no text makes more than it can describe."""

from __future__ import annotations

from pathlib import Path

import pytest

from hesse.errors import ConfigError, FileFormatError
from hesse.runtime.yaml_text import parse_yaml

TOUCH = "!!python/object/apply:os.mkdir [ran]"
BOMB = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 10)}]\n" for i in range(1, 12)
)


@pytest.mark.parametrize(
    "text",
    [
        f"a: {TOUCH}",
        f'{{"a":{TOUCH}}}',
        f"- &x {TOUCH}\n- *x",
        f"? {TOUCH}\n: 1",
        "a: !<tag:yaml.org,2002:python/object/apply:os.mkdir> [ran]",
        "%TAG ! tag:yaml.org,2002:python/\n---\na: !object/apply:os.mkdir [ran]",
        "a: !!python/name:os.mkdir ''",
        "a: !!set {b}",
    ],
)
def test_tags_run_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(FileFormatError, match=r"^F: .*Nothing was run"):
        parse_yaml(text, "F")
    assert not Path("ran").exists()


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (BOMB, "aliases multiply"),
        ("&a [*a]", "its own container"),
        ("[" * 100_000, "nested more than 100 times"),
        ("- " * 100_000, "nested more than 100 times"),
        ("a: 1\nb: {c: 1, c: 2}", "line 2: the key 'c' occurs twice"),
        ("a: " + "9" * 5000, "not valid YAML"),
        ("a: 2001-13-45", "not valid YAML"),
        ("a: !!timestamp x", "not valid YAML"),
        ("a: \x00", "not valid YAML"),
        ("a: [", "not valid YAML"),
    ],
)
def test_damaged_and_hostile_texts_get_a_reply(text: str, words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        parse_yaml(text, "F", error_type=ConfigError)


def test_plain_data_are_kept() -> None:
    text = "x: &x {a: 1, b: [1.5, .inf, ~, true]}\ny: {<<: *x, a: 2}\nz: [*x, *x]"
    content = parse_yaml(text, "F")
    assert content["y"] == {"a": 2, "b": content["x"]["b"]}
    assert content["z"] == [content["x"]] * 2

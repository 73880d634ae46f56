import json

import pytest

from cmgl_cli.datasets.texts import read_json, read_text_table, read_texts
from cmgl_cli.errors import InputError

OWL, CAT = ("It hoots: at night.", "Round, brown.", "Round, brown."), ("A purr.",)


def write(folder, name, content):
    path = folder / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("t.json", json.dumps({"snowy_owl": OWL, "cat": "A purr."})),
        ("t.yaml", 'snowy_owl:\n  - "It hoots: at night."\n  - Round, brown.\n  - Round, brown.\ncat: A purr.\n'),
        ("t.YML", "snowy_owl: ['It hoots: at night.', &b 'Round, brown.', *b]\ncat: !!str A purr.\n"),
        ("t.csv", 'class,text\nsnowy_owl,It hoots: at night.\nsnowy_owl,"Round, brown."\ncat,A purr.\n\n'
                  'snowy_owl,"Round, brown."\n'),
        ("t.csv", "\ufeffText,Class\r\nIt hoots: at night.,snowy_owl\r\nA purr., cat \r\n"
                  '"Round, brown.",snowy_owl\r\n"Round, brown.",snowy_owl\r\n'),
    ],
)  # fmt: skip
def test_every_format_gives_the_same_texts_in_order_with_duplicates(tmp_path, name, content):
    texts = read_texts(write(tmp_path, name, content))
    assert texts == {"snowy_owl": OWL, "cat": CAT}
    assert list(texts) == ["snowy_owl", "cat"]


def test_yaml_names_and_sentences_stay_as_written(tmp_path):
    texts = read_texts(write(tmp_path, "t.yaml", "no: yes\n3: 1_000\n'null': on\nπ: ünï\n"))
    assert texts == {"no": ("yes",), "3": ("1_000",), "null": ("on",), "π": ("ünï",)}


def test_a_csv_of_samples_says_so(tmp_path):
    path = write(tmp_path, "t.csv", 'id,text\ntrain/1,"two\nlines"\ntrain/2,b\ntrain/1,c\n')
    table = read_text_table(path)
    assert table.key == "id" and table.texts == {"train/1": ("two\nlines", "c"), "train/2": ("b",)}
    with pytest.raises(InputError, match="not of classes"):
        read_texts(path)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("t.yaml", "a: !!python/object/apply:os.system ['echo x']", "line 1: .*python"),
        ("t.yaml", "b: x\na:\n - !!python/name:os.system ''", "line 3: .*python"),
        ("t.yaml", "a:\n - !secret x", "line 2: !secret"),
        ("t.yaml", "a: [x]\nb: [y]\na: [z]", "line 3: 'a'"),
        ("t.yaml", "a:\n - this: that", "line 2, class 'a': a mapping"),
        ("t.yaml", "a: {b: c}", "line 1, class 'a': a mapping"),
        ("t.yaml", "a:\n - [x]", "line 2, class 'a': a sequence"),
        ("t.yaml", "? [x, y]\n: z", "line 1: a sequence"),
        ("t.yaml", "a: [x]\nb: []", "line 2: 'b'"),
        ("t.yaml", "a: [x]\nb:", "line 2: 'b'"),
        ("t.yaml", "a: [x, ~]", "line 1: 'a'"),
        ("t.yaml", "a: ' '", "line 1: 'a'"),
        ("t.yaml", "- a", "no mapping"),
        ("t.yaml", "", "no mapping"),
        ("t.yaml", "a: [x", "t.yaml.*line 1"),
        ("t.yaml", "[" * 5000, "not valid YAML"),
        ("t.json", '{"a": ["x"], "a": ["y"]}', "'a' is listed twice"),
        ("t.json", '{"a": [1]}', "class 'a'"),
        ("t.json", '{"a": null}', "class 'a'"),
        ("t.json", '{"a": []}', "class 'a'"),
        ("t.json", '{"a": ["x", " "]}', "class 'a'"),
        ("t.json", '["x"]', "a list at the top"),
        ("t.json", "{}", "nothing at the top"),
        ("t.json", '{"a": ["x"\n}', "line 2"),
        ("t.csv", "label,text\na,b", r"line 1: \['label', 'text'\]"),
        ("t.csv", "", "header"),
        ("t.csv", "class,text\na,b\na,b,c", "line 3: 3 cells"),
        ("t.csv", "class,text\na,", "line 2: 'a'"),
        ("t.csv", "class,text\n,b", "line 2: ''"),
        ("t.csv", 'class,text\na,"b', "line 2"),
        ("t.csv", "class,text\n", "no rows"),
        ("t.txt", "a", "t.txt"),
        ("t.csv", b"class,text\na,\xff", "not UTF-8"),
    ],
)
def test_mistakes_are_named_with_their_place(tmp_path, name, content, message):
    path = write(tmp_path, name, content)
    with pytest.raises(InputError, match=f"(?s){message}") as caught:
        read_texts(path)
    assert name in str(caught.value) and caught.value.fix


@pytest.mark.parametrize("name, content", [("t.json", r'{"cat": ["a\ud800b"]}'), ("t.yaml", r'cat: "a\0b"')])
def test_halves_of_characters_and_nul_are_refused(tmp_path, name, content):
    (tmp_path / name).write_text(content)
    with pytest.raises(InputError, match="half a character") as caught:
        read_text_table(tmp_path / name)
    assert "cat" in caught.value.where and name in caught.value.where


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(InputError, match=r"no\.json"):
        read_json(tmp_path / "no.json")
    with pytest.raises(InputError, match=r"no\.csv"):
        read_texts(tmp_path / "no.csv")


@pytest.mark.shared
@pytest.mark.parametrize("name", ["cifar10_prompts_base.json", "cifar10_prompts_full.json"])
def test_real_prompts(shared_data, name):
    texts = read_texts(shared_data / "texts" / name)
    assert len(texts) == 10 and all(20 <= len(sentences) <= 60 for sentences in texts.values())

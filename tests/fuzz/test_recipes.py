"""Hostile recipes and settings: one sentence for each fault, and nothing is begun."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.fuzz.harness import REPEATABLE, is_clean, run
from tests.fuzz.test_tables import TEXT

# ------------------------------------------------------------------------------------------------- recipes

LAUGHS = "a0: &a0 [x, x]\n" + "".join(f"a{k}: &a{k} [*a{k - 1}, *a{k - 1}]\n" for k in range(1, 40))
RECIPES = [
    *(
        "",
        " ",
        "a",
        "- a",
        "1",
        "null",
        "name: [",
        "name: {",
        "name: 'x",
        "%",
        "@",
        "\t",
        "a: b: c",
        "---\n---\n",
        "? [a]\n: b",
    ),
    *(
        "name: &x *x",
        "name: &x [*x]",
        "a: *nothing",
        LAUGHS,
        "name: &x {b: *x}",
        "<<: 3",
        "<<: [1]",
        "<<: {name: x}\nname: y",
    ),
    *(
        "[" * 20_000,
        "{" * 20_000,
        "a: " * 5000,
        "- " * 20_000,
        "{a: " * 400 + "1" + "}" * 400,
        "name: " + "[" * 500 + "]" * 500,
    ),
    *(
        "1: 2",
        "null: 2",
        "true: 2",
        "on: 2",
        "1.5: 2",
        "2024-01-01: 2",
        "~: 2",
        "[a]: 2",
        "{a: b}: 2",
        "sft: {1: 2}",
        "sft: {yes: 2}",
    ),
    *(
        "name: 2024-01-01",
        "name: 2024-13-45",
        "name: 2024-01-01T99:00:00Z",
        "name: !!timestamp x",
        "name: !!int x",
        "name: !!float x",
    ),
    *(
        "name: !!bool x",
        "name: !!binary x",
        "name: !!set [a]",
        "name: !!omap 3",
        "name: !!python/object/apply:os.system [ls]",
        "name: !x y",
    ),
    *(
        f"sft: {{steps: {n}}}"
        for n in ("1" + "0" * 400, "1" + "0" * 5000, "0x" + "f" * 5000, "1e400", ".inf", ".nan", "-1", "1:30", "0o7")
    ),
    *(
        'name: "\\ud800"',
        'name: "\\x1b[2J"',
        '"\\x1b[2J": 3',
        '"a\\nb": 3',
        'sft: {"a\\nb": 3}',
        'name: "\\0"',
        "name: \x00",
        "name: \x07",
    ),
    *(
        "name: " + "x" * 300,
        "name: ../x",
        "prompts: 3",
        "prompts: [1]",
        "prompts: {file: 3}",
        "prompts: {file: null}",
        "train: {methods: {}}",
    ),
    *(
        "train: {methods: {a: 3}}",
        "train: {methods: {a: {}}}",
        "train: {methods: {a: {name: [1]}}}",
        "train: {methods: {a: {name: {}}}}",
    ),
    *(
        "train: {methods: {a: {name: sem_dpo, alpha: [1]}}}",
        "evaluate: {metrics: {drift: x}}",
        "evaluate: {image_seeds: [1, 1]}",
        "a: 1\na: 2",
    ),
]
SETTINGS = [
    *(
        "sft.steps=1e400",
        "sft.steps=[" * 50,
        "sft.steps=&x [*x]",
        "sft.steps={1: 2}",
        "=",
        "a",
        ".=1",
        "sft..x=1",
        "sft=3",
        "sft.steps=!!int x",
    ),
    *(
        "sft.steps=1" + "0" * 5000,
        "sft.steps=2024-13-45",
        "sft.model=\x1b[2J",
        "\x1b[2J=3",
        "a\nb=3",
        "sft.steps.x=3",
        "prompts.limit=1" + "0" * 400,
    ),
    *(
        "sft.steps=" + "[" * 5000,
        "train.beta=.inf",
        "train.beta=1" + "0" * 400,
        "train.beta=.nan",
        "train.beta=-.0",
        "name=x\ny",
        "sft.steps=true",
    ),
]


def _try_recipe(content: bytes, folder: Path) -> None:
    path = folder / "drawn.yaml"
    path.write_bytes(content)
    for command in ("run", "sweep"):
        code, _, err = run(command, str(path))
        assert code in (0, 2)
        assert is_clean(err), err
        if code == 2:
            assert err.startswith("semdpo: ")
            assert all(str(path) in line for line in err.splitlines()), err  # a line for each wrong key
    assert [each.name for each in folder.iterdir()] == [path.name]


@pytest.mark.parametrize("content", RECIPES, ids=range(len(RECIPES)))
def test_recipes_made_by_hand(content: str, tmp_path: Path) -> None:
    _try_recipe(content.encode(), tmp_path)
    code, _, err = run("doctor", str(tmp_path / "drawn.yaml"), "--no-measure")
    assert code == 2
    assert err.startswith("semdpo: ")


@pytest.mark.parametrize("content", [b"\xff", b"\xfe\xff", "name: x".encode("utf-16"), b"a" * 2_000_000], ids=range(4))
def test_recipes_that_are_no_text(content: bytes, tmp_path: Path) -> None:
    _try_recipe(content, tmp_path)


@pytest.mark.parametrize("setting", SETTINGS, ids=range(len(SETTINGS)))
def test_settings(setting: str, tmp_path: Path) -> None:
    for command in ("run", "doctor"):
        code, _, err = run(command, "tiny", "--set", setting)
        assert code == 2, (setting, err)
        assert is_clean(err)
        assert len(err.splitlines()) == 1, err


NODE = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | TEXT | st.dates(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT | st.integers() | st.none(), inner, max_size=3),
    max_leaves=8,
)


@REPEATABLE
@given(st.dictionaries(st.sampled_from(["name", "prompts", "sft", "train", "evaluate", "x"]) | TEXT, NODE, max_size=4))
def test_recipes_drawn(recipe: dict[Any, Any]) -> None:
    import yaml

    with tempfile.TemporaryDirectory(prefix="semdpo-fuzz-") as folder:
        _try_recipe(yaml.safe_dump(recipe).encode("utf-8", "surrogatepass"), Path(folder))


@REPEATABLE
@given(st.text(st.sampled_from("ab:-[]{}&*!?|>'\"\\%@#, \n\t0"), max_size=30))
def test_recipes_of_marks(text: str) -> None:
    with tempfile.TemporaryDirectory(prefix="semdpo-fuzz-") as folder:
        _try_recipe(text.encode(), Path(folder))

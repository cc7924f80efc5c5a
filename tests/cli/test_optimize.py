"""``semdpo optimize``: one prompt or many, guarded, as text or records, with images."""

from __future__ import annotations

import io
import json
import sys
from pathlib import Path

import pytest
from PIL import Image

from semdpo.cli import app, asked
from semdpo.errors import ConfigError
from semdpo.tiny_world.grammar import COLORS, THINGS
from tests.loopback import Asked, Loopback, Reply, chat, drawn, error

MODEL = ("--model", "tiny:gpt2", "--max-new-tokens", "24")
PROMPTS = ["a red ball in the desert", "a blue cat", "a red ball in the desert"]


def _main(monkeypatch: pytest.MonkeyPatch, *arguments: str, stdin: str | None = None) -> int:
    monkeypatch.setattr(sys, "argv", ["semdpo", "optimize", *arguments])
    if stdin is not None:
        monkeypatch.setattr(sys, "stdin", io.StringIO(stdin))
    with pytest.raises(SystemExit) as ending:
        app.main()
    return int(ending.value.code or 0)


def _records(text: str) -> list[dict[str, object]]:
    return [json.loads(line) for line in text.splitlines()]


def test_records_say_what_was_kept_and_what_was_not(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert _main(monkeypatch, "a (red:1.2) ball", *MODEL, "-n", "3", "--seed", "5", "--max-drift", "2", "--json") == 0
    said = capsys.readouterr()
    found = _records(said.out)
    assert 1 < len(found) <= 3
    for record in found:
        assert ", ".join(record) == (
            "prompt, rewrite, drift, kept, added, lost, reason, seed, truncated, model, fingerprint"
        )
        assert (record["prompt"], record["seed"], record["model"]) == ("a (red:1.2) ball", 5, "tiny:gpt2")
        assert "(red:1.2)" in str(record["rewrite"])
        assert "(red:1.2)" in record["kept"]  # type: ignore[operator]
        assert len(str(record["fingerprint"])) == 64
    assert said.err == ""


def test_many_prompts_come_in_order_from_stdin_and_from_a_file(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    assert _main(monkeypatch, "-", *MODEL, "--json", stdin="\n".join([*PROMPTS, "", ""])) == 0
    found = _records(capsys.readouterr().out)
    assert [record["prompt"] for record in found] == PROMPTS
    (tmp_path / "prompts.csv").write_text("id,text\n" + "".join(f"{k},{text}\n" for k, text in enumerate(PROMPTS)))
    given = ("--prompts", str(tmp_path / "prompts.csv"), "--column", "text", *MODEL)
    out = tmp_path / "out.jsonl"
    assert _main(monkeypatch, *given, "-o", str(out)) == 0
    assert _records(out.read_text(encoding="utf-8")) == found
    assert f"3 rewrites of 3 prompts in {out}" in capsys.readouterr().err
    assert _main(monkeypatch, *given, "-o", str(out)) == 2
    assert f"{out} already exists" in capsys.readouterr().err


def test_the_guard_is_on(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    assert _main(monkeypatch, "a red ball in the desert", *MODEL, "--max-drift", "0") == 0
    said = capsys.readouterr()
    assert said.out == "a red ball in the desert\n"
    assert said.err == "the prompt is kept: no rewrite was near enough (drift at most 0)\n"
    # Words that the encoder does not know, another script, emoji, a very long text: the prompt, with one sentence.
    for prompt in ("赤い猫", "🐈🔥", "зелёный кот", "xyzzy plugh", "a cat, " * 1400, "<b>a cat</b>&amp;"):
        assert _main(monkeypatch, prompt, *MODEL) == 0
        said = capsys.readouterr()
        assert said.out == f"{prompt.strip()}\n"
        assert len(said.err.splitlines()) == 1
        assert said.err.startswith("the prompt is kept: ")


@pytest.mark.slow
def test_before_and_after_are_rendered(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    image = tmp_path / "both.png"
    more = ("--renderer", "tiny:sd", "--scorer", "tiny:image-reward", "--best-of", "2", "--max-drift", "2")
    assert _main(monkeypatch, "a red ball in the desert", *MODEL, *more, "--show", str(image), "--seed", "3") == 0
    rewrite = capsys.readouterr().out.strip()
    with Image.open(image) as opened:
        assert opened.width > 2 * opened.height - 1
        assert json.loads(opened.info["semdpo"])["rewrite"] == rewrite
        assert "Seed: 3" in opened.info["parameters"]
    long = ("a red ball in the desert, " * 30, *MODEL, "--renderer", "tiny:sd", "--show", str(tmp_path / "long.png"))
    assert _main(monkeypatch, *long) == 0
    notes = [line for line in capsys.readouterr().err.splitlines() if "longer than the renderer reads" in line]
    assert [line.split()[1] for line in notes] == ["prompt", "rewrite"]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ((), "give either a prompt or --prompts FILE; - reads prompts from stdin"),
        (("a cat", "--prompts", "p.txt"), "give either a prompt or --prompts FILE"),
        (("--prompts", "absent.txt"), "absent.txt"),
        (("a cat", "--column", "x"), "--column has no effect without --prompts"),
        (("a cat", "-n", "17"), "-n is 17"),
        (("a cat", "--seed", "-1"), "--seed is -1"),
        (("a cat", "--best-of", "1"), "--best-of is 1"),
        (("a cat", "--renderer", "tiny:sd"), "--renderer has no effect"),
        (("a cat", "--scorer", "x"), "--scorer has no effect without --best-of"),
        (("a cat", *MODEL, "--show", "x.png"), "no --renderer is given"),
        (("a cat", *MODEL, "--show", "x.jpg"), "name it with .png"),
        (("a cat", "-o", "x.xlsx"), "name it with .txt or"),
        (("a cat", "-o", "x.txt", "--json"), "--json has no effect with --out x.txt"),
        (("a cat", *MODEL, "--length", "huge"), "use short, medium, long"),
        (("a cat", *MODEL, "--length", "999"), "--length is 999; it must be from 1 to"),
        (("a cat", *MODEL, "--banned", " , "), "--banned names no words"),
        (("a cat", *MODEL, "--banned-file", "absent.txt"), "absent.txt"),
        (("a" * 10_001, *MODEL), "shorten it to at most 10000"),
    ],
)
def test_bad_options_end_with_one_sentence(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    arguments: tuple[str, ...],
    said: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    assert _main(monkeypatch, *arguments) == 2
    found = capsys.readouterr()
    assert found.out == ""
    assert said in found.err
    assert len(found.err.splitlines()) == 1
    assert list(tmp_path.iterdir()) == []


def test_bytes_that_are_no_text_are_refused(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"a \xff cat\n"), encoding="utf-8"))
    assert _main(monkeypatch, "-", *MODEL) == 2
    assert "stdin is not UTF-8 text" in capsys.readouterr().err


def test_lines_of_stdin_are_those_of_a_file(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A line separator of Unicode, which texts from the web have, and a form feed end no line."""
    text = "a red\u2028ball\na blue\x0ccat\x85\n\na dog"
    monkeypatch.setattr(sys, "stdin", io.StringIO(text))
    found = asked.prompts("-", None, None)
    assert found == ["a red\u2028ball", "a blue\x0ccat\x85", "a dog"]
    (tmp_path / "p.txt").write_text(text.replace("\n\n", "\n"))
    assert [each.strip() for each in found] == asked.prompts(None, tmp_path / "p.txt", None)


def test_a_long_line_of_stdin_is_refused_before_the_others_are_rewritten(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert _main(monkeypatch, "-", *MODEL, stdin="a red ball\n" * 64 + "a" * 10_001) == 2
    said = capsys.readouterr()
    assert said.out == ""
    assert "stdin: prompt 65 has 10,001 characters" in said.err


def test_truncated_rewrites_of_many_prompts_are_counted(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    (tmp_path / "p.txt").write_text("a red ball\na blue cat\n")
    given = ("--prompts", str(tmp_path / "p.txt"), "--model", "tiny:gpt2", "--max-new-tokens", "3", "--max-drift", "2")
    assert _main(monkeypatch, *given) == 0
    lines = capsys.readouterr().err.splitlines()
    cure = "truncated at 3 tokens; raise --max-new-tokens"
    assert lines == [f"'{prompt}': the rewrite was {cure}" for prompt in ("a red ball", "a blue cat")]
    assert _main(monkeypatch, *given, "-o", str(tmp_path / "r.txt")) == 0
    assert capsys.readouterr().err.splitlines()[-1] == f"2 rewrites were {cure}"


def test_words_to_keep_that_no_prompt_has_are_named(capsys: pytest.CaptureFixture[str]) -> None:
    assert asked.kept("red ball, blu", ["a (red:1.2) ball", "a blue cat"]) == ("red ball", "blu")
    assert capsys.readouterr().err == (
        "--keep names 'blu', which is in none of the 2 prompts; copy it from one of them\n"
    )
    with pytest.raises(ConfigError, match="--keep names 'blu', which is not in the prompt"):
        asked.kept("blu", ["a blue cat"])


def test_phrases_have_commas_of_any_script() -> None:
    assert asked.kept("红球，沙漠、 猫", ["红球在沙漠里的猫"]) == ("红球", "沙漠", "猫")
    assert asked.banned("夕日、غروب، gold", None) == ("夕日", "غروب", "gold")


def test_several_rewrites_of_several_prompts_are_no_lines_of_text(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    """Line k is the rewrite of prompt k, and some prompts have fewer rewrites than others."""
    out = tmp_path / "r.txt"
    assert _main(monkeypatch, "-", *MODEL, "-n", "3", "-o", str(out), stdin="a red ball\na blue cat\n") == 2
    assert "a .txt does not say whose rewrite a line is" in capsys.readouterr().err
    assert _main(monkeypatch, "a red ball", *MODEL, "-n", "3", "--max-drift", "2", "-o", str(out)) == 0
    assert 1 < len(out.read_text().splitlines()) <= 3


def test_an_empty_line_of_a_file_is_named(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    (tmp_path / "p.jsonl").write_text('{"prompt": "a cat"}\n{"prompt": " "}\n')
    assert _main(monkeypatch, "--prompts", str(tmp_path / "p.jsonl"), *MODEL) == 2
    assert "line 2" in capsys.readouterr().err


ENCODER = ("--encoder", "tiny:clip", "--max-drift", "2")
SHOWN = ("--show", "x.png", "--renderer")


def test_any_language_model_behind_a_url_gets_the_guard(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    said = {
        "a red ball": '"a red ball at sunset"',
        "a blue cat": "I'm sorry, but I can't help.",
        "a cat": "a (red) cat",
    }
    with Loopback(lambda asked: chat(said[asked.prompt])) as server:
        given = ("-", "--model", server.url, "--model-name", "m", *ENCODER, "--json")
        assert _main(monkeypatch, *given, stdin="\n".join(said)) == 0
        found = _records(capsys.readouterr().out)
        assert [record["rewrite"] for record in found] == ["a red ball at sunset", "a blue cat", "a (red) cat"]
        assert "the model refused" in str(found[1]["reason"])
        assert {(record["model"], record["fingerprint"]) for record in found} == {("m", "")}
        assert _main(monkeypatch, "a red ball", *given[1:-1], "--max-drift", "0") == 0
        assert capsys.readouterr().out == "a red ball\n"
        url = server.url
    assert _main(monkeypatch, "a red ball", "--model", url, "--model-name", "m", *ENCODER) == 0
    out, err = capsys.readouterr()
    assert out == "a red ball\n"
    assert err.startswith("the prompt is kept: ")
    assert len(err.splitlines()) == 1


def test_a_server_that_goes_down_ends_a_file_and_the_same_command_resumes(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    prompts = [f"a {color} {thing}" for color in COLORS for thing in THINGS][:70]
    (tmp_path / "p.txt").write_text("\n".join(prompts) + "\n")
    usual = ("--prompts", str(tmp_path / "p.txt"), "--model-name", "m", *ENCODER, "--key-env", "NONE")

    def until_the_last(asked: Asked) -> Reply:
        return error(401, "expired") if asked.prompt == prompts[-1] else chat(f"{asked.prompt} at night")

    with Loopback(until_the_last) as server:
        command = (*usual, "--model", server.url)
        assert _main(monkeypatch, *command, "-o", str(tmp_path / "r.jsonl")) == 2
        said = capsys.readouterr().err.splitlines()[-1]
        assert "wants a key (expired)" in said
        assert said.endswith("64 of 70 prompts are finished: run the same command again to resume")
        assert not (tmp_path / "r.jsonl").exists()
        server.answer = lambda asked: chat(f"{asked.prompt} at night")
        before = len(server.asked)
        assert _main(monkeypatch, *command, "-o", str(tmp_path / "r.jsonl")) == 0
        assert {asked.prompt for asked in server.asked[before:]} == set(prompts[64:])
    assert [row["prompt"] for row in _records((tmp_path / "r.jsonl").read_text())] == prompts


def test_a_file_of_prompts_belongs_to_the_model_that_the_server_offered(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    """Without --model-name it is the server's only model, which may be another one when the command is given again."""
    (tmp_path / "p.txt").write_text("a cat\na dog\n")
    given = ("--prompts", str(tmp_path / "p.txt"), *ENCODER, "-o", str(tmp_path / "r.jsonl"))
    with Loopback(lambda _: error(401, "expired")) as server:
        command = (*given, "--model", server.url)
        assert _main(monkeypatch, *command) == 2
        server.answer = lambda asked: chat(f"{asked.prompt} at night")
        server.listed = Reply(body={"data": [{"id": "another"}]})
        assert _main(monkeypatch, *command) == 2
        assert "has unfinished rows of another command" in capsys.readouterr().err
        server.listed = Reply(body={"data": [{"id": "m"}]})
        assert _main(monkeypatch, *command) == 0
    assert {row["model"] for row in _records((tmp_path / "r.jsonl").read_text())} == {"m"}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("a cat", *MODEL, "--model-name", "m"), "--model-name has no effect without a URL as --model"),
        (("a cat", "--model", "http://x/v1", "--key-env", "sk-123"), "the name of an environment variable"),
        (("a cat", "--model", "http://u:p@x/v1", "--model-name", "m"), "more than host, port and path"),
        (
            ("a cat", *MODEL, "--show", "x.png", "--renderer", "tiny:sd", "--renderer-name", "m"),
            "--renderer-name has no effect without a URL as --renderer",
        ),
        (("a cat", *MODEL, *SHOWN, "http://x/v1", "--renderer-key-env", "sk-123"), "--renderer-key-env: 'key_env'"),
        (("a cat", *MODEL, *SHOWN, "http://u:p@x/v1", "--renderer-name", "m"), "more than host, port and path"),
        (
            ("a cat", *MODEL, *SHOWN, "http://x/v1", "--seed", str(2**31)),
            "a server that renders takes at most 2147483647",
        ),
        (
            ("a cat", *MODEL, "--best-of", "2", "--renderer", "tiny:sd", "--scorer", "http://x/v1"),
            "is a server; here a model with files is needed",
        ),
    ],
)
def test_bad_options_of_a_server(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    arguments: tuple[str, ...],
    message: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    assert _main(monkeypatch, *arguments) == 2
    said = capsys.readouterr().err
    assert message in said
    assert len(said.splitlines()) == 1
    assert "sk-123" not in said
    assert "u:p" not in said


# ------------------------------------------------------------------------------------ a server that renders


BRIGHT = ("--best-of", "4", "--scorer", "tiny:image-reward")


def _grey(asked: Asked) -> Reply:
    return drawn(Image.new("RGB", (32, 16), (len(asked.prompt) % 200 + 20,) * 3))


def test_a_server_renders_before_and_after(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    monkeypatch.setenv("MY_KEY", "sk-secret-123")
    image, more = tmp_path / "both.png", ("--renderer-key-env", "MY_KEY", "--seed", "3", "--max-drift", "2")
    with Loopback(_grey) as server:
        assert _main(monkeypatch, PROMPTS[0], *MODEL, "--renderer", server.url, *more, "--show", str(image)) == 0
        rewrite = capsys.readouterr().out.strip()
        posts = [asked for asked in server.asked if asked.path.endswith("generations")]
    assert {asked.body["prompt"] for asked in posts} == {PROMPTS[0], rewrite}
    assert {(asked.body["model"], asked.body["seed"]) for asked in posts} == {("m", 3)}, "its only model"
    assert {asked.headers["authorization"] for asked in posts} == {"Bearer sk-secret-123"}
    assert not {"num_inference_steps", "guidance_scale", "size"} & set(posts[0].body), "the server's own"
    with Image.open(image) as opened:
        assert opened.size == (32 + 8 + 32, 16)
        assert json.loads(opened.info["semdpo"])["renderer"] == "m"
        assert "127.0.0.1" not in opened.info["parameters"] + opened.info["semdpo"]


def test_a_server_renders_for_best_of_and_what_it_refuses_comes_last(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    given = (
        "a red ball in the desert",
        *MODEL,
        *BRIGHT,
        "-n",
        "4",
        "--max-drift",
        "2",
        "--renderer-name",
        "m",
        "--json",
    )
    with Loopback(_grey) as server:
        named = (*given, "--renderer", server.url)
        assert _main(monkeypatch, *named) == 0
        first = [record["rewrite"] for record in _records(capsys.readouterr().out)]
        assert len(first) > 1
        refused = first[0]
        server.answer = lambda asked: error(400, "policy") if asked.prompt == refused else _grey(asked)
        assert _main(monkeypatch, *named) == 0
        said = capsys.readouterr()
        assert [record["rewrite"] for record in _records(said.out)] == [*first[1:], refused]
        server.answer = lambda _: error(400, "policy")
        assert _main(monkeypatch, *named) == 0
        assert sorted(str(row["rewrite"]) for row in _records(capsys.readouterr().out)) == sorted(map(str, first))
        server.answer = lambda _: error(401, "expired")
        assert _main(monkeypatch, *named) == 2
        assert "wants a key (expired)" in capsys.readouterr().err


def test_a_file_of_prompts_belongs_to_the_server_that_rendered(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    (tmp_path / "p.txt").write_text("\n".join(f"a {color} ball" for color in COLORS[:3]) + "\n")
    given = ("--prompts", str(tmp_path / "p.txt"), *MODEL, *BRIGHT, "--max-drift", "2", "-o", str(tmp_path / "r.jsonl"))
    down = [True]
    with Loopback(lambda asked: error(401, "expired") if down[0] else _grey(asked), models=("m", "n")) as server:
        assert _main(monkeypatch, *given, "--renderer", server.url) == 2
        assert "offers m, n; say which model to use with --renderer-name" in capsys.readouterr().err
        assert _main(monkeypatch, *given, "--renderer", server.url, "--renderer-name", "m") == 2
        assert "run the same command again to resume" in capsys.readouterr().err
        down[0] = False
        assert _main(monkeypatch, *given, "--renderer", server.url, "--renderer-name", "n") == 2
        assert "has unfinished rows of another command" in capsys.readouterr().err
        assert _main(monkeypatch, *given, "--renderer", server.url, "--renderer-name", "m") == 0
    assert len(_records((tmp_path / "r.jsonl").read_text())) == 3

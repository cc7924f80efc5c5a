"""The server of a study: what a link opens, what is stored, and what nobody learns."""

from __future__ import annotations

import csv
import http.client
import io
import json
import random
import resource
import struct
import time

import pytest
from PIL import Image

from semdpo.data.writers import escaped
from semdpo.study import app, blinding
from semdpo.study.plan import VOTES, Study
from semdpo.study.votes import VoteStore
from tests.study.studies import PATIENCE, THREE, Served, body, make, served

HEADERS = {
    "cache-control": "no-store",
    "referrer-policy": "no-referrer",
    "x-content-type-options": "nosniff",
    "cross-origin-resource-policy": "same-origin",
}


def test_public_names_are_unguessable_and_differ(study: Study) -> None:
    names = [
        name
        for rater in range(study.plan.raters)
        for trial in blinding.sheet(study, rater)["trials"]
        for name in (trial["id"], trial["left"], trial["right"])
    ]
    assert len(set(names)) == len(names), "an image has another name in every trial"
    assert {len(name) for name in names} == {22}
    other = blinding.public_id(bytes(32), "rater", "0")
    assert other == "8_VlbFEgV3T-Fvmasp4M5G"  # by openssl dgst -sha256 -mac HMAC
    assert other != blinding.public_id(bytes(32), "trial", "0")
    assert other != blinding.public_id(bytes(31) + b"1", "rater", "0")


def test_a_table_has_the_public_names_of_links() -> None:
    names = [blinding.public_id(bytes(32), "trial", str(k)) for k in range(1000)]
    assert len(set(names)) == 1000
    assert [escaped(name) for name in names] == names


def test_a_sheet_tells_nothing_private(study: Study) -> None:
    text = json.dumps(blinding.sheet(study, 0))
    private = [*study.plan.methods, *study.plan.prompts, "comparison", str(study.folder)]
    private += [each for image in study.plan.images for each in (image.name, image.sha256)]
    private += [trial.name for trial in study.plan.trials]
    assert [each for each in private if f'"{each}' in text or each in text] == []
    trials = blinding.trials_of(study, 0)
    assert [each["prompt"] for each in json.loads(text)["trials"]] == [study.plan.prompts[t.prompt_id] for t in trials]


def test_a_rater_votes_and_goes_on(server: Served) -> None:
    link = server.link(1)
    first = server.ask("GET", f"{link}/sheet").json()
    assert (first["answered"], first["consented"]) == ({}, False)
    assert server.vote(1, body(server.study, 1)).status_code == 403, "nobody votes before agreeing"
    assert server.consent(1).status_code == 200
    sent = body(server.study, 1, 2, "right")
    for _ in range(2):  # the second is a repetition
        answer = server.vote(1, sent)
        assert (answer.status_code, answer.json()) == (200, {"stored": sent["answer"]})
    after = server.ask("GET", f"{link}/sheet").json()
    assert (after["answered"], after["consented"]) == ({sent["trial"]: ["match"]}, True)
    (vote,) = server.store.votes()
    trial = blinding.trials_of(server.study, 1)[2]
    assert (vote.trial, vote.rater, vote.choice, vote.seconds) == (trial.name, 1, "right", 2.5)
    assert (vote.left, vote.right) == (trial.left, trial.right), "the order of the images is recorded with the vote"
    other = server.ask("GET", f"{server.link(0)}/sheet").json()
    assert (other["answered"], other["consented"]) == ({}, False), "one link never shows another's votes"


def test_wrong_votes_are_refused(server: Served) -> None:
    server.consent(0)
    right = body(server.study, 0)
    wrong = {
        "of another rater": body(server.study, 1),
        "unknown trial": {**right, "trial": "x" * 22},
        "unknown question": {**right, "question": "prefer"},
        "sides swapped": {**right, "left": right["right"], "right": right["left"]},
        "unknown choice": {**right, "choice": "both"},
        "negative": {**right, "seconds": -1.0},
        "text": {**right, "seconds": "2"},
        "more": {**right, "method": "dpo"},
        "short id": {**right, "answer": "a"},
    }
    for name, sent in wrong.items():
        assert server.vote(0, sent).status_code == 400, name
    assert server.store.votes() == []
    assert server.vote(0, right).status_code == 200
    assert server.vote(0, {**right, "answer": "another" * 4, "choice": "right"}).status_code == 409
    assert [vote.choice for vote in server.store.votes()] == ["left"]


def test_a_tie_only_where_the_plan_has_one(server: Served) -> None:
    server.consent(0)
    assert server.vote(0, body(server.study, 0, choice="tie")).status_code == 200
    with served(make(server.study.folder.parent / "strict", tie=None)) as strict:
        strict.consent(0)
        assert strict.vote(0, body(strict.study, 0, choice="tie")).status_code == 400


def test_addresses_that_nobody_was_given(server: Served) -> None:
    links = {server.link(rater).removeprefix("/r/") for rater in range(3)}
    assert len(links) == 3
    own = server.ask("GET", f"{server.link(0)}/sheet").json()
    image = own["trials"][0]["left"]
    token, other = server.link(0).removeprefix("/r/"), server.link(1).removeprefix("/r/")
    assert server.ask("GET", f"/i/{token}/{image}.png").status_code == 200
    for path in (
        *(
            "/",
            "/r/",
            "/r/0",
            "/r/1",
            f"/r/{token[:-1]}",
            f"/r/{token}/",
            f"/r/{token}/votes.csv",
            "/o/",
            f"/o/{token}",
        ),
        *(f"/o/{token}/progress", f"/o/{token}/votes.csv", f"/i/{other}/{image}.png", f"/i/{token}/{image}"),
        *(
            "/plan.json",
            "/secret",
            "/votes.sqlite",
            "/images/",
            "/static/",
            "/static/offline.js",
            "/static/..%2fapp.py",
        ),
        *("/i/../plan.json", f"/i/{token}/..%2f..%2fplan.json", "/docs", "/openapi.json", f"/r/{token}/sheet/"),
    ):
        answer = server.ask("GET", path)
        assert answer.status_code == 404, path
        assert "error" in answer.json()
    assert server.ask("POST", f"{server.link(0)}/sheet").status_code == 405


def test_headers_are_the_same_for_all_images(server: Served) -> None:
    seen = set()
    for rater in range(3):
        token = server.link(rater).removeprefix("/r/")
        for trial in server.ask("GET", f"{server.link(rater)}/sheet").json()["trials"]:
            for side in ("left", "right"):
                answer = server.ask("GET", f"/i/{token}/{trial[side]}.png")
                headers = {name: value for name, value in answer.headers.items() if name != "date"}
                seen.add((tuple(sorted(headers.items())), len(answer.content), _chunks(answer.content)))
                assert Image.open(io.BytesIO(answer.content)).info == {}
    assert len(seen) == 1
    for path in (server.link(0), f"{server.link(0)}/sheet", "/static/rater.js", "/none", server.organiser):
        headers = server.ask("GET", path).headers
        assert headers.items() >= HEADERS.items()
        assert headers["content-security-policy"].startswith("default-src 'none'; script-src 'self'; style-src 'self'")
        assert "server" not in headers


def _chunks(data: bytes) -> tuple[bytes, ...]:
    found, at = [], 8
    while at < len(data):
        (length,) = struct.unpack(">I", data[at : at + 4])
        found.append(data[at + 4 : at + 8])
        at += length + 12
    return tuple(found)


def test_the_organiser_sees_progress_and_no_result_until_closed(server: Served) -> None:
    server.consent(0)
    server.vote(0, body(server.study, 0))
    page = server.ask("GET", f"{server.organiser}/progress")
    assert [each["votes"] for each in page.json()["raters"]] == [1, 0, 0]
    assert "dpo" not in page.text
    assert '"choice"' not in page.text
    assert server.ask("GET", f"{server.organiser}/votes.csv").status_code == 409
    assert server.ask("POST", f"{server.organiser}/close", json={"close": False}).status_code == 400
    assert server.ask("POST", f"{server.organiser}/close", json={"close": True}).status_code == 200
    refused = server.vote(0, body(server.study, 0, 1))
    assert (refused.status_code, refused.json()["error"]["code"]) == (409, "refused")
    assert server.consent(1).status_code == 409
    assert server.vote(0, body(server.study, 0)).status_code == 200, "a stored vote is acknowledged again"
    (row,) = csv.DictReader(io.StringIO(server.ask("GET", f"{server.organiser}/votes.csv").text))
    assert (row["rater"], row["choice"], row["kind"]) == ("0", "left", "comparison")
    assert {row["left_method"], row["right_method"]} == {"sem_dpo", "dpo"}


def test_an_answer_that_cannot_be_stored_is_not_acknowledged(server: Served, caplog: pytest.LogCaptureFixture) -> None:
    server.consent(0)
    grown = (server.study.folder / f"{VOTES}-wal").stat().st_size
    _, hard = before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (grown, hard))
    try:
        answer = server.vote(0, body(server.study, 0))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert (answer.status_code, answer.json()["error"]["message"]) == (503, app.NOT_STORED)
    (logged,) = [each.getMessage() for each in caplog.records if each.name == "semdpo.study"]
    assert logged.startswith(f"there is no space left to write {server.study.folder / VOTES}; free some space")
    assert server.store.votes() == []
    assert server.vote(0, body(server.study, 0)).status_code == 200
    assert len(server.store.votes()) == 1


NO_JSON = [
    b"",
    b"{",
    b"[]",
    b"null",
    b"{}",
    b'{"answer": NaN}',
    b"[" * 10_000,
    b'{"a":1,"a":2}',
    "é".encode("latin-1"),
    b"\0" * 70_000,
]


def test_500_malformed_requests_leave_no_vote(server: Served, capfd: pytest.CaptureFixture[str]) -> None:
    server.consent(0)
    right, generator = body(server.study, 0), random.Random(0)
    wrong = [
        None,
        True,
        0,
        -1,
        1e400,
        "",
        "x",
        "\ud800",
        "../plan.json",
        "'; DROP TABLE votes; --",
        [],
        {},
        ["left"],
        "x" * 70_000,
    ]
    statuses: dict[int, int] = {}
    connection = http.client.HTTPConnection("127.0.0.1", int(server.url.rpartition(":")[2]), timeout=PATIENCE)
    links = [server.link(0), "/r/none", server.organiser, "/r/%00", "/i/x"]
    for number in range(500):
        path = links[0] if number % 5 else generator.choice(links)
        path += generator.choice(["/votes", "/votes", "/consent", "/close", "/sheet", ""])
        sent: bytes
        if number % 3 == 0:
            sent = generator.choice(NO_JSON)
        else:
            fields = {**right, "answer": f"malformed-answer-{number}"}
            for name in generator.sample([*right, "other"], generator.randint(1, 3)):
                fields[name] = generator.choice(wrong)
            if fields["choice"] in ("left", "right", "tie"):
                fields["trial"] = "x"
            text = json.dumps(fields)
            sent = (text if number % 2 else text[: generator.randint(0, len(text) - 1)]).encode()
        method = generator.choice(["POST"] * 8 + ["GET", "PUT"])
        kind = generator.choice(["application/json"] * 5 + ["text/plain"])
        connection.request(method, path, sent, {"Content-Type": kind})
        answer = connection.getresponse()
        content = answer.read()
        statuses[answer.status] = statuses.get(answer.status, 0) + 1
        assert answer.status < 500, content
        if answer.status >= 400:
            error = json.loads(content)["error"]
            assert "Traceback" not in error["message"]
            assert str(server.study.folder) not in error["message"]
    connection.close()
    assert statuses.keys() >= {400, 404, 405, 413}, statuses
    assert sum(statuses.values()) == 500
    assert server.store.votes() == []
    assert "Traceback" not in "".join(capfd.readouterr())
    assert server.vote(0, right).status_code == 200


def test_three_questions_are_three_votes(study: Study) -> None:
    with served(make(study.folder.parent / "three", questions=THREE)) as server:
        server.consent(0)
        for question in THREE:
            assert server.vote(0, body(server.study, 0, question=question)).status_code == 200
        sheet = server.ask("GET", f"{server.link(0)}/sheet").json()
        assert [set(names) for names in sheet["answered"].values()] == [set(THREE)]
        assert sheet["questions"][0]["name"] == "match"
        assert {each["name"]: each["words"] for each in sheet["questions"]} == THREE


def test_an_image_that_is_not_there_is_named(study: Study) -> None:
    image = study.folder / "images" / f"{study.plan.images[0].sha256}.png"
    store = VoteStore(study.folder, "x")
    for damage in (lambda: image.write_bytes(b"no image"), image.unlink):
        damage()
        with pytest.raises(app.DataError, match=r"images/.*\.png cannot be read; restore the study's folder"):
            app.build(study, store)
    store.close()


def test_an_answer_waits_for_no_confirmation_of_its_head(server: Served) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", int(server.url.rpartition(":")[2]), timeout=PATIENCE)
    taken = []
    for _ in range(20):  # over one connection, where the kernel would let small answers wait 40 ms
        began = time.perf_counter()
        connection.request("GET", f"{server.link(0)}/sheet")
        connection.getresponse().read()
        taken.append(time.perf_counter() - began)
    connection.close()
    assert min(taken[1:]) < 0.035

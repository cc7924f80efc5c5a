"""Requests of several clients become one batch, and none of them suffers for another."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

import httpx
import pytest

from tests.serve.servers import PATIENCE, Optimizer1, Running, running


def _together(server: Running, one: Optimizer1, prompts: list[str], **more: object) -> list[httpx.Response]:
    """Answers to requests that all wait while the model does another one."""
    with ThreadPoolExecutor(len(prompts) + 1) as pool:
        with one.held():
            first = pool.submit(server.optimize, "first")
            assert one.entered.acquire(timeout=PATIENCE)
            others = [pool.submit(server.optimize, prompt, **more) for prompt in prompts]
            server.waits(len(prompts))
        assert first.result().status_code == 200
        return [each.result() for each in others]


def test_what_waits_is_one_batch(server: Running, one: Optimizer1) -> None:
    prompts = [f"cat {index}" for index in range(20)]
    answers = _together(server, one, prompts)
    assert [each.json()["results"][0]["prompt"] for each in answers] == prompts, "to each client its own"
    assert [len(batch) for batch in one.batches] == [1, 16, 4]
    assert server.metric('semdpo_batch_size_bucket{le="8.0",queue="rewrite"}') == 2
    assert server.metric('semdpo_batch_size_sum{queue="rewrite"}') == 21


def test_a_batch_is_no_larger_than_allowed(one: Optimizer1) -> None:
    with running({"one": one}, batch=3) as server:
        _together(server, one, [f"cat {index}" for index in range(7)])
    assert [len(batch) for batch in one.batches] == [1, 3, 3, 1]


def test_models_do_not_share_a_batch(one: Optimizer1) -> None:
    two = Optimizer1()
    with running({"one": one, "two": two}) as server, ThreadPoolExecutor(7) as pool:
        with one.held():
            asked = [pool.submit(server.optimize, "first")]
            assert one.entered.acquire(timeout=PATIENCE)
            asked += [pool.submit(server.optimize, f"cat {k}", model=("one", "two")[k % 2]) for k in range(6)]
            server.waits(6)
        assert {each.result().status_code for each in asked} == {200}
    assert [len(batch) for batch in one.batches] == [1, 3]
    assert [len(batch) for batch in two.batches] == [3]


@pytest.mark.parametrize(("bad", "status"), [("refuse", 400), ("broken", 503), ("defect", 500)])
def test_one_bad_request_does_not_fail_the_others(bad: str, status: int, server: Running, one: Optimizer1) -> None:
    prompts = ["a cat", bad, "a dog", "a fox"]
    answers = _together(server, one, prompts)
    assert [each.status_code for each in answers] == [200, status, 200, 200]
    assert [len(batch) for batch in one.batches] == [1, 4, 1, 1, 1, 1]
    assert answers[2].json()["results"][0]["rewrite"] == "a dog, style 0"
    assert server.optimize("a cat").status_code == 200


def test_a_single_bad_request_is_not_done_twice(server: Running, one: Optimizer1) -> None:
    assert server.optimize("refuse").status_code == 400
    assert len(one.batches) == 1


def test_a_model_that_loses_a_row_is_a_defect(
    server: Running, one: Optimizer1, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(one, "optimize_all", lambda requests: [])
    assert server.optimize("a cat").status_code == 500


def test_one_thread_has_the_model(server: Running, one: Optimizer1, monkeypatch: pytest.MonkeyPatch) -> None:
    threads, real = set(), one.optimize_all

    def watched(requests):  # type: ignore[no-untyped-def]
        threads.add(threading.get_ident())
        return real(requests)

    monkeypatch.setattr(one, "optimize_all", watched)
    with ThreadPoolExecutor(8) as pool:
        assert {each.status_code for each in pool.map(server.optimize, ["a cat"] * 40)} == {200}
    assert len(threads) == 1

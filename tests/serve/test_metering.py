"""What a service says of energy: in answers, in the ledger, at the end of a budget."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from running import serving

from flyweight.energy.ledger import Entry, Ledger
from flyweight.serve.faults import Fault
from flyweight.serve.keys import Keys, make_key
from flyweight.serve.metering import Metering
from flyweight.serve.metrics import Metrics

ASKED = [f"pump {number} leaks badly" for number in range(8)]


def post(address: str, path: str, body: dict[str, Any]) -> tuple[int, str, Any]:
    """Status, text and headers of a request."""
    request = urllib.request.Request(
        f"{address}{path}",
        json.dumps(body).encode(),
        {"Content-Type": "application/json"},
    )
    try:
        with urllib.request.urlopen(request, timeout=60) as response:
            text = response.read().decode()
            return response.status, text, dict(response.headers)
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode(), error.headers


def chat(text: str, **more: Any) -> dict[str, Any]:
    return {"messages": [{"role": "user", "content": text}], "max_tokens": 24, **more}


def lines(state: Path) -> list[Entry]:
    with Ledger(state / "ledger.sqlite") as ledger:
        return [each for each in ledger.rows() if each.kind == "answer"]


def test_every_kind_of_answer_tells_its_joules(address: str) -> None:
    text = {"prompt": ASKED[0], "max_tokens": 8}
    stream = chat(ASKED[1], stream=True, stream_options={"include_usage": True})
    usages = [
        json.loads(post(address, "/v1/chat/completions", chat(ASKED[0]))[1])["usage"],
        json.loads(post(address, "/v1/chat/completions", chat(ASKED[2], n=3))[1])["usage"],
        json.loads(post(address, "/v1/completions", text)[1])["usage"],
        json.loads(post(address, "/v1/responses", {"input": ASKED[3]})[1])["usage"],
    ]
    embedded = post(address, "/v1/embeddings", {"input": ASKED[:2]})[1]
    usages.append(json.loads(embedded)["usage"])
    events = post(address, "/v1/chat/completions", stream)[1].split("\n\n")
    usages.append(json.loads(events[-3].removeprefix("data: "))["usage"])
    for each in usages:
        joules = each["joules"]
        chip, computer, facility = (joules[name] for name in ("chip", "computer", "facility"))
        assert 0 < chip["value"] <= computer["value"] <= facility["value"]
        assert chip["low"] <= chip["value"] <= chip["high"]
        assert chip["kind"] in ("measured", "modelled")
        assert facility["kind"] == "assumed"
        assert joules["source"]


def test_what_was_answered_stands_in_the_ledger_after_a_kill(
    demo_model: Path, tmp_path: Path
) -> None:
    with serving(demo_model, state=tmp_path) as (address, process):
        with ThreadPoolExecutor(8) as pool:
            found = list(
                pool.map(lambda said: post(address, "/v1/chat/completions", chat(said)), ASKED * 3)
            )
        process.kill()
        process.wait()
    usages = [json.loads(text)["usage"] for status, text, _ in found if status == 200]
    assert len(usages) == 24
    kept = lines(tmp_path)
    assert len(kept) == 24
    assert sum(each.tokens_written for each in kept) == sum(u["completion_tokens"] for u in usages)
    read = sum(each.tokens_read + each.tokens_reused for each in kept)
    assert read == sum(u["prompt_tokens"] for u in usages)
    told = sum(u["joules"]["computer"]["value"] for u in usages)
    assert sum(each.computer for each in kept) == pytest.approx(told, rel=1e-3)
    assert {each.model for each in kept} == {"demo"}


def test_answers_and_the_rest_are_all_that_the_chip_took(demo_model: Path, tmp_path: Path) -> None:
    with serving(demo_model, state=tmp_path) as (address, _):
        with ThreadPoolExecutor(8) as pool:
            list(pool.map(lambda said: post(address, "/v1/chat/completions", chat(said)), ASKED))
        with urllib.request.urlopen(f"{address}/metrics") as response:
            told = response.read().decode().splitlines()
    parts = {
        line.split('"')[1]: float(line.split()[-1])
        for line in told
        if line.startswith("flyweight_chip_joules{")
    }
    assert parts["answers"] == pytest.approx(sum(each.chip for each in lines(tmp_path)), rel=1e-6)
    with Ledger(tmp_path / "ledger.sqlite") as ledger:  # what no answer took is written at the end
        [rest] = [each for each in ledger.rows() if each.kind == "idle"]
    assert rest.chip >= parts["unattributed"] + parts["idle"] > 0  # and what came after that look
    assert rest.chip < 3 * (parts["unattributed"] + parts["idle"]) + 60
    assert rest.seconds > 0


def test_a_budget_warns_and_then_refuses_also_after_a_restart(
    demo_model: Path, tmp_path: Path
) -> None:
    options = [
        "--budget",
        "12J/month",
    ]  # an answer is a small part, so that the warning has its turn
    with serving(demo_model, state=tmp_path, options=options) as (address, process):
        statuses = []
        for number in range(400):
            status, text, headers = post(address, "/v1/chat/completions", chat(f"valve {number}"))
            statuses.append(status)
            if status != 200:
                break
        assert statuses[0] == 200
        assert status == 429
        error = json.loads(text)["error"]
        assert error["code"] == "energy_budget_exceeded"
        assert "this month" in error["message"]
        assert int(headers["Retry-After"]) >= 1
        with urllib.request.urlopen(f"{address}/health") as response:
            assert response.status == 200
        process.terminate()
        said = process.stdout.read()  # type: ignore[union-attr]
    assert "of the energy budget" in said
    with serving(demo_model, state=tmp_path, options=options) as (address, _):
        assert post(address, "/v1/chat/completions", chat("one more"))[0] == 429


def test_a_ledger_that_cannot_be_opened_is_said_and_stops_only_a_budget(
    demo_model: Path, tmp_path: Path
) -> None:
    (tmp_path / "ledger.sqlite").write_bytes(b"not a ledger" * 1000)
    with serving(demo_model, state=tmp_path) as (address, process):
        assert post(address, "/v1/chat/completions", chat(ASKED[0]))[0] == 200
        process.terminate()
    command = [sys.executable, "-m", "flyweight", "serve", str(demo_model), "--port", "0"]
    done = subprocess.run(
        [*command, "--budget", "1kWh/day"],
        env={**os.environ, "FLYWEIGHT_STATE": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2
    assert "Move it away" in done.stderr


def test_a_wrong_budget_is_refused(demo_model: Path) -> None:
    command = [sys.executable, "-m", "flyweight", "serve", str(demo_model), "--budget", "lots"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "1kWh/day" in done.stderr


def test_the_page_is_told_of_a_sticker_where_there_is_one(demo_model: Path, tmp_path: Path) -> None:
    with_one = tmp_path / "a model"
    shutil.copytree(demo_model, with_one)
    (with_one / "sticker.svg").write_text("<svg xmlns='http://www.w3.org/2000/svg'/>")
    with serving(demo_model, with_one) as (address, _):
        with urllib.request.urlopen(f"{address}/v1/models") as response:
            models = {each["id"]: each["flyweight"] for each in json.load(response)["data"]}
        assert models["demo"]["sticker"] is None
        with urllib.request.urlopen(address + models["a model"]["sticker"]) as response:
            assert response.headers["Content-Type"] == "image/svg+xml"
            assert "default-src 'none'" in response.headers["Content-Security-Policy"]
        with pytest.raises(urllib.error.HTTPError, match="404"):
            urllib.request.urlopen(f"{address}/v1/models/demo/sticker.svg")


def test_a_keys_tokens_of_the_day_outlive_a_restart(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FLYWEIGHT_KEYS", str(tmp_path / "keys.json"))
    key = f"Bearer {make_key('anna', None, 1000)}"
    other = f"Bearer {make_key('ben', None, 1000)}"
    with Ledger(tmp_path / "ledger.sqlite") as ledger:
        metering = Metering(Metrics(), ledger, None)
        for tokens in (600, 500):
            account = metering.begin(tokens)
            account.whole(tokens, 1)
            metering.end(account, "m", "anna")
        keys = Keys(tmp_path / "keys.json")  # as a new service has them
        assert keys.admit(key) == "anna"
        keys.recall(ledger)
        with pytest.raises(Fault) as refused:
            keys.admit(key)
        assert refused.value.status == 429
        assert keys.admit(other) == "ben"


def test_models_weigh_what_they_are(tmp_path: Path) -> None:
    """A token of a model of a hundred times the bytes is a hundred times the work."""
    metering = Metering(Metrics(), None, None)
    big, small = metering.begin(1, 100_000), metering.begin(1, 1_000)
    for _ in range(5):
        since = time.thread_time()
        while time.thread_time() - since < 0.01:
            pass
        small.wrote(10)
        big.wrote(1)
    one, other = metering.end(big, "big", ""), metering.end(small, "small", "")
    metering.close()
    assert one.chip.value == pytest.approx(10 * (other.chip.value or 0.0), rel=0.3)


def test_keys_are_told_apart_and_a_full_disk_is_no_reason_to_fail(tmp_path: Path) -> None:
    with Ledger(tmp_path / "ledger.sqlite") as ledger:
        metering = Metering(Metrics(), ledger, None)

        def answer(key: str) -> None:
            account = metering.begin(4)
            account.whole(4, 3)
            metering.end(account, "m", key)

        threads = [threading.Thread(target=answer, args=(key,)) for key in ["anna", "ben"] * 5]
        for each in threads:
            each.start()
        for each in threads:
            each.join()
        used = {each.label: each.count for each in ledger.sums("key") if each.kind == "answer"}
        assert used == {"anna": 5, "ben": 5}
        [pages] = ledger._base.execute("PRAGMA page_count").fetchone()
        ledger._base.execute(f"PRAGMA max_page_count = {pages}")
        until = time.monotonic() + 30
        while not ledger.pending and time.monotonic() < until:
            answer("a" * 400)
        assert ledger.pending
        answer("still served")
        ledger._base.execute("PRAGMA max_page_count = 1000000")
        metering.close()  # what was held back is written at the end
    with Ledger(tmp_path / "ledger.sqlite") as ledger:
        assert "still served" in {each.label for each in ledger.sums("key")}

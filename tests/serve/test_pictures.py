"""Requests with a picture: answered as the engine does, or refused in words."""

from __future__ import annotations

import base64
import io
import json
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import openai
import pytest
from browser import ARGUMENTS, CHROMIUM
from PIL import Image
from running import serving

from flyweight.serve.eyes import LoadedEyes
from flyweight.serve.loaded import Settings
from flyweight.serve.run import names_of
from flyweight.serve.shelf import Shelf
from flyweight.vision.engine import VisionEngine
from flyweight.vision.images import open_image
from flyweight.vision.prompts import with_picture
from seeing import make_blind, make_seeing, picture

QUESTION = "what is it"


@pytest.fixture(scope="module")
def eyes(make_llama: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny model with eyes."""
    place = tmp_path_factory.mktemp("eyes")
    text = make_llama(place / "text", num_hidden_layers=8)
    return make_seeing(make_blind(text, place / "blind"), place / "eyes")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Pictures that requests may name, and one outside."""
    place = tmp_path_factory.mktemp("pictures")
    (place / "open").mkdir()
    picture(1).save(place / "open" / "a.png")
    picture(1).save(place / "secret.png")
    return place


@pytest.fixture(scope="module")
def service(eyes: Path, demo_model: Path, folder: Path) -> Iterator[str]:
    """A service with eyes and without."""
    options = ["--image-folder", str(folder / "open"), "--image-host", "127.0.0.1"]
    with serving(eyes, demo_model, options=[*options, "--context", "512"]) as (address, _):
        yield address


@pytest.fixture(scope="module")
def client(service: str) -> openai.OpenAI:
    return openai.OpenAI(base_url=f"{service}/v1", api_key="none", max_retries=0)


def data_url(image: Image.Image, kind: str = "PNG") -> str:
    held = io.BytesIO()
    image.save(held, kind)
    return f"data:image/{kind.lower()};base64,{base64.b64encode(held.getvalue()).decode()}"


def said(*urls: str, text: str = QUESTION) -> list[Any]:
    """One message with pictures before its words."""
    parts: list[Any] = [{"type": "image_url", "image_url": {"url": url}} for url in urls]
    return [{"role": "user", "content": [*parts, {"type": "text", "text": text}]}]


def wanted(eyes: Path, image: Image.Image | None, text: str = QUESTION) -> str:
    """The engine's own answer of 24 tokens."""
    with VisionEngine(eyes, context=512) as engine:
        engine.see(image)
        asked: list[Any] = [{"role": "user", "content": text}]
        prompt = engine.form.prompt(with_picture(asked) if image else asked)
        return engine.stream(prompt, 24, lambda _: None).text  # whole characters alone


def test_a_picture_is_answered_about_as_the_engine_does(
    client: openai.OpenAI, eyes: Path, folder: Path
) -> None:
    for image in (picture(1), picture(2, (40, 160))):
        found = client.chat.completions.create(
            model="eyes", messages=said(data_url(image)), max_tokens=24
        )
        assert found.choices[0].message.content == wanted(eyes, image)
    pieces = client.chat.completions.create(
        model="eyes", messages=said(data_url(picture(2))), max_tokens=24, stream=True
    )
    told = "".join(piece.choices[0].delta.content or "" for piece in pieces if piece.choices)
    assert told == wanted(eyes, picture(2))
    named = client.chat.completions.create(
        model="eyes", messages=said(str(folder / "open" / "a.png")), max_tokens=24
    )
    assert named.choices[0].message.content == wanted(eyes, picture(1))
    plain = client.chat.completions.create(
        model="eyes", messages=[{"role": "user", "content": QUESTION}], max_tokens=24
    )
    assert plain.choices[0].message.content == wanted(eyes, None)


def test_the_responses_api_takes_pictures_too(client: openai.OpenAI, eyes: Path) -> None:
    parts: Any = [
        {"type": "input_image", "image_url": data_url(picture(3))},
        {"type": "input_text", "text": QUESTION},
    ]
    found = client.responses.create(
        model="eyes", input=[{"role": "user", "content": parts}], max_output_tokens=24
    )
    assert found.output_text == wanted(eyes, picture(3))


def test_models_say_whether_they_see(client: openai.OpenAI) -> None:
    can = {each.id: (each.model_extra or {})["flyweight"]["can"] for each in client.models.list()}
    assert "images" in can["eyes"]
    assert "embeddings" not in can["eyes"]
    assert "images" not in can["demo"]


REFUSED: dict[str, tuple[Any, str]] = {
    "no picture": ([f"data:image/png;base64,{base64.b64encode(b'nothing').decode()}"], "picture"),
    "cut short": ([data_url(picture(1))[:200]], "picture"),
    "two": ([data_url(picture(1)), data_url(picture(2))], "2 pictures"),
    "a host that is not named": (["http://example.com/a.png"], "example.com"),
    "a private address": (["http://127.0.0.1/a.png"], "127.0.0.1"),
    "the metadata of a cloud": (["http://169.254.169.254/latest"], "169.254"),
    "another scheme": (["ftp://example.com/a.png"], "data:image/png"),
    "a file's URL": (["file:///etc/passwd"], "data:image/png"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_is_no_picture_is_refused_in_words(case: str, client: openai.OpenAI) -> None:
    urls, told = REFUSED[case]
    with pytest.raises(openai.BadRequestError) as error:
        client.chat.completions.create(model="eyes", messages=said(*urls), max_tokens=4)
    assert told in str(error.value)


def test_files_are_read_from_the_named_folder_alone(client: openai.OpenAI, folder: Path) -> None:
    link = folder / "open" / "link.png"
    if not link.exists():
        link.symlink_to(folder / "secret.png")
    for path in (folder / "secret.png", folder / "open" / ".." / "secret.png", link, "/etc/passwd"):
        with pytest.raises(openai.BadRequestError):
            client.chat.completions.create(model="eyes", messages=said(str(path)), max_tokens=4)


def test_a_bomb_is_refused_before_it_is_decoded(client: openai.OpenAI) -> None:
    held = io.BytesIO()
    Image.new("1", (50_000, 50_000)).save(held, "PNG")
    url = f"data:image/png;base64,{base64.b64encode(held.getvalue()).decode()}"
    with pytest.raises(openai.BadRequestError, match="50,000"):
        client.chat.completions.create(model="eyes", messages=said(url), max_tokens=4)


def test_a_model_without_eyes_says_so(client: openai.OpenAI) -> None:
    with pytest.raises(openai.BadRequestError, match="no eyes"):
        client.chat.completions.create(
            model="demo", messages=said(data_url(picture(1))), max_tokens=4
        )
    with pytest.raises(openai.BadRequestError, match="vectors"):
        client.embeddings.create(model="eyes", input="a text")
    only_users: Any = [said(data_url(picture(1)))[0] | {"role": "assistant"}, *said()]
    with pytest.raises(openai.BadRequestError, match="no pictures"):
        client.chat.completions.create(model="eyes", messages=only_users, max_tokens=4)


def test_no_file_is_read_where_no_folder_is_named(eyes: Path, folder: Path) -> None:
    with serving(eyes) as (address, _):
        client = openai.OpenAI(base_url=f"{address}/v1", api_key="none", max_retries=0)
        for url in (str(folder / "open" / "a.png"), "http://example.com/a.png"):
            with pytest.raises(openai.BadRequestError):
                client.chat.completions.create(messages=said(url), model="eyes", max_tokens=4)
        found = client.chat.completions.create(
            model="eyes", messages=said(data_url(picture(1), "JPEG")), max_tokens=4
        )
        assert found.usage
        assert found.usage.completion_tokens


def test_the_page_takes_a_picture_and_keeps_it_with_the_conversation(
    service: str, eyes: Path, folder: Path, tmp_path: Path
) -> None:
    sync_api = pytest.importorskip("playwright.sync_api", reason="needs `pip install playwright`")
    if not Path(CHROMIUM).exists():
        pytest.skip("needs Debian's chromium: apt-get install chromium")
    (tmp_path / "none.png").write_text("no picture")
    errors: list[str] = []
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=ARGUMENTS)
        page = browser.new_page()
        page.on("pageerror", lambda error: errors.append(str(error)))
        page.goto(f"{service}/")
        page.locator("#model").click()
        page.locator(".choose", has_text="demo").click()
        sync_api.expect(page.locator("#attach")).to_be_hidden()  # it has no eyes
        page.locator("#model").click()
        page.locator(".choose", has_text="eyes").click()
        sync_api.expect(page.locator("#attach")).to_be_visible()
        page.locator("#picture-file").set_input_files(tmp_path / "none.png")
        sync_api.expect(page.locator(".toast")).to_contain_text("no picture")
        page.locator("#picture-file").set_input_files(folder / "open" / "a.png")
        sync_api.expect(page.locator("#picture img")).to_be_visible()
        with page.expect_request("**/v1/chat/completions") as asked:
            page.locator("#draft").fill(QUESTION)
            page.locator("#draft").press("Enter")
        sync_api.expect(page.locator("#stop")).to_be_hidden(timeout=30_000)
        parts = asked.value.post_data_json["messages"][-1]["content"]
        sent = base64.b64decode(parts[0]["image_url"]["url"].partition(",")[2])
        with VisionEngine(eyes, context=512) as engine:
            engine.see(open_image(sent))
            prompt = engine.form.prompt(with_picture([{"role": "user", "content": QUESTION}]))
            wanted = engine.stream(prompt, 400, lambda _: None).text
        shown = page.locator(".answer .prose").last.inner_text()
        assert "".join(shown.split())[:12] == "".join(wanted.split())[:12]
        sync_api.expect(page.locator("#picture")).to_be_hidden()
        sync_api.expect(page.locator("#attach")).to_be_hidden()  # one picture a conversation
        page.reload()
        sync_api.expect(page.locator(".person img.seen")).to_be_visible()
        browser.close()
    assert errors == []


def test_requests_at_once_hold_one_decoded_picture_at_a_time() -> None:
    """Small files may be large pictures: what many decode together would not fit in memory."""
    open_now, most, guard = 0, 0, threading.Lock()

    def cut(image: Image.Image) -> tuple[int, int]:
        nonlocal open_now, most
        with guard:
            open_now += 1
            most = max(most, open_now)
        time.sleep(0.02)
        with guard:
            open_now -= 1
        return image.size

    eyes = LoadedEyes.__new__(LoadedEyes)
    eyes.engine = SimpleNamespace(cutter=SimpleNamespace(cut=cut))  # type: ignore[assignment]
    eyes._settings = SimpleNamespace(image_folder=None, image_hosts=())  # type: ignore[assignment]
    urls = [data_url(Image.new("RGB", (40 + i, 30))) for i in range(8)]
    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(eyes.image, urls)) == [(40 + i, 30) for i in range(8)]
    assert most == 1


def test_eyes_are_foretold_the_one_conversation_in_fp32_that_they_keep(eyes: Path) -> None:
    config = json.loads((eyes / "config.json").read_text())["text_config"]
    layers = config["num_hidden_layers"] - len(config["cross_attention_layers"])
    width = config["hidden_size"] // config["num_attention_heads"]
    numbers = 2 * layers * config["num_key_value_heads"] * width

    def needs(context: int, **told: Any) -> int:
        shelf = Shelf(names_of([eyes]), Settings(context=context, **told))
        return shelf._needs(shelf.books["eyes"])

    assert needs(512) == needs(512, streams=8, kv_bits=8)
    assert needs(512) - needs(256) >= 4 * numbers * 256

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from browser import ARGUMENTS, CHROMIUM, CONTRAST, NAMELESS, SMALL, WIDER, call_pieces, sse
from running import serving

sync_api = pytest.importorskip("playwright.sync_api", reason="needs `pip install playwright`")
if not Path(CHROMIUM).exists():
    pytest.skip("needs Debian's chromium: apt-get install chromium", allow_module_level=True)

from playwright.sync_api import Browser, Page, Route, expect  # noqa: E402

PAGE = Path(__file__).parents[2] / "src" / "flyweight" / "serve" / "page"
CONTEXT = 320  # tokens: the babbler fills them
CHAT = "**/v1/chat/completions"
ORDER = "Fan fifteen is vibrating badly. We had to slow down."
SCHEMA = {
    "type": "object",
    "properties": {"asset": {"type": "string", "enum": ["fan 15", "pump 2"]}},
    "required": ["asset"],
    "additionalProperties": False,
}
TOOL = {
    "type": "function",
    "function": {
        "name": "stop_machine",
        "parameters": {
            "type": "object",
            "properties": {"asset": {"type": "string", "enum": ["fan 15"]}},
            "required": ["asset"],
            "additionalProperties": False,
        },
    },
}
RICH = """## Why pump 25 is hot

It is at **81 °C**, see [the manual](https://example.org/a?b=1).

1. Grease it
   - with 15 g
2. Wait

| Sensor | Now |
|:--|--:|
| Bearing | 81 |

```python
print("<b>")
```
"""


@pytest.fixture(scope="module")
def babbler(tiny_llama: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny random model, which talks to the end of its context."""
    from flyweight.anatomy.gguf import LLAMA
    from flyweight.runtime.gguf import write_gguf

    file = tmp_path_factory.mktemp("babbler") / "babbler.gguf"
    write_gguf(tiny_llama, file, 8, LLAMA)
    return file


@pytest.fixture(scope="module")
def service(demo_model: Path, babbler: Path) -> Iterator[str]:
    """The address of a service with the demo's model, which answers sensibly, and the babbler."""
    with serving(demo_model, babbler, options=["--context", str(CONTEXT)]) as (address, _):
        yield f"{address}/"


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with sync_api.sync_playwright() as playwright:
        launched = playwright.chromium.launch(executable_path=CHROMIUM, args=ARGUMENTS)
        yield launched
        launched.close()


class Watched:
    """A page whose console and requests are watched."""

    def __init__(self, page: Page, address: str) -> None:
        self.page, self.address = page, address
        self.errors: list[str] = []
        self.outside: list[str] = []
        page.set_default_timeout(10_000)
        page.on("pageerror", lambda error: self.errors.append(str(error)))
        page.on("console", lambda said: self._said(said.type, said.text))
        page.on("request", lambda request: self._asked(request.url))

    def _said(self, kind: str, text: str) -> None:
        # That a request was refused is the browser's own note; the page has to show it anyway.
        if kind in ("error", "warning") and not text.startswith("Failed to load resource"):
            self.errors.append(text)

    def _asked(self, url: str) -> None:
        if not url.startswith((self.address, "data:", "blob:")):
            self.outside.append(url)

    def opened(self, model: str = "demo") -> Page:
        """The page, with its models known."""
        self.page.goto(self.address)
        expect(self.page.locator("#model .name")).not_to_be_empty()
        expect(self.page.locator(".welcome h2")).to_contain_text(re.compile("demo|babbler"))
        if model != "demo":
            choose(self.page, model)
        return self.page


@pytest.fixture
def watched(browser: Browser, service: str) -> Iterator[Watched]:
    context = browser.new_context(viewport={"width": 1280, "height": 800})
    found = Watched(context.new_page(), service)
    yield found
    context.close()
    assert found.errors == []
    assert found.outside == []


def choose(page: Page, model: str) -> None:
    page.locator("#model").click()
    page.locator(".choose", has_text=model).click()
    expect(page.locator("#models")).to_be_hidden()


def send(page: Page, text: str) -> None:
    page.locator("#draft").fill(text)
    page.locator("#draft").press("Enter")


def finished(page: Page) -> Any:
    """The last answer, once it is whole."""
    expect(page.locator("#stop")).to_be_hidden()
    return page.locator(".answer").last


def settings(page: Page, **values: str) -> None:
    page.locator("#open-settings").click()
    for name, value in values.items():
        if name == "form":
            page.locator(f"input[name=form][value={value}]").check()
        elif name == "tool_choice":
            page.locator("#tool_choice").select_option(value)
        else:
            page.locator(f"#{name}").fill(value)
    page.locator("#close-settings").click()


@contextmanager
def slow(page: Page, bytes_per_second: int) -> Iterator[None]:
    """A connection so slow that an answer can be seen to come."""
    session = page.context.new_cdp_session(page)
    conditions = {"offline": False, "latency": 0, "uploadThroughput": -1}
    session.send(
        "Network.emulateNetworkConditions", {**conditions, "downloadThroughput": bytes_per_second}
    )
    yield
    session.detach()


def until(page: Page, condition: str) -> None:
    """Waits for an expression; playwright's own way needs eval, which the page forbids."""
    for _ in range(200):
        if page.evaluate(condition):
            return
        page.wait_for_timeout(50)
    raise AssertionError(f"never: {condition}")


def answers(page: Page, *bodies: str | tuple[int, str, float | None]) -> list[dict[str, Any]]:
    """Has the next requests answered so, the last one for ever; returns what was asked."""
    asked: list[dict[str, Any]] = []
    left = list(bodies)

    def answer(route: Route) -> None:
        asked.append(json.loads(route.request.post_data or "{}"))
        body = left.pop(0) if len(left) > 1 else left[0]
        if isinstance(body, str):
            route.fulfill(status=200, content_type="text/event-stream", body=body)
            return
        status, code, wait = body
        error = {"message": "It is so.", "type": "error", "param": None, "code": code}
        headers = {} if wait is None else {"Retry-After": str(wait)}
        route.fulfill(status=status, headers=headers, json={"error": error})

    page.route(CHAT, answer)
    return asked


def said(text: str, tokens: int = 9) -> str:
    return sse(*({"content": text[at : at + 5]} for at in range(0, len(text), 5)), tokens=tokens)


def test_an_answer_is_streamed_measured_announced_and_kept(watched: Watched) -> None:
    page = watched.opened()
    settings(page, system="Write the work order.")
    send(page, ORDER)
    answer = finished(page)
    shown = json.loads(answer.locator("pre").inner_text())
    assert shown["asset"] == "fan 15"
    figures = answer.locator(".figures")
    assert re.search(r"\d+ tokens · .*first after \d.* · [\d.]+ [mµk]?J$", figures.inner_text())
    assert "at the chip" in (figures.get_attribute("title") or "")
    expect(page.locator("#announce")).to_contain_text("Answer finished")
    page.locator("#draft").fill("half a thought")
    page.reload()
    expect(page.locator(".person .text")).to_have_text(ORDER)
    expect(page.locator(".answer pre")).to_contain_text("fan 15")
    expect(page.locator("#draft")).to_have_value("half a thought")
    expect(page.locator("#system")).to_have_value("Write the work order.")


def test_the_keyboard_alone_sends_stops_retries_and_finds(watched: Watched) -> None:
    page = watched.opened("babbler")
    keys = page.keyboard
    with slow(page, 2000):
        keys.type("hello")
        keys.press("Shift+Enter")
        keys.type("pump")
        keys.press("Enter")
        expect(page.locator(".person .text")).to_have_text("hello\npump")
        expect(page.locator(".answer .prose")).not_to_be_empty()
        keys.press("Escape")
        answer = finished(page)
    expect(answer).to_contain_text("Stopped by you.")
    kept = answer.locator(".prose").inner_text()
    assert kept
    for _ in range(12):  # backwards from the box to the answer's buttons
        keys.press("Shift+Tab")
        if page.evaluate("document.activeElement.ariaLabel") == "Retry":
            break
    keys.press("Enter")
    whole = finished(page).locator(".prose").inner_text()
    assert len(whole) > len(kept)
    assert page.locator(".answer").count() == 1
    keys.press("Alt+KeyN")
    expect(page.locator(".welcome")).to_be_visible()
    keys.press("Control+k")
    keys.type("PUMP")
    keys.press("ArrowDown")
    keys.press("Enter")
    expect(page.locator(".person .text")).to_have_text("hello\npump")
    page.locator("#thread").focus()
    keys.press("?")
    expect(page.locator("#help")).to_be_visible()
    keys.press("Escape")
    expect(page.locator("#help")).to_be_hidden()


def test_what_came_is_followed_only_from_the_end(watched: Watched) -> None:
    page = watched.opened("babbler")
    place = "document.querySelector('#thread').scrollTop"
    page.set_viewport_size({"width": 400, "height": 240})
    with slow(page, 1000):
        send(page, "hello")
        until(page, f"{place} > 60")  # it follows
        page.evaluate(f"{place} = 0")
        before = len(page.locator(".prose").inner_text())
        until(page, f"document.querySelector('.prose').innerText.length > {before + 20}")
        assert page.evaluate(place) == 0
        page.locator("#to-end").click()
        assert page.evaluate(place) > 0
        page.keyboard.press("Escape")
        finished(page)


def test_what_fills_the_context_is_said_in_words(watched: Watched) -> None:
    page = watched.opened("babbler")
    send(page, "hello")  # it talks until its context is full
    expect(finished(page)).to_contain_text(f"fills all {CONTEXT} tokens")
    expect(page.locator("#notes")).to_contain_text("No room is left")
    send(page, "and now?")
    fault = page.locator(".fault")
    expect(fault).to_contain_text("The conversation no longer fits")
    fault.get_by_role("button", name="New conversation with this message").click()
    expect(page.locator("#draft")).to_have_value("and now?")
    expect(page.locator(".welcome")).to_be_visible()


def test_a_schema_is_checked_at_once_and_holds_the_answer(watched: Watched) -> None:
    page = watched.opened()
    settings(page, form="schema", schema='{"type": "object",\n "properties": {,}}')
    expect(page.locator("#notes")).to_contain_text("line 2")
    send(page, ORDER)
    expect(page.locator(".message")).to_have_count(0)  # nothing was sent
    page.locator("#open-settings").click()
    for wrong, told in (('{"type": "text"}', "unknown type"), ("[]", "A schema is an object")):
        page.locator("#schema").fill(wrong)
        expect(page.locator("#schema-validity")).to_contain_text(told)
    page.locator("#schema").fill(json.dumps(SCHEMA))
    expect(page.locator("#schema-validity")).to_have_text("Valid: an object with asset.")
    page.locator("#close-settings").click()
    page.locator("#draft").press("Enter")
    answer = finished(page)
    expect(answer.locator(".language")).to_have_text("JSON")
    shown = answer.locator("pre").inner_text()
    assert shown == json.dumps(json.loads(shown), indent=2)  # set out in lines
    assert json.loads(shown)["asset"] in SCHEMA["properties"]["asset"]["enum"]


def test_a_tool_call_waits_for_the_person_and_goes_on(watched: Watched) -> None:
    page = watched.opened()
    settings(page, tools=json.dumps([TOOL]), tool_choice="required", system="Use the tools.")
    asked: list[Any] = []
    page.on("request", lambda each: asked.append(each.post_data_json) if each.post_data else None)
    send(page, "stop fan 15")
    card = page.get_by_role("region", name="Tool call stop_machine")
    expect(card).to_contain_text("Waits for you")
    expect(card.locator(".arguments")).to_contain_text("fan 15")
    send(page, "never mind")
    assert len(asked) == 1  # a call has to be decided first
    card.get_by_role("button", name="Approve").click()
    card.get_by_label("Result of stop_machine").fill('{"ok":true}')
    card.get_by_role("button", name="Send result").click()
    expect(page.locator(".answer")).to_have_count(2)
    answer = finished(page)
    expect(answer.locator(".prose")).not_to_be_empty()
    expect(card).to_contain_text("Approved")
    assert asked[1]["messages"][-1]["content"] == '{"ok":true}'
    assert asked[1]["messages"][-1]["role"] == "tool"
    assert asked[1]["tool_choice"] == "auto"  # "required" would never end


def test_several_calls_are_decided_one_by_one(watched: Watched) -> None:
    page = watched.opened()
    first = call_pieces(0, "a", "read_sensor", '{"machine": "pump 25"}')
    second = call_pieces(1, "b", "stop_machine", '{"at": {"once": ["a\u202eb"]}}')
    asked = answers(page, sse(*first, *second, finish="tool_calls"), said("Done."))
    settings(page, tools=json.dumps([TOOL]))
    send(page, "both, please")
    cards = page.locator(".call")
    expect(cards).to_have_count(2)
    expect(cards.nth(1)).to_contain_text('"a\\u202eb"')  # nothing is approved unseen
    cards.nth(1).get_by_role("button", name="Decline").click()
    expect(cards.nth(1)).to_contain_text("Declined")
    assert len(asked) == 1
    cards.nth(1).get_by_role("button", name="Change").click()
    cards.nth(1).get_by_role("button", name="Decline").click()
    cards.nth(0).get_by_role("button", name="Approve").click()
    cards.nth(0).get_by_role("button", name="Send result").click()
    expect(page.locator(".answer").last).to_contain_text("Done.")
    results = {each["tool_call_id"]: each["content"] for each in asked[1]["messages"][-2:]}
    assert results["a"] == "done"
    assert "declined" in results["b"]
    assert [len(each["tool_calls"]) for each in asked[1]["messages"] if "tool_calls" in each] == [2]


def test_what_a_model_writes_is_text_and_runs_nothing(watched: Watched) -> None:
    page = watched.opened()
    attack = (
        '<script>window.hacked = 1</script> <img src=x onerror="window.hacked = 2"> <b>bold</b> '
        "[a](javascript:window.hacked=3) [b](data:text/html,x) ![p](https://evil.example/p.png) "
        "[good](https://example.org/a?b=1) **<i>x</i>** `<u>`\n\n"
        "| <s>a</s> |\n|--|\n| <s>b</s> |\n\n"
        "```<x>\n</code></pre><script>window.hacked = 4</script>\n```\n"
    )
    answers(page, said(attack))
    send(page, "attack")
    answer = finished(page)
    assert page.evaluate("window.hacked") is None
    for tag in ("script", "img", "b", "i", "u", "s", "iframe", "[onerror]", "[style]"):
        assert answer.locator(f".prose {tag}").count() == 0, tag
    expect(answer).to_contain_text("<script>window.hacked = 1</script>")
    links = answer.locator("a").evaluate_all("all => all.map(a => [a.href, a.rel, a.innerText])")
    assert [link[0] for link in links] == [
        "https://evil.example/p.png",
        "https://example.org/a?b=1",
    ]
    assert all("noopener" in rel and href in text for href, rel, text in links)


def test_a_growing_text_ends_as_the_whole_one_and_keeps_its_blocks(watched: Watched) -> None:
    page = watched.opened()
    differing = page.evaluate(
        """async (text) => {
          const { GrowingText } = await import("/page/growing.js");
          const { markdown } = await import("/page/markdown.js");
          const whole = document.createElement("div");
          whole.append(...markdown(text));
          return [1, 3, 7, 50].filter((step) => {
            const place = document.createElement("div");
            const growing = new GrowingText(place);
            let first = null;
            for (let at = step; at < text.length + step; at += step) {
              growing.show(text.slice(0, at));
              if (place.children.length > 1) first ??= place.children[0];
            }
            return place.innerHTML !== whole.innerHTML || place.children[0] !== first;
          });
        }""",
        RICH * 2,
    )
    assert differing == []


def test_hostile_and_long_answers_do_not_hold_up_the_page(watched: Watched) -> None:
    page = watched.opened()
    hostile = ["*" * 40000, "_a" * 20000, " `` " * 10000, "[" * 40000, "[a](" * 10000, ">" * 5000]
    hostile += ["- " * 20000, "```\n" * 10001, "|" * 40000, "https://a.b/" * 4000]
    hostile += ["\n".join("  " * depth + "- x" for depth in range(300))]
    spent = page.evaluate(
        """async (texts) => {
          const { markdown } = await import("/page/markdown.js");
          return texts.map((text) => {
            const start = performance.now();
            markdown(text);
            return performance.now() - start;
          });
        }""",
        hostile,
    )
    assert max(spent) < 1500, list(zip([text[:8] for text in hostile], spent, strict=True))
    answers(page, said(RICH * 180))  # about 10,000 tokens
    page.evaluate(
        """() => {
          window.longest = 0;
          new PerformanceObserver((list) => {
            const spent = list.getEntries().map((each) => each.duration);
            window.longest = Math.max(window.longest, ...spent);
          }).observe({ entryTypes: ["longtask"] });
        }"""
    )
    send(page, "at length")
    finished(page)
    assert page.locator(".prose table").count() == 180
    assert page.evaluate("window.longest") < 1500


FAULTS = {
    400: ("did not accept", "Settings"),
    403: ("does not allow", "Retry"),
    404: ("does not have this model", "Choose a model"),
    413: ("too long for the server", "New conversation"),
    415: ("did not understand", "Reload"),
    500: ("The server failed", "Retry"),
    503: ("cannot answer now", "Retry"),
    504: ("longer than the server allows", "Retry"),
}


def test_each_refusal_says_what_to_do(watched: Watched) -> None:
    page = watched.opened()
    fault = page.locator(".fault")
    for status, (told, action) in FAULTS.items():
        page.unroute(CHAT)
        answers(page, (status, "some_code", None))
        page.keyboard.press("Alt+KeyN")
        send(page, "hello")
        expect(fault).to_contain_text(told)
        expect(fault.get_by_role("button", name=action).first).to_be_visible()
    page.unroute(CHAT)
    fault.get_by_role("button", name="Retry").click()
    expect(fault).to_have_count(0)
    expect(finished(page).locator(".prose")).not_to_be_empty()


def test_a_busy_server_is_asked_again_after_a_countdown(watched: Watched) -> None:
    page = watched.opened()
    asked = answers(page, (429, "queue_full", 1), said("There you are."), (429, "queue_full", 60))
    send(page, "hello")
    expect(page.locator(".countdown")).to_contain_text(re.compile(r"Sent again in \d s"))
    expect(finished(page)).to_contain_text("There you are.")
    assert len(asked) == 2
    send(page, "once more")
    page.get_by_role("button", name="Do not send again").click()
    expect(page.locator(".countdown")).to_have_count(0)
    expect(page.locator(".fault").get_by_role("button", name="Retry")).to_be_visible()
    assert len(asked) == 3


def test_a_broken_stream_keeps_what_came(watched: Watched) -> None:
    page = watched.opened()
    late = {"message": "It took too long.", "type": "timeout_error", "code": "deadline_exceeded"}
    half = sse({"content": "Half an "}, {"content": "answer"}, finish=None)
    answers(page, half, f"{half}data: {json.dumps({'error': late})}\n\n", said("All of it."))
    send(page, "hello")
    for told in ("broke off", "longer than the server allows"):
        expect(page.locator(".fault")).to_contain_text(told)
        expect(page.locator(".answer .prose")).to_have_text("Half an answer")
        page.locator(".fault").get_by_role("button", name="Retry").click()
    expect(page.locator(".answer .prose")).to_have_text("All of it.")
    page.locator(".toast").get_by_role("button", name="Undo").click()
    expect(page.locator(".answer .prose")).to_have_text("Half an answer")


def test_a_server_that_went_is_found_again(browser: Browser, babbler: Path) -> None:
    with browser.new_context() as context:
        page = context.new_page()
        with serving(babbler) as (address, process):
            page.goto(address)
            expect(page.locator(".welcome h2")).to_have_text("babbler")
            process.kill()
            process.wait()
        send(page, "hello")
        expect(page.locator(".fault")).to_contain_text("The server does not answer")
        expect(page.locator("#notes")).to_contain_text("looks for it")
        with serving(babbler, options=["--port", address.rsplit(":", 1)[1]]):
            expect(page.locator(".answer .prose")).not_to_be_empty(timeout=15_000)
            expect(page.locator(".fault")).to_have_count(0)
            expect(page.locator("#notes")).not_to_contain_text("does not answer")


def test_a_server_beyond_the_machine_gets_its_key(
    browser: Browser, babbler: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from flyweight.serve.keys import make_key

    keys = tmp_path / "keys.json"
    monkeypatch.setenv("FLYWEIGHT_KEYS", str(keys))
    key = make_key("page", None, None)
    beyond = serving(babbler, options=["--host", "0.0.0.0"], keys=keys)
    with browser.new_context() as context, beyond as (address, _):
        page = context.new_page()
        page.goto(address.replace("0.0.0.0", "127.0.0.1"))
        dialog = page.get_by_role("dialog", name="This server asks for a key")
        expect(dialog).to_contain_text("flyweight key")
        page.keyboard.press("Escape")
        expect(page.locator("#notes")).to_contain_text("asks for a key")
        page.get_by_role("button", name="Enter the key").click()
        dialog.get_by_label("Key", exact=True).fill("fw-wrong")
        dialog.get_by_role("button", name="Use this key").click()
        expect(dialog).to_contain_text("does not know this key")
        dialog.get_by_label("Key", exact=True).fill(key)
        dialog.get_by_role("button", name="Use this key").click()
        expect(dialog).to_be_hidden()
        send(page, "hello")
        expect(finished(page).locator(".prose")).not_to_be_empty()
        stored = page.evaluate("[localStorage['flyweight.key'], sessionStorage['flyweight.key']]")
        assert stored == [None, key]  # gone with the tab, unless the person wants otherwise


def test_conversations_are_found_renamed_deleted_and_brought_back(watched: Watched) -> None:
    page = watched.opened()
    answers(page, said("The seal is *worn*."))
    for text in ("Why does pump 7 leak?", "Is oven 4 hot?"):
        page.keyboard.press("Alt+KeyN")
        send(page, text)
        finished(page)
    listed = page.locator("#conversations li")
    expect(listed).to_have_count(2)
    page.locator("#search").fill("seal leak")  # in two messages: not one
    expect(page.locator("#conversations")).to_contain_text("Nothing found")
    page.locator("#search").fill("PUMP leak")
    expect(listed).to_have_count(1)
    assert listed.locator("mark").all_inner_texts() == ["pump", "leak"]
    listed.locator(".open").click()
    expect(page.locator(".person .text")).to_have_text("Why does pump 7 leak?")
    page.locator("#search").fill("")
    more = page.get_by_role("button", name="More for Why does pump 7 leak?")
    more.click()
    page.keyboard.press("Enter")  # Rename comes first
    page.keyboard.type("Leaks <b>")
    page.keyboard.press("Enter")
    expect(page.locator("#conversations .current .title")).to_have_text("Leaks <b>")
    page.get_by_role("button", name="More for Leaks").click()
    page.get_by_role("menuitem", name="Delete").click()
    expect(listed).to_have_count(1)
    page.locator(".toast").get_by_role("button", name="Undo").click()
    expect(listed).to_have_count(2)
    expect(page.locator(".person .text")).to_have_text("Why does pump 7 leak?")


def test_conversations_leave_as_files_and_come_back(watched: Watched, tmp_path: Path) -> None:
    page = watched.opened()
    answers(page, said("The seal is *worn*."))
    send(page, "Why does pump 7 leak?")
    finished(page)

    def saved(opener: str, name: str) -> str:
        page.get_by_role("button", name=opener).click()
        with page.expect_download() as download:
            page.get_by_role("menuitem", name=name).click()
        target = tmp_path / download.value.suggested_filename
        download.value.save_as(target)
        return target.read_text(encoding="utf-8")

    text = saved("More for", "Save as Markdown")
    assert "## You\n\nWhy does pump 7 leak?\n\n## Answer\n\nThe seal is *worn*.\n" in text
    one = json.loads(saved("More for", "Save as JSON"))
    all_of_them = json.loads(saved("Save or bring back all", "Save all as JSON"))
    assert [each["id"] for each in one["conversations"]] == [
        each["id"] for each in all_of_them["conversations"]
    ]
    page.evaluate("localStorage.clear()")
    page.goto(watched.address)
    expect(page.locator("#conversations li")).to_have_count(0)
    for content, told in (("{", "not JSON"), ('{"a": 1}', "holds no conversations")):
        files = [{"name": "x.json", "mimeType": "application/json", "buffer": content.encode()}]
        page.locator("#import").set_input_files(files)  # type: ignore[arg-type]
        expect(page.locator(".toast")).to_contain_text(told)
    whole = json.dumps(all_of_them).encode()
    files = [{"name": "all.json", "mimeType": "application/json", "buffer": whole}]
    page.locator("#import").set_input_files(files)  # type: ignore[arg-type]
    expect(page.locator(".toast")).to_contain_text("1 conversation taken in")
    page.locator("#conversations .open").click()
    expect(page.locator(".answer em")).to_have_text("worn")


def test_a_message_is_edited_and_the_old_one_can_be_had_back(watched: Watched) -> None:
    page = watched.opened()
    asked = answers(page, said("First."), said("Second."))
    send(page, "one")
    finished(page)
    page.locator(".person").hover()
    page.get_by_role("button", name="Edit and send again").click()
    page.keyboard.press("Control+a")
    page.keyboard.type("two")
    page.keyboard.press("Enter")
    expect(page.locator(".answer .prose")).to_have_text("Second.")
    assert [each["content"] for each in asked[1]["messages"]] == ["two"]
    page.locator(".toast").get_by_role("button", name="Undo").click()
    expect(page.locator(".person .text")).to_have_text("one")
    expect(page.locator(".answer .prose")).to_have_text("First.")


def test_two_tabs_share_conversations(watched: Watched) -> None:
    page = watched.opened("babbler")
    other = page.context.new_page()
    other.goto(watched.address)
    with slow(page, 1200):
        send(page, "hello")
        until(page, "document.querySelector('.prose')?.innerText.length > 20")
        other.locator("#conversations .open").click()
        expect(other.locator(".answer")).to_contain_text("Being written in another tab.")
    expect(other.locator(".answer .figures")).to_contain_text("tokens")  # it has ended there
    page.locator(".answer").get_by_role("button", name="Copy the answer").click()
    expect(page.locator("#announce")).to_have_text("Copied")


def test_storage_that_is_full_is_said(watched: Watched) -> None:
    page = watched.opened()
    page.evaluate("() => { Storage.prototype.setItem = () => { throw new Error('full'); }; }")
    answers(page, said("Fine."))
    send(page, "hello")
    expect(finished(page)).to_contain_text("Fine.")
    expect(page.locator("#storage")).to_contain_text("keeps nothing more")


def test_settings_are_sent_and_wrong_ones_are_not(watched: Watched) -> None:
    page = watched.opened()
    asked = answers(page, said("Fine."))
    send(page, "hello")
    finished(page)
    assert asked[0]["temperature"] == 0  # as the model was judged
    assert not {"seed", "top_p", "max_completion_tokens", "tools"} & asked[0].keys()
    settings(page, temperature="0,5", top_p="0.9", max_tokens="40", seed="7")
    page.locator("#open-settings").click()
    page.locator("#temperature").fill("3")
    expect(page.locator("#temperature-problem")).to_have_text("From 0 to 2.")
    page.locator("#close-settings").click()
    send(page, "hello")
    finished(page)
    sent = {name: asked[1][name] for name in ("temperature", "top_p", "seed")}
    assert sent == {"temperature": 0.5, "top_p": 0.9, "seed": 7}
    assert asked[1]["max_completion_tokens"] == 40
    expect(page.locator("#modes")).to_contain_text("At most 40 tokens")


def describe_models(page: Page) -> None:
    """Has the server describe its models as fully as it may."""
    verdict = {"word": "falls short", "sentence": "It keeps 88 % of the teacher's score."}
    known = {"bytes": 677_000, "bits": 4, "parameters": 853_000, "context": 512, "loaded": False}
    known |= {"can": ["chat"], "teacher": "plant-8M", "bytes_ratio": 0.047, "verdict": verdict}
    known |= {"score": {"name": "Exact", "value": 0.948, "low": 0.931, "high": 0.962}}
    known |= {"examples": ["Fan 3 is loud"], "system": "Write the order.", "one_turn": True}
    other = {"can": ["embeddings"], "bytes": 22_000_000, "loaded": True, "verdict": None}
    data = [{"id": "demo", "flyweight": known}, {"id": "vectors", "flyweight": other}]
    page.route("**/v1/models", lambda route: route.fulfill(json={"object": "list", "data": data}))


def test_models_are_told_apart_by_size_verdict_and_ability(watched: Watched) -> None:
    page = watched.page
    describe_models(page)
    watched.opened()
    expect(page.locator(".welcome")).to_contain_text("It keeps 88")
    asked = answers(page, said("Fine."))
    page.get_by_role("button", name="Fan 3 is loud").click()
    page.locator("#draft").press("Enter")
    finished(page)
    system = {"role": "system", "content": "Write the order."}
    assert asked[0]["messages"][0] == system
    send(page, "and fan 4")  # by itself, as the model was judged
    finished(page)
    assert asked[1]["messages"] == [system, {"role": "user", "content": "and fan 4"}]
    page.locator("#open-settings").click()
    page.get_by_label("Answer each message by itself").uncheck()
    page.locator("#close-settings").click()
    send(page, "and fan 5")
    finished(page)
    assert [each["role"] for each in asked[2]["messages"]] == [
        "system",
        *["user", "assistant"] * 2,
        "user",
    ]
    page.locator("#model").click()
    first, second = page.locator(".model").all()
    for told in ("677 kB · 4 bits · 1/21 of its teacher", "Falls short", "512 tokens", "in use"):
        expect(first).to_contain_text(
            told.replace("677 kB", "677\u00a0kB").replace("4 b", "4\u00a0b")
        )
    assert first.locator(".verdict svg path").get_attribute("d")  # a shape, not only a colour
    second.locator(".choose").click()
    expect(page.locator("#notes")).to_contain_text("vectors cannot chat; it is for embeddings.")
    send(page, "hello")
    assert len(asked) == 3


def visit(page: Page) -> Iterator[str]:
    """Every state of the page, one after the other, by its name."""
    expect(page.locator(".welcome .verdict")).to_be_visible()
    yield "empty"
    answers(page, said(RICH))
    send(page, "Why is pump 25 hot?")
    finished(page)
    yield "finished"
    page.unroute(CHAT)
    answers(
        page, sse(*call_pieces(0, "a", "stop_machine", '{"asset": "fan 15"}'), finish="tool_calls")
    )
    send(page, "stop it")
    page.get_by_role("button", name="Approve").click()
    yield "call"
    page.keyboard.press("Alt+KeyN")
    page.unroute(CHAT)
    answers(page, (429, "queue_full", 60))
    send(page, "hello")
    expect(page.locator(".countdown")).to_be_visible()
    yield "fault"
    page.keyboard.press("Escape")
    page.locator("#open-settings").click()
    page.locator("input[name=form][value=schema]").check()
    page.locator("#schema").fill("{")
    page.locator("#temperature").fill("9")
    yield "settings"
    page.locator("#close-settings").click()
    page.locator("#model").click()
    yield "models"
    page.keyboard.press("Escape")
    page.unroute(CHAT)
    answers(page, (401, "invalid_api_key", None))
    page.keyboard.press("Alt+KeyR")
    expect(page.locator("#key")).to_be_visible()
    yield "key"
    page.keyboard.press("Escape")
    page.keyboard.press("Control+k")
    page.keyboard.type("pump")
    yield "search"
    page.keyboard.press("Escape")
    page.locator("#conversations .current .icon-button").click()
    yield "menu"
    page.get_by_role("menuitem", name="Delete").click()
    yield "deleted"
    page.locator("#sidebar").get_by_role("button", name="Shortcuts and help").click()
    yield "help"


STATES = ["empty", "finished", "call", "fault", "settings", "models", "key", "search", "menu",
          "deleted", "help"]  # fmt: skip


@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize("width", [1280, 320])
def test_every_state_can_be_read_named_and_touched(
    browser: Browser, service: str, theme: Any, width: int
) -> None:
    phone = width < 400
    context = browser.new_context(
        viewport={"width": width, "height": 700},
        color_scheme=theme,
        has_touch=phone,
        reduced_motion="reduce",
    )
    found = Watched(context.new_page(), service)
    describe_models(found.page)
    found.page.goto(service)
    seen = []
    for state in visit(found.page):
        seen.append(state)
        colours = found.page.evaluate(CONTRAST)
        assert colours["poor"] == [], state
        assert colours["seen"] > 5, state
        names = found.page.evaluate(NAMELESS)
        assert names["nameless"] == [], state
        assert names["seen"] > 3, state
        assert found.page.evaluate(WIDER) == [], state
        if phone:
            assert found.page.evaluate(SMALL) == [], state
    assert seen == STATES
    dark = found.page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert dark == {"light": "rgb(255, 255, 255)", "dark": "rgb(20, 24, 26)"}[theme]
    assert found.errors == []
    assert found.outside == []
    context.close()


def test_the_theme_can_be_chosen_against_the_system(watched: Watched) -> None:
    page = watched.opened()
    expect(page.locator("html")).to_have_attribute("data-theme", "light")
    for _ in range(2):  # as the system, light, dark
        page.locator("#theme").click()
    expect(page.locator("html")).to_have_attribute("data-theme", "dark")
    page.reload()
    expect(page.locator("html")).to_have_attribute("data-theme", "dark")


def test_what_moves_stands_still_where_that_is_wished(watched: Watched) -> None:
    page = watched.opened()
    moving = "getComputedStyle(document.querySelector('.pulse i')).animationName"
    page.route(CHAT, lambda route: None)  # an answer that never begins
    send(page, "hello")
    assert page.evaluate(moving) == "pulse"
    page.emulate_media(reduced_motion="reduce")
    assert page.evaluate(moving) == "none"
    page.keyboard.press("Escape")
    expect(finished(page)).to_contain_text("Stopped by you.")


def test_the_page_is_small_modules_that_parse_no_html() -> None:
    files = sorted(PAGE.iterdir())
    assert {"index.html", "style.css", "app.js"} <= {each.name for each in files}
    for path in files:
        text = path.read_text(encoding="utf-8")
        assert len(text.splitlines()) <= 300, path.name
        assert not re.search(r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|eval\(", text)
        assert not re.search(r"""\bstyle=["']|<script>|\son\w+=["']""", text), path.name
        if path.suffix == ".js":
            assert not re.search(r"""["'`(]https?://(?!/)\w""", text.replace("www.w3.org", "")) or (
                "http://www.w3.org/2000/svg" in text
            ), path.name

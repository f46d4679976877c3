"""A real browser on the page of a real service, and what is asked of every state of the page."""

from __future__ import annotations

import json
import shutil
from typing import Any

CHROMIUM = shutil.which("chromium") or "/usr/bin/chromium"
ARGUMENTS = [
    "--no-sandbox",  # tests run as root in containers
    "--disable-gpu",
    "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1",  # nothing outside is reached
]

# Text whose colours are too near each other, by WCAG 2.2: 4.5, or 3 for large text. What is drawn
# behind it is painted on a canvas, so that transparent and mixed colours count as they are seen.
CONTRAST = """
() => {
  const canvas = document.createElement("canvas");
  const paint = canvas.getContext("2d", { willReadFrequently: true });
  const light = (pixel) => {
    const part = (value) =>
      (value /= 255) <= 0.03928 ? value / 12.92 : ((value + 0.055) / 1.055) ** 2.4;
    return 0.2126 * part(pixel[0]) + 0.7152 * part(pixel[1]) + 0.0722 * part(pixel[2]);
  };
  const poor = [];
  let seen = 0;
  const texts = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  while (texts.nextNode()) {
    const element = texts.currentNode.parentElement;
    const style = getComputedStyle(element);
    const box = element.getBoundingClientRect();
    if (!texts.currentNode.data.trim() || box.width < 2) continue;
    if (!element.checkVisibility({ opacityProperty: true, visibilityProperty: true })) continue;
    if (element.closest("[disabled], [aria-disabled=true], option, .unseen, .skip")) continue;
    const above = document.querySelector("dialog[open]");
    if (above && !above.contains(element)) continue; // under the backdrop
    const behind = [];
    for (let each = element; each; each = each.parentElement) {
      behind.unshift(getComputedStyle(each).backgroundColor);
    }
    for (const color of ["white", ...behind]) {
      paint.fillStyle = color;
      paint.fillRect(0, 0, 1, 1);
    }
    const back = light(paint.getImageData(0, 0, 1, 1).data);
    paint.fillStyle = style.color;
    paint.fillRect(0, 0, 1, 1);
    const front = light(paint.getImageData(0, 0, 1, 1).data);
    const ratio = (Math.max(back, front) + 0.05) / (Math.min(back, front) + 0.05);
    const size = parseFloat(style.fontSize);
    const large = size >= 24 || (size >= 18.66 && style.fontWeight >= 700);
    seen += 1;
    const words = texts.currentNode.data.trim().slice(0, 40);
    if (ratio < (large ? 3 : 4.5)) poor.push([words, ratio.toFixed(2)]);
  }
  return { seen, poor };
}
"""

# Controls that a screen reader could not name; a placeholder or a tooltip is no name.
NAMELESS = """
() => {
  const kinds = "button, a, input, textarea, select, [tabindex='0'], [role=menuitem]";
  const controls = [...document.querySelectorAll(kinds)];
  const shown = controls.filter((each) => each.checkVisibility({ visibilityProperty: true }));
  const byId = (id) => document.getElementById(id)?.textContent ?? "";
  const byIds = (ids) => ids.split(" ").map(byId).join(" ");
  const name = (each) =>
    each.getAttribute("aria-label") ||
    byIds(each.getAttribute("aria-labelledby") ?? "").trim() ||
    [...(each.labels ?? [])].map((label) => label.textContent).join(" ") ||
    (["INPUT", "TEXTAREA", "SELECT"].includes(each.tagName) ? "" : each.textContent);
  const nameless = shown.filter((each) => !name(each).trim());
  return { seen: shown.length, nameless: nameless.map((each) => each.outerHTML.slice(0, 120)) };
}
"""

# Controls smaller than a fingertip: less than 44 pixels high or wide. Links within text may be.
SMALL = """
() => [...document.querySelectorAll("button, select, textarea, input, .radios label, .check")]
  .filter((each) => each.checkVisibility({ visibilityProperty: true }))
  .filter((each) => !["radio", "checkbox"].includes(each.type)) // their labels count
  .map((each) => [each.id || each.className || each.textContent, each.getBoundingClientRect()])
  .filter(([, box]) => box.width && (box.height < 43.5 || box.width < 43.5))
  .map(([name, box]) => `${name}: ${box.width} x ${box.height}`)
"""

# What sticks out at the sides of the window; code and tables scroll by themselves.
WIDER = """
() => [...document.querySelectorAll("body *")]
  .filter((each) => each.checkVisibility({ visibilityProperty: true }))
  .filter((each) => !each.closest("pre, .scroll, .unseen, .skip"))
  .filter((each) => {
    const { left, right } = each.getBoundingClientRect();
    return left < -1 || right > innerWidth + 1;
  })
  .map((each) => `${each.tagName}.${each.className}#${each.id}`)
  .concat(document.documentElement.scrollWidth > innerWidth ? ["the page scrolls sideways"] : [])
"""


def sse(*deltas: dict[str, Any], finish: str | None = "stop", tokens: int = 9) -> str:
    """The events of a streamed answer; `finish` None breaks it off."""
    events: list[dict[str, Any]] = [
        {"choices": [{"index": 0, "delta": each, "finish_reason": None}]} for each in deltas
    ]
    if finish is None:
        return "".join(f"data: {json.dumps(each)}\n\n" for each in events)
    events.append({"choices": [{"index": 0, "delta": {}, "finish_reason": finish}]})
    usage = {"prompt_tokens": 5, "completion_tokens": tokens, "total_tokens": 5 + tokens}
    events.append({"choices": [], "usage": usage})
    return "".join(f"data: {json.dumps(each)}\n\n" for each in events) + "data: [DONE]\n\n"


def call_pieces(index: int, call_id: str, name: str, arguments: str) -> list[dict[str, Any]]:
    """A tool call as it is streamed: its name first, then its arguments in pieces."""
    begun = {"index": index, "id": call_id, "type": "function", "function": {"name": name}}
    half = len(arguments) // 2
    parts = [{"index": index, "function": {"arguments": arguments[:half]}}]
    parts += [{"index": index, "function": {"arguments": arguments[half:]}}]
    return [{"tool_calls": [each]} for each in [begun, *parts]]

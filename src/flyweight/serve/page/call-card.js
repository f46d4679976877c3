// A tool call of the model: shown whole, decided by the person. The page runs nothing.
import { button, h, icon } from "./dom.js";
import { codeBlock } from "./markdown.js";
import { GrowingJson } from "./growing.js";
import { visible } from "./words.js";

const DECLINED = JSON.stringify({ error: "The person declined this call." });
const NOTHING_SAID = "done";

/** Arguments: simple ones as a list of names and values, others as JSON. */
function argumentsBlock(text) {
  let value;
  try {
    value = JSON.parse(text || "{}");
  } catch {
    return codeBlock("Arguments, not valid JSON", visible(text));
  }
  const entries = Object.entries(value ?? {});
  if (!entries.length) return h("p", { class: "note" }, "Without arguments.");
  const simple = !Array.isArray(value) && entries.every(([, each]) => each === null || typeof each !== "object");
  if (simple) {
    const rows = entries.map(([name, each]) => h("div", {}, h("dt", {}, visible(name)), h("dd", {}, visible(String(each)))));
    return h("dl", { class: "arguments" }, ...rows);
  }
  const place = h("div");
  new GrowingJson(place).show(visible(text));
  place.querySelector(".language").textContent = "Arguments";
  return place;
}

function state(picture, word, kind) {
  return h("span", { class: `state ${kind}` }, icon(picture), word);
}

/** The card of a call that was decided; `onchange` undoes that, as long as the model waits. */
function decidedCard(call, result, onchange) {
  const approved = result.decision === "approved";
  const parts = [approved ? codeBlock("Result given", result.content) : null];
  if (onchange) parts.push(button("Change", "pencil", onchange, { class: "quiet" }));
  return [approved ? state("check", "Approved", "good") : state("close", "Declined", "soft"), ...parts];
}

function openCard(call, ondecide) {
  const name = call.function.name;
  const area = h("textarea", { rows: "4", id: `result-${call.id}`, spellcheck: "false" });
  const entry = h(
    "div",
    { class: "entry", hidden: true },
    h("label", { for: area.id }, `Result of ${name}, as text or JSON`),
    area,
    h("p", { class: "note" }, `Left empty, the model is told “${NOTHING_SAID}”.`),
    h(
      "div",
      { class: "row" },
      button("Send result", "send", () => ondecide("approved", area.value.trim() || NOTHING_SAID), { class: "primary" }),
      button("Back", null, () => reveal(false)),
    ),
  );
  const choice = h(
    "div",
    { class: "row" },
    button("Approve", "check", () => reveal(true), { class: "primary", "aria-label": `Approve ${name}` }),
    button("Decline", "close", () => ondecide("declined", DECLINED), { "aria-label": `Decline ${name}` }),
  );
  const note = h("p", { class: "note" },
    "Nothing is run by this page. If you approve, do it yourself and give the result.");
  const reveal = (open) => {
    entry.hidden = !open;
    choice.hidden = note.hidden = open;
    (open ? area : choice.firstChild).focus();
  };
  area.addEventListener("keydown", (event) => {
    if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) entry.querySelector("button").click();
  });
  return [state("wait", "Waits for you", "open"), note, choice, entry];
}

/** The card of a call: still coming, waiting for the person, or decided. */
export function callCard(call, { growing, result, ondecide, onchange }) {
  const name = visible(call.function.name) || "…";
  let [badge, ...parts] = [state("wait", "Being written", "soft")];
  if (result) [badge, ...parts] = decidedCard(call, result, onchange);
  else if (!growing) [badge, ...parts] = openCard(call, ondecide);
  return h(
    "section",
    { class: "card call", "aria-label": `Tool call ${name}` },
    h("header", {}, icon("tool"), h("span", {}, "The model asks to call ", h("code", {}, name)), badge),
    growing
      ? h("pre", { tabindex: "0", "aria-label": "Arguments so far" }, h("code", {}, call.function.arguments))
      : argumentsBlock(call.function.arguments),
    ...parts,
  );
}

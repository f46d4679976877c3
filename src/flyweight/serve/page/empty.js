// Before the first message: what this model is for, how good it was found, what to try.
import { picture } from "./api.js";
import { h, icon } from "./dom.js";
import { session } from "./session.js";
import { count, facts, together } from "./words.js";

const NO_VERDICT = "This model runs here. Nothing that you write leaves the server.";
const pictures = new Map(); // address -> promise of its data

/** A verdict as a shape, a word and a colour. */
export function verdictPill(verdict) {
  if (!verdict?.word) return null;
  const shape = ["passes", "falls short"].includes(verdict.word) ? verdict.word : "cannot tell";
  const word = verdict.word[0].toUpperCase() + verdict.word.slice(1);
  return h("span", { class: `verdict ${shape.replace(" ", "-")}` }, icon(shape), h("span", {}, word));
}

/** The picture of what an answer costs, where the server has one. */
export function sticker(model) {
  const address = model.flyweight?.sticker;
  if (typeof address !== "string" || !address) return null;
  const image = h("img", { class: "sticker", alt: `Sticker of ${model.id}: what an answer costs` });
  if (!pictures.has(address)) pictures.set(address, picture(address));
  pictures.get(address).then((source) => (image.src = source)).catch(() => image.remove());
  image.addEventListener("error", () => image.remove());
  return image;
}

function examples(model) {
  const given = model.flyweight?.examples;
  if (!Array.isArray(given) || !given.length) return null;
  const prompts = given.filter((prompt) => typeof prompt === "string" && prompt.trim()).slice(0, 3);
  const use = (prompt) => session.emit("prompt", prompt);
  const buttons = prompts.map((prompt) =>
    h("li", {}, h("button", { type: "button", class: "example", onclick: () => use(prompt) }, prompt)));
  return h("section", { "aria-label": "Examples" }, h("h3", {}, "For example"), h("ul", { class: "examples" }, ...buttons));
}

/** The score as a sentence: "Exact answers on its own test: 95 % (between 94 % and 97 %)" */
export function scoreLine(score) {
  if (!score || !Number.isFinite(score.value)) return null;
  const percent = (value) => `${Number((value * 100).toFixed(1))} %`;
  const limits = Number.isFinite(score.low) ? ` (between ${percent(score.low)} and ${percent(score.high)})` : "";
  return together(`${score.name}: ${percent(score.value)}${limits}`);
}

/** What stands in an empty conversation. */
export function emptyState() {
  const { model, server } = session;
  if (!model) {
    const told = {
      ok: "This server has no model.",
      locked: "This server asks for a key.",
      draining: "The server is shutting down.",
      gone: "The server does not answer.",
    };
    return h("div", { class: "welcome" }, h("h2", {}, told[server] ?? "Asking the server for its models…"));
  }
  const known = model.flyweight ?? {};
  const line = [...facts(model), known.context ? `reads ${count(known.context)} tokens at once` : null];
  return h(
    "div",
    { class: "welcome" },
    verdictPill(known.verdict),
    h("h2", {}, h("bdi", {}, model.id)),
    known.task ? h("p", { class: "lead" }, known.task) : null,
    h("p", { class: known.task ? "" : "lead" }, together(known.verdict?.sentence ?? NO_VERDICT)),
    h("p", { class: "note" }, line.filter(Boolean).join(" · ")),
    scoreLine(known.score) ? h("p", { class: "note" }, scoreLine(known.score)) : null,
    examples(model),
    sticker(model),
  );
}

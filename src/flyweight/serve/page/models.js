// Which model answers: the button in the header, and the dialog that lists them.
import { byId, h, icon, toDraft } from "./dom.js";
import { scoreLine, sticker, verdictPill } from "./empty.js";
import { learn } from "./server.js";
import { session } from "./session.js";
import { count, facts, quantity, together } from "./words.js";

const CAN = {
  chat: "chat",
  completions: "plain completion",
  embeddings: "embeddings",
  tools: "tools",
  json_schema: "JSON by a schema",
};

/** Why the model cannot chat, or an empty text if it can. */
export function cannotChat(model) {
  const can = model?.flyweight?.can;
  if (!Array.isArray(can) || can.includes("chat")) return "";
  const does = can.map((each) => CAN[each] ?? each).join(", ");
  return `${model.id} cannot chat${does ? `; it is for ${does}` : ""}. Choose another model.`;
}

function modelCard(model, choose) {
  const known = model.flyweight ?? {};
  const current = session.model?.id === model.id;
  const tag = current ? h("span", { class: "tag" }, icon("check"), "in use") : null;
  const can = (known.can ?? []).map((each) => CAN[each] ?? each).join(", ");
  const rows = [
    ["Teacher", known.teacher],
    ["Parameters", known.parameters ? quantity(known.parameters) : null],
    ["Reads at once", known.context ? `${count(known.context)} tokens` : null],
    ["Can do", can || null],
    ["Now", known.loaded === undefined ? null : known.loaded ? "loaded" : "loaded when first used"],
  ].filter(([, value]) => value);
  return h(
    "li",
    { class: current ? "model current" : "model" },
    h(
      "button",
      { type: "button", class: "choose", "aria-pressed": String(current), onclick: () => choose(model.id) },
      h("span", { class: "top" }, h("strong", {}, model.id), tag, verdictPill(known.verdict)),
      h("span", { class: "size" }, facts(model).join(" · ")),
      known.verdict?.sentence ? h("span", { class: "sentence" }, together(known.verdict.sentence)) : null,
    ),
    h("div", { class: "more" },
      scoreLine(known.score) ? h("p", { class: "note" }, scoreLine(known.score)) : null,
      h("dl", {}, ...rows.map(([name, value]) => h("div", {}, h("dt", {}, name), h("dd", {}, value)))),
      sticker(model)),
  );
}

function fill() {
  const choose = (id) => {
    byId("models").close();
    session.choose(id);
    toDraft();
  };
  byId("model-list").replaceChildren(...session.models.map((model) => modelCard(model, choose)));
}

function label() {
  const { model, conversation, server } = session;
  const name = model?.id ?? conversation.model;
  const gone = conversation.model && !model && session.models.length > 0;
  const small = model ? facts(model).slice(0, 2).join(" · ") : gone ? "not on this server now" : "";
  const none = server === "gone" ? "No server" : "No model";
  byId("model").replaceChildren(
    h("span", { class: "name" }, name || none),
    h("span", { class: "small" }, small),
    icon("down"),
  );
  const verdict = model?.flyweight?.verdict;
  const pill = conversation.messages.length ? verdictPill(verdict) : null; // else it stands below
  if (pill) byId("model").insertBefore(pill, byId("model").lastChild);
  byId("model").setAttribute("aria-label", `Model: ${[name || none, small, verdict?.word].filter(Boolean).join(", ")}. Change`);
}

/** Connects the button and the dialog. */
export function setUpModels() {
  const open = () => {
    fill();
    byId("models").showModal();
    learn(); // sizes stay, but what is loaded changes
  };
  byId("model").addEventListener("click", open);
  session.on("choose-model", open);
  session.on("models", () => byId("models").open && fill());
  session.on("models conversation server messages", label);
}

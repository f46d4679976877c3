// Where the person writes: the draft, sending, stopping, and what stands in the way.
import { byId, h, icon } from "./dom.js";
import { cannotChat } from "./models.js";
import { heldPicture, hold, wrongPicture } from "./picture.js";
import { session } from "./session.js";
import { modes, wrongSettings } from "./settings.js";
import { recall, remember, store } from "./store.js";
import { openCalls, toEnd } from "./thread.js";
import { ask, turn } from "./turn.js";
import { count } from "./words.js";

const LOW = 0.25; // share of the context that is left when the page begins to speak of it
const WORDS_PER_TOKEN = 0.75; // of English, by and large
const draftName = () => `draft.${store.get(session.conversation.id) ? session.conversation.id : "new"}`;

/** Fits the box to its text; what is more than a third of the window scrolls. */
function fit() {
  const area = byId("draft");
  area.style.height = "auto";
  area.style.height = `${area.scrollHeight + 2}px`;
}

/** Puts a text into the box. */
export function write(text) {
  byId("draft").value = text;
  remember(draftName(), text);
  fit();
  show();
  byId("draft").focus();
}

/** Why nothing can be sent just now, and what helps: [text, action, name]; null if all is well. */
function hindrance() {
  const { model, server, models } = session;
  const choose = ["Choose a model", () => session.emit("choose-model")];
  if (server === "locked") return ["This server asks for a key.", "Enter the key", () => session.emit("locked")];
  if (!model && models.length) return [`${session.conversation.model} is not on this server now.`, ...choose];
  if (!model && server === "ok") return ["The server has no model."];
  if (cannotChat(model)) return [cannotChat(model), ...choose];
  if (openCalls().length) return ["The model waits for your decision above."];
  const wrong = wrongSettings();
  if (wrong) return [wrong, "Open the settings", () => session.emit("show-settings")];
  return wrongPicture();
}

/** What is left of the context, once it runs low. */
function contextNote() {
  const most = session.model?.flyweight?.context;
  const last = session.conversation.messages.findLast((message) => message.role === "assistant");
  const used = last?.stats?.total;
  if (!most || !used || used < (1 - LOW) * most) return "";
  const left = Math.max(0, most - used);
  if (left < 8) return "No room is left in this conversation. Start a new one.";
  return `Room for about ${count(left * WORDS_PER_TOKEN)} more words, yours and the answer’s, in this conversation ` +
    `(${count(left)} of ${count(most)} tokens). Then start a new one.`;
}

function notes() {
  const found = [];
  if (session.server === "gone") {
    found.push(["bad", "warn", "The server does not answer. The page looks for it every few seconds."]);
  }
  if (session.server === "draining") {
    const ends = "The server is shutting down: it finishes what it does and takes nothing new.";
    found.push(["open", "wait", ends]);
  }
  if (turn.running && turn.running.conversation !== session.conversation) {
    found.push(["", "wait", "An answer is still being written in another conversation.", "Stop it", turn.running.stop]);
  }
  const hinder = turn.running ? null : hindrance();
  if (hinder) found.push(["open", "warn", ...hinder]);
  const context = contextNote();
  if (context) found.push(["open", "warn", context]);
  return found.map(([kind, picture, text, name, action]) => {
    const help = name ? h("button", { type: "button", class: "link", onclick: action }, name) : null;
    return h("p", { class: `note ${kind}` }, icon(picture), h("span", {}, text), help);
  });
}

function show() {
  const running = turn.running?.conversation === session.conversation;
  const elsewhere = turn.running && !running;
  const send = byId("send");
  send.hidden = running;
  byId("stop").hidden = !running;
  const nothing = byId("draft").value.trim() === "";
  send.setAttribute("aria-disabled", String(nothing || Boolean(elsewhere) || hindrance() !== null));
  const place = byId("notes");
  const fresh = notes();
  const same = place.textContent === fresh.map((each) => each.textContent).join("");
  if (!same) place.replaceChildren(...fresh);
  const open = () => session.emit("show-settings");
  const shown = modes().map((mode) => h("button", { type: "button", class: "mode", onclick: open }, mode));
  byId("modes").replaceChildren(...shown);
}

function submit(event) {
  event.preventDefault();
  const area = byId("draft");
  const content = area.value.trim();
  if (!content || turn.running || hindrance()) return;
  const name = draftName();
  const message = { role: "user", content, at: Date.now() };
  if (heldPicture()) message.image = heldPicture();
  session.conversation.messages.push(message);
  hold(null);
  area.value = "";
  remember(name, null);
  fit();
  toEnd();
  ask();
}

/** Connects the box. */
export function setUpComposer() {
  const area = byId("draft");
  byId("send").append(icon("send"));
  byId("stop").append(icon("stop"));
  byId("composer").addEventListener("submit", submit);
  byId("stop").addEventListener("click", () => {
    turn.running?.stop();
    area.focus();
  });
  area.addEventListener("keydown", (event) => {
    if (event.key !== "Enter" || event.shiftKey || event.isComposing) return;
    event.preventDefault();
    byId("composer").requestSubmit();
  });
  area.addEventListener("input", () => {
    remember(draftName(), area.value);
    fit();
    show();
  });
  session.on("conversation", () => {
    area.value = recall(draftName()) ?? "";
    fit();
    show();
  });
  session.on("models settings running settled decided server messages", show);
  session.on("prompt", write);
  session.on("fresh", ({ text, image }) => {
    session.start();
    if (image) hold(image);
    write(text);
  });
  addEventListener("resize", fit);
}

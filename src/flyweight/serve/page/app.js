// The page of `flyweight serve`: puts the parts together, and listens to the keys.
import { setUpComposer } from "./composer.js";
import { setUpDialogs } from "./dialogs.js";
import { byId, icon, toDraft, toast } from "./dom.js";
import { closeMenu } from "./menu.js";
import { setUpModels } from "./models.js";
import { setUpPicture } from "./picture.js";
import { look, watch } from "./server.js";
import { session } from "./session.js";
import { setUpSettings, showSettings } from "./settings.js";
import { setUpSidebar, showSidebar, titleOf } from "./sidebar.js";
import { store } from "./store.js";
import { render, setUpThread } from "./thread.js";
import { again, cancelWaiting, turn } from "./turn.js";

function startNew() {
  showSidebar(false);
  session.start();
  toDraft();
}

function search() {
  showSidebar(true);
  byId("search").focus();
  byId("search").select();
}

function retryLast() {
  const last = session.conversation.messages.at(-1);
  if (last?.role === "assistant" && !turn.running) again(last);
}

/** Escape closes what lies on top; with nothing there, it stops the answer. */
function escape() {
  if (closeMenu()) return;
  if (document.body.classList.contains("list-open")) showSidebar(false);
  else if (turn.running) turn.running.stop();
  else if (turn.waiting) cancelWaiting();
  else showSettings(false);
}

function onKey(event) {
  const typing = event.target.closest?.("input, textarea, select");
  const plain = !event.ctrlKey && !event.metaKey && !event.altKey;
  if (document.querySelector("dialog[open]")) return;
  const chord = (event.ctrlKey || event.metaKey) && !event.altKey && event.key.toLowerCase() === "k";
  const does = {
    Escape: escape,
    "/": plain && !typing ? search : null,
    "?": plain && !typing ? () => session.emit("help") : null,
  }[event.key];
  const settings = () => showSettings(byId("settings").hidden);
  const alts = { KeyN: startNew, KeyR: retryLast, Comma: settings };
  const alt = event.altKey && !event.ctrlKey && alts[event.code];
  const act = chord ? search : alt || does;
  if (!act) return;
  event.preventDefault();
  act();
}

/** The address names the open conversation, so that reloading and going back work. */
function followAddress() {
  const id = location.hash.slice(1);
  if (id !== session.conversation?.id && !session.open(id)) session.start();
}

function setUpAddress() {
  let before = null;
  const name = () => {
    const { conversation } = session;
    const hash = store.get(conversation.id) ? `#${conversation.id}` : "";
    // A conversation that gets its first message is no new place to go back from.
    const way = before === null || before === conversation.id ? "replaceState" : "pushState";
    if (location.hash !== hash) history[way](null, "", hash || location.pathname);
    before = conversation.id;
    document.title = `${titleOf(conversation)} · Flyweight`;
    byId("heading").textContent = titleOf(conversation);
  };
  session.on("conversation messages", name);
  store.addEventListener("change", name);
  addEventListener("hashchange", followAddress);
  addEventListener("popstate", followAddress);
  store.addEventListener("elsewhere", ({ detail: id }) => {
    if (id !== session.conversation.id || turn.running) return;
    // Another tab changed it: what is shown is what is kept.
    if (store.get(id)) session.conversation = store.get(id);
    render();
  });
}

function setUpHeader() {
  byId("open-list").append(icon("menu"));
  byId("open-list").addEventListener("click", () => showSidebar(!document.body.classList.contains("list-open")));
  byId("shade").addEventListener("click", () => showSidebar(false));
  byId("close-list").append(icon("close"));
  byId("close-list").addEventListener("click", () => showSidebar(false));
  byId("open-settings").append(icon("settings"));
  byId("new").append(icon("plus"));
  byId("new").append("New conversation");
  byId("new").addEventListener("click", startNew);
  byId("new-small").append(icon("plus"));
  byId("new-small").addEventListener("click", startNew);
  byId("skip").addEventListener("click", (event) => {
    event.preventDefault();
    byId("draft").focus();
  });
  for (const place of document.querySelectorAll("[data-close], #close-settings")) place.append(icon("close"));
}

setUpHeader();
setUpDialogs();
setUpModels();
setUpSettings();
setUpThread();
setUpComposer();
setUpPicture();
setUpSidebar();
setUpAddress();
document.addEventListener("keydown", onKey);
session.on("server", (state) => {
  if (state === "ok" && turn.waiting === null && session.conversation.messages.at(-1)?.fault?.kind === "gone") {
    toast("The server is back.");
  }
});
session.on("models", () => {
  // What was opened before the models were known takes the one used last.
  if (!session.conversation.messages.length && !session.conversation.model) session.start();
});
session.on("unlearned", (fault) => toast(`The server does not list its models. ${fault.message}`));
followAddress();
watch();
look();
toDraft();

// The list of conversations: open, search, rename, delete with a way back, export and import.
import { announce, button, byId, h, icon, toDraft, toast } from "./dom.js";
import { openMenu } from "./menu.js";
import { highlight, marked, search, wordsOf } from "./search.js";
import { session } from "./session.js";
import { recall, remember, store } from "./store.js";
import { elementOf } from "./thread.js";
import { exportJson, exportMarkdown, importJson } from "./transfer.js";
import { turn } from "./turn.js";
import { day, firstWords, plural } from "./words.js";

const THEMES = [[null, "system", "as the system"], ["light", "light", "light"], ["dark", "dark", "dark"]];
const narrow = matchMedia("(max-width: 760px)");

/** What a conversation is called: its title, or its first words. */
export function titleOf(conversation) {
  const first = conversation.messages.find((message) => message.role === "user");
  return conversation.title || firstWords(first?.content ?? "") || "New conversation";
}

/** Opens or closes the list where it covers the page. */
export function showSidebar(open) {
  document.body.classList.toggle("list-open", open);
  byId("open-list").setAttribute("aria-expanded", String(open));
  byId("column").inert = open && narrow.matches;
  byId("settings").inert = open && narrow.matches;
  if (open && narrow.matches) byId("close-list").focus();
  else if (byId("sidebar").contains(document.activeElement)) toDraft();
}

function rename(conversation) {
  const item = byId("conversations").querySelector(`[data-id="${conversation.id}"]`);
  const input = h("input", { type: "text", value: titleOf(conversation), "aria-label": "New name", maxlength: "200" });
  let done = false;
  const end = (keep) => {
    if (done) return;
    done = true;
    if (keep) conversation.title = input.value.trim();
    input.remove(); // the list is shown anew once nothing is typed in it
    store.save(conversation, false);
    byId("conversations").querySelector(`[data-id="${conversation.id}"] button`)?.focus();
  };
  input.addEventListener("blur", () => end(true));
  input.addEventListener("keydown", (event) => {
    if (event.key === "Enter") end(true);
    if (event.key !== "Escape") return;
    event.stopPropagation();
    end(false);
  });
  item.replaceChildren(input);
  input.focus();
  input.select();
}

function remove(conversation) {
  if (turn.running?.conversation === conversation) turn.running.stop();
  const open = session.conversation === conversation;
  const draft = recall(`draft.${conversation.id}`);
  store.remove(conversation.id);
  if (open) session.start();
  byId("new").focus();
  toast(`“${titleOf(conversation)}” was deleted.`, "Undo", () => {
    store.save(conversation, false);
    remember(`draft.${conversation.id}`, draft);
    if (open) session.open(conversation.id);
  });
}

function itemMenu(from, conversation) {
  openMenu(from, titleOf(conversation), [
    ["Rename", "pencil", () => rename(conversation)],
    ["Save as Markdown", "download", () => exportMarkdown({ ...conversation, title: titleOf(conversation) })],
    ["Save as JSON", "download", () => exportJson([conversation], titleOf(conversation))],
    ["Delete", "trash", () => remove(conversation)],
  ]);
}

function open(conversation, hit = null) {
  session.open(conversation.id);
  highlight(byId("messages"), hit?.words ?? []);
  if (narrow.matches) showSidebar(false);
  const message = hit && conversation.messages[hit.index];
  if (!message || message.role === "tool") return;
  elementOf(message).scrollIntoView({ block: "center" });
  elementOf(message).focus({ preventScroll: true });
}

function listItem(conversation, hit = null) {
  const current = conversation === session.conversation;
  const title = titleOf(conversation);
  const mark = (part) => (part.hit ? h("mark", {}, part.text) : part.text);
  const parts = (text) => (hit ? marked(text, hit.words).map(mark) : [text]);
  const opening = h(
    "button",
    { type: "button", class: "open", "aria-current": current ? "true" : null, onclick: () => open(conversation, hit) },
    h("span", { class: "title", dir: "auto" }, ...parts(title)),
    hit?.excerpt && hit.excerpt !== title ? h("span", { class: "excerpt", dir: "auto" }, ...parts(hit.excerpt)) : null,
  );
  const props = { hidden: true, "aria-haspopup": "menu", "aria-expanded": "false" };
  const more = button(`More for ${title}`, "more", () => itemMenu(more, conversation), props);
  return h("li", { "data-id": conversation.id, class: current ? "current" : null }, opening, more);
}

function grouped(conversations) {
  const groups = Map.groupBy ? Map.groupBy(conversations, ({ updated }) => day(updated)) : new Map();
  if (!Map.groupBy) {
    for (const each of conversations) {
      groups.set(day(each.updated), [...(groups.get(day(each.updated)) ?? []), each]);
    }
  }
  return [...groups].map(([name, members]) =>
    h("section", { "aria-label": name }, h("h2", {}, name), h("ul", {}, ...members.map((each) => listItem(each)))));
}

function show() {
  const place = byId("conversations");
  if (place.querySelector("input")) return; // a name is being typed
  const query = byId("search").value.trim();
  byId("storage").textContent = store.full
    ? "This browser keeps nothing more: its storage is full or blocked. Save what you need as a file, then delete old conversations."
    : "Kept only in this browser.";
  byId("storage").classList.toggle("bad", store.full);
  if (!query) {
    const all = store.all();
    place.replaceChildren(...(all.length ? grouped(all) : [h("p", { class: "note" }, "Conversations are listed here.")]));
    return;
  }
  const hits = search(store.all(), query);
  const found = hits.length ? `${plural(hits.length, "conversation")} found` : `Nothing found for “${query}”.`;
  place.replaceChildren(h("p", { class: "note" }, found), h("ul", {}, ...hits.map((hit) => listItem(hit.conversation, hit))));
  announce(found);
}

function themeButton() {
  const now = () => Math.max(0, THEMES.findIndex(([theme]) => theme === recall("theme")));
  const element = button("Theme", "system", () => {
    remember("theme", THEMES[(now() + 1) % THEMES.length][0]);
    document.dispatchEvent(new Event("theme"));
    label();
    announce(element.title);
  }, { hidden: true, id: "theme" });
  const label = () => {
    const [, picture, name] = THEMES[now()];
    element.replaceChildren(icon(picture));
    element.title = `Light or dark: ${name}`;
    element.setAttribute("aria-label", element.title);
  };
  label();
  return element;
}

async function takeIn(input) {
  const [file] = input.files;
  if (!file) return;
  try {
    const { taken, known } = await importJson(file);
    toast(`${plural(taken, "conversation")} taken in${known ? `; ${known} were here already` : ""}.`);
  } catch (error) {
    toast(error.message);
  }
  input.value = "";
}

/** Fills the list and connects it. */
export function setUpSidebar() {
  const picker = byId("import");
  picker.addEventListener("change", () => takeIn(picker));
  const data = button("Save or bring back all", "data", () =>
    openMenu(data, "All conversations", [
      ["Save all as JSON", "download", () => exportJson(store.all(), "flyweight-conversations")],
      ["Bring back from JSON…", "upload", () => picker.click()],
    ]), { hidden: true, "aria-haspopup": "menu", "aria-expanded": "false" });
  const help = button("Shortcuts and help", "help", () => session.emit("help"), { hidden: true });
  byId("foot").append(themeButton(), data, help);
  const input = byId("search");
  input.addEventListener("input", () => {
    show();
    highlight(byId("messages"), wordsOf(input.value));
  });
  input.addEventListener("keydown", (event) => {
    if (event.key === "Escape" && input.value) {
      event.stopPropagation();
      input.value = "";
      input.dispatchEvent(new Event("input"));
    } else if (event.key === "ArrowDown" || event.key === "Enter") {
      event.preventDefault();
      byId("conversations").querySelector("button.open")?.focus();
    }
  });
  byId("conversations").addEventListener("keydown", (event) => {
    if (!["ArrowDown", "ArrowUp"].includes(event.key) || !event.target.matches(".open")) return;
    event.preventDefault();
    const buttons = [...byId("conversations").querySelectorAll("button.open")];
    const to = buttons.indexOf(event.target) + (event.key === "ArrowDown" ? 1 : -1);
    (buttons[to] ?? (to < 0 ? input : event.target)).focus();
  });
  for (const name of ["change", "elsewhere"]) store.addEventListener(name, show);
  session.on("conversation", show);
  narrow.addEventListener("change", () => showSidebar(false));
  show();
}

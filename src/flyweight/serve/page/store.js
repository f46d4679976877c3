// Conversations in this browser's storage, one entry each, so that two tabs do not overwrite
// each other's; in memory only, saying so, where the browser keeps nothing.
const PREFIX = "flyweight.conversation.";
const ROLES = new Set(["user", "assistant", "tool"]);
const PICTURE = /^data:image\/(png|jpeg|webp|gif|bmp);base64,[\w+/=]+$/;
const LARGEST = 4e6; // characters of a picture
const DECISIONS = new Set(["approved", "declined"]);

export const DEFAULTS = Object.freeze({
  system: null, // null: the one that the model was judged with, if the server knows it
  alone: null, // each message by itself; null: as the model's task was, if the server knows it
  temperature: 0,
  top_p: 1,
  max_tokens: null,
  seed: null,
  form: "text",
  schema: "",
  tools: "",
  tool_choice: "auto",
});

/** An id that needs no secure context, unlike crypto.randomUUID. */
export function newId() {
  const bytes = crypto.getRandomValues(new Uint8Array(9));
  return Array.from(bytes, (byte) => byte.toString(16).padStart(2, "0")).join("");
}

/** Reads a small setting of the page; null where there is none. */
export function recall(name) {
  try {
    return localStorage.getItem(`flyweight.${name}`);
  } catch {
    return null;
  }
}

/** Keeps a small setting of the page; null removes it. False if the browser refuses. */
export function remember(name, value) {
  try {
    if (value === null || value === "") localStorage.removeItem(`flyweight.${name}`);
    else localStorage.setItem(`flyweight.${name}`, value);
    return true;
  } catch {
    return false;
  }
}

const text = (value, most = 1e6) => (typeof value === "string" ? value.slice(0, most) : "");
const number = (value) => (Number.isFinite(value) ? value : null);

/** Settings with only the known names and the right types. */
export function cleanSettings(raw) {
  const clean = { ...DEFAULTS };
  if (typeof raw !== "object" || raw === null) return clean;
  if (typeof raw.system === "string") clean.system = text(raw.system);
  if (typeof raw.alone === "boolean") clean.alone = raw.alone;
  for (const name of ["temperature", "top_p"]) clean[name] = number(raw[name]) ?? DEFAULTS[name];
  for (const name of ["max_tokens", "seed"]) clean[name] = number(raw[name]);
  if (["json", "schema"].includes(raw.form)) clean.form = raw.form;
  if (["required", "none"].includes(raw.tool_choice)) clean.tool_choice = raw.tool_choice;
  clean.schema = text(raw.schema);
  clean.tools = text(raw.tools);
  return clean;
}

function cleanCalls(raw) {
  if (!Array.isArray(raw)) return [];
  return raw.slice(0, 100).map((call) => ({
    id: text(call?.id, 200) || newId(),
    type: "function",
    function: { name: text(call?.function?.name, 200), arguments: text(call?.function?.arguments) },
  }));
}

function cleanMessage(raw, elsewhere) {
  if (!ROLES.has(raw?.role)) return null;
  const message = { role: raw.role, content: text(raw.content), at: number(raw.at) ?? Date.now() };
  const { image } = raw;
  if (raw.role === "user" && typeof image === "string" && image.length < LARGEST && PICTURE.test(image)) message.image = image;
  if (raw.role === "tool") {
    message.tool_call_id = text(raw.tool_call_id, 200);
    message.decision = DECISIONS.has(raw.decision) ? raw.decision : "approved";
  }
  if (raw.role === "assistant") {
    message.calls = cleanCalls(raw.calls ?? raw.tool_calls);
    message.state = text(raw.state, 20) || "finished";
    if (["running", "elsewhere"].includes(raw.state)) message.state = elsewhere ? "elsewhere" : "broken";
    message.model = text(raw.model, 500);
    message.json = raw.json === true;
    if (raw.stats && typeof raw.stats === "object") {
      message.stats = Object.fromEntries(Object.entries(raw.stats).filter(([, v]) => Number.isFinite(v)));
    }
    if (raw.fault && typeof raw.fault === "object") {
      const { status, kind, message: said, wait } = raw.fault;
      message.fault = { status: number(status), kind: text(kind, 30), message: text(said, 2000), wait: number(wait) };
    }
  }
  return message;
}

/** A conversation from outside or from storage, with nothing in it that the page does not know.

An answer that was being written has broken off, unless another tab is writing it (`elsewhere`). */
export function cleanConversation(raw, elsewhere = false) {
  if (typeof raw !== "object" || raw === null || !Array.isArray(raw.messages)) return null;
  const messages = raw.messages.map((message) => cleanMessage(message, elsewhere)).filter(Boolean);
  return {
    id: /^[\da-f]{18}$/.test(raw.id) ? raw.id : newId(),
    title: text(raw.title, 200),
    created: number(raw.created) ?? Date.now(),
    updated: number(raw.updated) ?? Date.now(),
    model: text(raw.model, 500),
    settings: cleanSettings(raw.settings),
    messages,
  };
}

class Store extends EventTarget {
  #conversations = new Map();
  full = false; // the browser refused to keep something

  constructor() {
    super();
    try {
      for (const key of Object.keys(localStorage).filter((key) => key.startsWith(PREFIX))) {
        this.#read(localStorage.getItem(key));
      }
    } catch {
      this.full = true;
    }
    addEventListener("storage", (event) => this.#fromOtherTab(event));
  }

  #read(raw, elsewhere = false) {
    try {
      const conversation = cleanConversation(JSON.parse(raw), elsewhere);
      if (conversation) this.#conversations.set(conversation.id, conversation);
      return conversation;
    } catch {
      return null; // half an entry is no reason to lose the others
    }
  }

  #fromOtherTab({ key, newValue }) {
    if (!key?.startsWith(PREFIX)) return;
    const id = key.slice(PREFIX.length);
    if (newValue === null) this.#conversations.delete(id);
    else this.#read(newValue, true);
    this.dispatchEvent(new CustomEvent("elsewhere", { detail: id }));
  }

  /** All of them, the one touched last first. */
  all() {
    return [...this.#conversations.values()].sort((a, b) => b.updated - a.updated);
  }

  get(id) {
    return this.#conversations.get(id) ?? null;
  }

  /** Keeps a conversation; true if the browser took it. */
  save(conversation, touched = true) {
    if (touched) conversation.updated = Date.now();
    this.#conversations.set(conversation.id, conversation);
    try {
      localStorage.setItem(PREFIX + conversation.id, JSON.stringify(conversation));
      this.full = false;
    } catch {
      this.full = true;
    }
    this.dispatchEvent(new Event("change"));
    return !this.full;
  }

  remove(id) {
    this.#conversations.delete(id);
    remember(`conversation.${id}`, null);
    remember(`draft.${id}`, null);
    this.dispatchEvent(new Event("change"));
  }
}

export const store = new Store();

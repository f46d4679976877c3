// What is open right now: the conversation, the models that the server has, and who listens.
import { DEFAULTS, cleanSettings, newId, recall, remember, store } from "./store.js";

class Session extends EventTarget {
  models = [];
  conversation = null;
  /** "unknown" until the server has answered once; then "ok", "locked", "draining" or "gone". */
  server = "unknown";

  emit(name, detail) {
    this.dispatchEvent(new CustomEvent(name, { detail }));
  }

  on(names, listener) {
    for (const name of names.split(" ")) {
      this.addEventListener(name, (event) => listener(event.detail));
    }
  }

  /** The model that the conversation talks to, as the server describes it; null if it has none. */
  get model() {
    const named = this.models.find((model) => model.id === this.conversation?.model);
    return named ?? (this.conversation?.messages.length ? null : (this.models[0] ?? null));
  }

  get settings() {
    return this.conversation.settings;
  }

  /** The system message that is sent: the person's, or the one that the model was judged with. */
  get system() {
    return this.settings.system ?? this.model?.flyweight?.system ?? "";
  }

  /** Whether each message is answered by itself: the person's wish, or as the model was judged. */
  get alone() {
    return this.settings.alone ?? this.model?.flyweight?.one_turn ?? false;
  }

  /** An empty conversation with the model and settings used last; kept once something is said. */
  start() {
    let settings = DEFAULTS;
    try {
      settings = cleanSettings(JSON.parse(recall("settings") ?? "{}"));
    } catch {
      // somebody else's entry: the defaults will do
    }
    const known = this.models.some((model) => model.id === recall("model"));
    this.conversation = {
      id: newId(),
      title: "",
      created: Date.now(),
      updated: Date.now(),
      model: known ? recall("model") : (this.models[0]?.id ?? ""),
      settings: { ...settings },
      messages: [],
    };
    this.emit("conversation");
  }

  open(id) {
    const conversation = store.get(id);
    if (conversation && conversation !== this.conversation) {
      this.conversation = conversation;
      this.emit("conversation");
    }
    return conversation !== null;
  }

  /** Keeps the open conversation, if there is anything in it. */
  keep(touched = true) {
    if (this.conversation.messages.length) store.save(this.conversation, touched);
  }

  /** Changes settings here and for conversations to come. */
  set(changes) {
    Object.assign(this.settings, changes);
    remember("settings", JSON.stringify(this.settings));
    this.keep(false);
    this.emit("settings");
  }

  choose(id) {
    this.conversation.model = id;
    remember("model", id);
    this.keep(false);
    this.emit("models");
  }
}

export const session = new Session();

// One message on the screen: the person's, or the model's with all that belongs to it.
import { serverKey } from "./api.js";
import { callCard } from "./call-card.js";
import { button, copy, h, icon } from "./dom.js";
import { tell } from "./faults.js";
import { wholeJson } from "./forms.js";
import { GrowingJson, GrowingText } from "./growing.js";
import { session } from "./session.js";
import { turn } from "./turn.js";
import { count, energy, plural, span, speed } from "./words.js";

/** The person's message; it can be copied, and edited and sent again. */
export function personView(message, { onresend }) {
  const words = h("div", { class: "text", dir: "auto" }, message.content);
  const seen = message.image ? h("img", { class: "seen", src: message.image, alt: "The picture that was sent" }) : null;
  const text = seen ? h("div", { class: "with-picture" }, seen, words) : words;
  const copying = button("Copy your message", "copy", () => copy(message.content, copying), { hidden: true });
  const editing = button("Edit and send again", "pencil", () => edit(), { hidden: true });
  const tools = h("div", { class: "tools" }, copying, editing);
  const element = h("article", { class: "message person", "aria-label": "You", tabindex: "-1" }, text, tools);
  const edit = () => {
    const area = h("textarea", { value: message.content, "aria-label": "Your message", rows: "3" });
    const close = () => {
      element.classList.remove("editing");
      element.replaceChildren(text, tools);
    };
    const cancel = () => {
      close();
      editing.focus();
    };
    const send = () => {
      if (area.value.trim() && onresend(message, area.value.trim())) close();
    };
    area.addEventListener("keydown", (event) => {
      if (event.key === "Escape") {
        event.stopPropagation();
        cancel();
      }
      if (event.key !== "Enter" || event.shiftKey || event.isComposing) return;
      event.preventDefault();
      send();
    });
    const sending = button("Send again", "send", send, { class: "primary" });
    const row = h("div", { class: "row" }, sending, button("Cancel", null, cancel));
    element.classList.add("editing");
    element.replaceChildren(area, row);
    area.focus();
  };
  element.edit = edit;
  return element;
}

/** What an answer cost, small: tokens, speed, and how long the first one took. */
function figures(message) {
  const { stats } = message;
  const parts = [];
  if (stats?.tokens) parts.push(plural(stats.tokens, "token"));
  if (stats?.speed) parts.push(`${speed(stats.speed)} tokens/s`);
  if (stats?.first) parts.push(`first after ${span(stats.first)}`);
  if (stats?.joules) parts.push(energy(stats.joules));
  if (!parts.length) return [];
  const told = ["Tokens counted by the server; times measured in this browser."];
  if (stats.whole) told.push("The speed is that of the whole answer, reading the message included.");
  if (stats.cached) told.push(`${count(stats.cached)} of ${count(stats.prompt)} tokens read were remembered from before.`);
  if (stats.joules) told.push(energyTold(stats));
  return [h("span", { class: "figures", title: told.join(" ") }, parts.join(" · "))];
}

function energyTold({ least, most, chip, measured }) {
  const known = measured ? "measured" : "modelled";
  return `Energy: all that the computer took meanwhile, ${energy(least)} to ${energy(most)} (assumed); at the chip ${energy(chip)} (${known}).`;
}

/** How many tokens the model of an answer reads at once, if it is still there to say so. */
const contextOf = (message) => session.models.find((model) => model.id === message.model)?.flyweight?.context;

/** How a text that has begun is shown; null while its first signs leave that open. */
function writerFor(text) {
  const begun = text.trimStart();
  if (begun === "" || begun === "{" || begun === "[") return null;
  // Plain text that is JSON all through is easier to read set out in lines.
  return /^(\{\s*["}]|\[\s*\{)/.test(begun) ? GrowingJson : GrowingText;
}

/** The model's answer: grows, then settles. */
export class AnswerView {
  #body = h("div", { class: "prose" });
  #calls = h("div", { class: "calls" });
  #end = h("div", { class: "end" });
  #writer = null;

  constructor(message, actions) {
    this.message = message;
    this.actions = actions;
    this.element = h("article", { class: "message answer", "aria-label": "Answer", tabindex: "-1" },
      this.#body, this.#calls, this.#end);
    if (message.state === "running") this.grow();
    else this.settle();
  }

  #pulse = h("p", { class: "pulse" }, h("i"), h("i"), h("i"), h("span", {}, ""));

  /** Shows what has come by now; called at most once a frame. */
  grow() {
    const { content, calls } = this.message;
    const Writer = this.message.json ? GrowingJson : writerFor(content);
    if (Writer) this.#writer ??= new Writer(this.#body);
    this.#writer?.show(content);
    this.#calls.replaceChildren(...calls.filter(Boolean).map((call) => callCard(call, { growing: true })));
    const waits = !content && calls.length === 0;
    if (waits) this.#end.replaceChildren(this.#pulse);
    else if (this.#end.firstChild) this.#end.replaceChildren();
  }

  /** Says, while nothing has come, what takes so long. */
  wait(text) {
    this.#pulse.lastChild.textContent = text;
  }

  /** Shows the answer as it stays, with its figures, its calls and what can be done with it. */
  settle() {
    const { message } = this;
    this.#settleText();
    this.#settleCalls();
    const end = [];
    if (message.state === "elsewhere") end.push(h("p", { class: "note" }, "Being written in another tab."));
    if (message.state === "stopped") end.push(h("p", { class: "note" }, "Stopped by you."));
    if (message.state === "cut") end.push(this.#cutNote());
    if (message.state === "finished" && !message.content && !message.calls.length) {
      end.push(h("p", { class: "note" }, "The model gave an empty answer."));
    }
    if (message.state === "broken" && !message.fault) message.fault = { kind: "broken", message: "" };
    if (message.fault) end.push(this.#faultCard());
    const copying = button("Copy the answer", "copy", () => copy(message.content, copying), { hidden: true });
    const retry = button("Retry", "retry", () => this.actions.retry(message), { hidden: true });
    const tools = [message.content ? copying : null, message.fault ? null : retry, ...figures(message)];
    end.push(h("div", { class: "tools" }, ...tools));
    this.#end.replaceChildren(...end);
  }

  #settleText() {
    const { content, json, state } = this.message;
    if (!content) return;
    const whole = wholeJson(content) !== undefined;
    const Writer = json || whole ? GrowingJson : GrowingText;
    if (!(this.#writer instanceof Writer)) {
      this.#body.replaceChildren(); // what looked like the one turned out to be the other
      this.#writer = new Writer(this.#body);
    }
    this.#writer.show(content);
    const name = this.#body.querySelector(".language");
    if (json && name) name.textContent = whole || state === "running" ? "JSON" : "JSON, not whole";
  }

  #settleCalls() {
    const cards = this.message.calls.map((call) => {
      const result = this.actions.resultOf(this.message, call);
      const open = this.actions.waits(this.message);
      return callCard(call, {
        result,
        ondecide: (decision, content) => this.actions.decide(this.message, call, decision, content),
        onchange: result && open ? () => this.actions.undecide(this.message, call) : null,
      });
    });
    this.#calls.replaceChildren(...cards);
  }

  #cutNote() {
    const most = session.settings.max_tokens;
    const { tokens } = this.message.stats ?? {};
    const own = most && tokens >= most;
    const context = contextOf(this.message);
    const full = context && this.message.stats?.total >= context;
    let why = "Cut at the server’s limit.";
    if (own) why = `Cut at ${plural(most, "token")}, the limit in your settings.`;
    else if (full) why = `Cut: this conversation fills all ${count(context)} tokens that the model reads at once.`;
    const change = button("Change the limit", "settings", () => this.actions.settings(), { class: "quiet" });
    return h("p", { class: "note" }, icon("warn"), `${why} `, own ? change : null);
  }

  /** Shows the seconds that are left until the message is sent again. */
  tick() {
    const place = this.element.querySelector(".countdown");
    if (place) place.textContent = this.#waitingText();
  }

  #waitingText() {
    const { until } = turn.waiting;
    if (until === null) return "Looking for the server…";
    const left = Math.max(0, Math.ceil((until - Date.now()) / 1000));
    return `Sent again in ${left} s.`;
  }

  #faultCard() {
    const { message, actions } = this;
    const context = contextOf(message);
    const { title, advice, actions: names } = tell(message.fault, { model: message.model, context, keyed: serverKey() !== "" });
    const waiting = turn.waiting?.message === message;
    const offered = {
      retry: ["Retry", "retry", () => actions.retry(message)],
      key: ["Enter the key", "key", () => actions.key()],
      new: ["New conversation with this message", "plus", () => actions.fresh(message)],
      edit: ["Shorten it", "pencil", () => actions.editLast(message)],
      models: ["Choose a model", "down", () => actions.models()],
      settings: ["Settings", "settings", () => actions.settings()],
      reload: ["Reload", "retry", () => location.reload()],
    };
    const buttons = names.map((name, index) => button(...offered[name], { class: index ? "" : "primary" }));
    if (waiting) {
      buttons[0].querySelector("span").textContent = "Retry now";
      buttons.push(button("Do not send again", "close", () => actions.cancel()));
    }
    return h(
      "section",
      { class: "card fault", role: "alert" },
      h("header", {}, icon("warn"), h("strong", {}, title)),
      h("p", {}, advice),
      waiting ? h("p", { class: "countdown", "aria-live": "off" }, this.#waitingText()) : null,
      h("div", { class: "row" }, ...buttons),
    );
  }
}

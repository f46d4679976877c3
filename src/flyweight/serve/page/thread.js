// The open conversation on the screen: which messages, what is decided, where it scrolls.
import { byId, h, icon, toDraft, toast } from "./dom.js";
import { emptyState } from "./empty.js";
import { AnswerView, personView } from "./message.js";
import { session } from "./session.js";
import { store } from "./store.js";
import { again, ask, cancelWaiting, turn } from "./turn.js";
import { span } from "./words.js";

const NEAR = 48; // pixels from the end that still count as being there
const PATIENCE = 1500; // ms without a token before the page says what it waits for
const views = new WeakMap(); // message -> AnswerView or element
let follow = true; // the person is at the end, and stays there
let frame = 0;
const grown = new Set();

/** The calls of the last answer that nobody has decided yet. */
export function openCalls(conversation = session.conversation) {
  const answer = conversation.messages.findLast((message) => message.role !== "tool");
  if (!answer?.calls?.length || answer.state === "running") return [];
  return answer.calls.filter((call) => !resultOf(answer, call, conversation));
}

function resultsAfter(answer, { messages }) {
  const after = messages.slice(messages.indexOf(answer) + 1);
  const end = after.findIndex((message) => message.role !== "tool");
  return end === -1 ? after : after.slice(0, end);
}

const resultOf = (answer, call, conversation = session.conversation) =>
  resultsAfter(answer, conversation).find((message) => message.tool_call_id === call.id);

/** Puts back the messages that a retry or an edit replaced. */
function offerUndo(text, conversation, before) {
  toast(text, "Undo", () => {
    if (turn.running?.conversation === conversation) turn.running.stop();
    cancelWaiting();
    conversation.messages = before;
    store.save(conversation);
    if (session.conversation === conversation) render();
    session.emit("running");
  });
}

const actions = {
  resultOf,
  waits: (answer) => openCalls().length > 0 && answer.calls.some((call) => openCalls().includes(call)),
  retry(message) {
    if (turn.running) return;
    const failed = message.state === "failed";
    const before = again(message);
    if (!failed) offerUndo("The answer is asked for anew.", session.conversation, before);
    toDraft();
  },
  decide(answer, call, decision, content) {
    const { messages } = session.conversation;
    const result = { role: "tool", content, tool_call_id: call.id, decision, at: Date.now() };
    messages.splice(messages.indexOf(answer) + 1 + resultsAfter(answer, session.conversation).length, 0, result);
    session.keep();
    if (openCalls().length === 0) {
      toDraft();
      ask();
    }
    views.get(answer).settle();
    session.emit("decided");
    if (openCalls().length) views.get(answer).element.querySelector(".call .row:not([hidden]) button")?.focus();
  },
  undecide(answer, call) {
    const { messages } = session.conversation;
    messages.splice(messages.indexOf(resultOf(answer, call)), 1);
    session.keep();
    views.get(answer).settle();
    session.emit("decided");
  },
  resend(message, content) {
    if (turn.running) return false;
    const { conversation } = session;
    const before = [...conversation.messages];
    conversation.messages.splice(conversation.messages.indexOf(message));
    const { image } = message;
    conversation.messages.push({ role: "user", content, at: Date.now(), ...(image ? { image } : {}) });
    offerUndo("The message was replaced, and what followed it.", conversation, before);
    toDraft();
    ask();
    return true;
  },
  editLast(answer) {
    const { messages } = session.conversation;
    const last = messages.slice(0, messages.indexOf(answer)).findLast((message) => message.role === "user");
    if (last) views.get(last).edit();
  },
  fresh(answer) {
    const { messages } = session.conversation;
    const last = messages.slice(0, messages.indexOf(answer)).findLast((message) => message.role === "user");
    const image = messages.find((message) => message.image)?.image;
    session.emit("fresh", { text: last?.content ?? "", image });
  },
  key: () => session.emit("locked", true),
  models: () => session.emit("choose-model"),
  settings: () => session.emit("show-settings"),
  cancel() {
    cancelWaiting();
    toDraft();
  },
};

function viewOf(message) {
  if (!views.has(message)) {
    const person = () => personView(message, { onresend: actions.resend });
    views.set(message, message.role === "user" ? person() : new AnswerView(message, actions));
  }
  const view = views.get(message);
  return view instanceof AnswerView ? view.element : view;
}

/** The element of a message of the open conversation. */
export const elementOf = (message) => viewOf(message);

/** Shows the conversation as it is now. */
export function render() {
  const shown = session.conversation.messages.filter((message) => message.role !== "tool");
  const place = byId("messages");
  place.replaceChildren(...(shown.length ? shown.map(viewOf) : [emptyState()]));
  place.classList.toggle("empty", shown.length === 0);
  toEnd();
  if (!shown.length) byId("thread").scrollTop = 0;
}

/** Goes to the end and stays there. */
export function toEnd() {
  follow = true;
  stay();
}

function stay() {
  const thread = byId("thread");
  if (follow) thread.scrollTop = thread.scrollHeight;
  byId("to-end").hidden = follow;
}

function paint() {
  frame = 0;
  for (const message of grown) views.get(message)?.grow();
  grown.clear();
  stay();
}

function impatience() {
  const { message } = turn.running ?? {};
  if (!message || message.content || message.calls.length) return;
  const waited = Date.now() - message.at;
  if (waited < PATIENCE) return;
  const loads = session.model?.flyweight?.loaded === false;
  const what = loads ? "The model is being loaded" : "The model reads what was said";
  views.get(message)?.wait(`${what}, ${span(waited).replace(/\.\d/, "")}`);
}

/** Connects the thread to what happens in the session. */
export function setUpThread() {
  const thread = byId("thread");
  thread.addEventListener("scroll", () => {
    follow = thread.scrollHeight - thread.scrollTop - thread.clientHeight < NEAR;
    byId("to-end").hidden = follow;
  }, { passive: true });
  byId("to-end").append(icon("bottom"), h("span", {}, "To the end"));
  byId("to-end").addEventListener("click", () => {
    toEnd();
    toDraft();
  });
  new ResizeObserver(stay).observe(thread);
  session.on("conversation", render);
  session.on("messages", () => {
    if (turn.running?.conversation === session.conversation || !turn.running) render();
  });
  session.on("models server", () => {
    if (!session.conversation.messages.length) render();
  });
  session.on("grow", (message) => {
    if (!views.has(message)) return;
    grown.add(message);
    frame ||= requestAnimationFrame(paint);
  });
  session.on("settled", (message) => {
    grown.delete(message);
    views.get(message)?.settle();
    stay();
    // Several calls may be taller than the window: the first one is where to begin.
    const waiting = actions.waits(message) ? views.get(message)?.element.querySelector(".call") : null;
    if (follow) waiting?.scrollIntoView({ block: "nearest" });
  });
  session.on("tick", (message) => views.get(message)?.tick());
  setInterval(impatience, 500);
}

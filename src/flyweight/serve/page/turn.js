// One turn of the model: what is sent, what comes, and what is tried again by itself.
import { Fault, chat, serverKey } from "./api.js";
import { announce } from "./dom.js";
import { session } from "./session.js";
import { learn, look, missed } from "./server.js";
import { store } from "./store.js";
import { parseSchema, parseTools } from "./forms.js";
import { plural } from "./words.js";

const KEPT_EVERY = 1000; // ms between two savings of an answer that is being written
const SHORTEST = 20; // ms between first and last piece that a speed can be read from
const PATIENT = 300; // s: who is told to come back later than this is not kept waiting
const ANNOUNCED = 400; // characters of a finished answer that are read out

/** The answer being written (with its `stop`), and the one that waits to be sent again. */
export const turn = { running: null, waiting: null };

/** Messages as the API wants them: failed answers and the page's own notes left out. */
function wire(messages) {
  const sent = [];
  let shown = false; // a conversation is about one picture
  for (const { role, content, calls, tool_call_id, image } of messages) {
    if (role === "tool") sent.push({ role, content, tool_call_id });
    else if (image && !shown) {
      shown = true;
      sent.push({ role, content: [{ type: "image_url", image_url: { url: image } }, { type: "text", text: content }] });
    }
    else if (role === "user") sent.push({ role, content });
    else if (calls.length) sent.push({ role, content: content || null, tool_calls: calls });
    else if (content) sent.push({ role, content });
  }
  return sent;
}

function request(conversation, model) {
  const { settings, messages } = conversation;
  const said = messages.slice(0, -1);
  const from = session.alone ? said.findLastIndex((each) => each.role === "user") : 0;
  const asked = said.slice(Math.max(0, from));
  const image = said.find((each) => each.image)?.image;
  if (from > 0 && image) asked[0] = { image, ...asked[0] }; // each by itself, about the same picture
  const history = wire(asked);
  const body = { model, messages: history, temperature: settings.temperature };
  if (session.system) history.unshift({ role: "system", content: session.system });
  if (settings.top_p < 1) body.top_p = settings.top_p;
  if (settings.max_tokens) body.max_completion_tokens = settings.max_tokens;
  if (settings.seed !== null) body.seed = settings.seed;
  if (settings.form === "json") body.response_format = { type: "json_object" };
  if (settings.form === "schema") {
    const { name, schema } = parseSchema(settings.schema);
    body.response_format = { type: "json_schema", json_schema: { name, schema } };
  }
  const { tools } = parseTools(settings.tools);
  if (tools?.length) {
    body.tools = tools;
    // A model that must call again after each result would never end.
    const after = history.at(-1).role === "tool" && settings.tool_choice === "required";
    body.tool_choice = after ? "auto" : settings.tool_choice;
  }
  return body;
}

/** Adds pieces of tool calls to what came of them before. */
function joinCalls(calls, pieces) {
  for (const piece of pieces) {
    const call = (calls[piece.index ?? 0] ??= {
      id: "", type: "function", function: { name: "", arguments: "" },
    });
    call.id ||= piece.id ?? "";
    call.function.name += piece.function?.name ?? "";
    call.function.arguments += piece.function?.arguments ?? "";
  }
}

async function receive(body, message, signal) {
  const clock = { sent: performance.now(), first: 0, last: 0, pieces: 0 };
  let finish = null;
  let usage = null;
  let kept = clock.sent;
  const save = () => ((kept = clock.last), store.save(turn.running.conversation, false));
  try {
    for await (const chunk of chat(body, signal)) {
      usage = chunk.usage ?? usage;
      const choice = chunk.choices?.[0];
      if (!choice) continue;
      finish = choice.finish_reason ?? finish;
      const { content, tool_calls: pieces } = choice.delta ?? {};
      if (!content && !pieces?.length) continue;
      clock.last = performance.now();
      clock.first ||= clock.last;
      clock.pieces += 1;
      message.content += content ?? "";
      joinCalls(message.calls, pieces ?? []);
      session.emit("grow", message);
      if (clock.last - kept > KEPT_EVERY) save();
    }
  } finally {
    message.stats = statistics(clock, usage);
  }
  if (!finish) throw new Fault({ status: null, kind: "broken", message: "" });
  return finish;
}

function statistics(clock, usage) {
  const stats = {};
  if (clock.first) stats.first = clock.first - clock.sent;
  if (!usage) return stats; // a piece can be many tokens: without the server nobody knows
  const { prompt_tokens: prompt, completion_tokens: tokens, total_tokens: total } = usage;
  Object.assign(stats, { prompt, tokens, total, cached: usage.prompt_tokens_details?.cached_tokens ?? 0 });
  if (usage.joules?.facility) {
    const { chip, facility } = usage.joules;
    const measured = Number(chip.kind === "measured");
    Object.assign(stats, { joules: facility.value, least: facility.low, most: facility.high, chip: chip.value, measured });
  }
  // Where all came at once, only the whole time is known, that of reading the prompt included.
  const spread = clock.pieces > 2 && clock.last - clock.first > SHORTEST;
  const ms = clock.last - (spread ? clock.first : clock.sent);
  if (tokens > 1 && ms > 0) stats.speed = (tokens - (spread ? 1 : 0)) / (ms / 1000);
  stats.whole = spread ? 0 : 1;
  return stats;
}

/** Has the model answer what stands in the open conversation. */
export async function ask() {
  const { conversation, model } = session;
  cancelWaiting();
  const settings = conversation.settings;
  const message = {
    role: "assistant", content: "", calls: [], at: Date.now(), state: "running",
    model: model?.id ?? conversation.model, json: settings.form !== "text",
  };
  conversation.model = message.model;
  conversation.messages.push(message);
  const controller = new AbortController();
  turn.running = { conversation, message, stop: () => controller.abort() };
  store.save(conversation);
  session.emit("messages");
  session.emit("running");
  try {
    const body = request(conversation, message.model);
    const finish = await receive(body, message, controller.signal);
    message.state = finish === "length" ? "cut" : "finished";
  } catch (error) {
    fail(message, error, controller.signal.aborted);
  }
  for (const call of message.calls) call.id ||= `call_${Math.random().toString(36).slice(2, 12)}`;
  turn.running = null;
  store.save(conversation);
  session.emit("settled", message);
  session.emit("running");
  tellEnd(message);
  if (message.fault) await recover(conversation, message);
  else if (model && !model.flyweight?.loaded) learn();
}

function fail(message, error, stopped) {
  const came = message.content !== "" || message.calls.length > 0;
  message.calls = message.calls.filter((call) => call && isWhole(call)); // never half a call
  if (stopped) {
    message.state = "stopped";
    return;
  }
  const fault = error.fault ?? { status: null, kind: "internal", message: String(error.message) };
  const kind = came && ["gone", "failed"].includes(fault.kind) ? "broken" : fault.kind;
  message.fault = { ...fault, kind };
  message.state = came ? "broken" : "failed";
}

function isWhole(call) {
  try {
    JSON.parse(call.function.arguments || "{}");
    return call.function.name !== "";
  } catch {
    return false;
  }
}

function tellEnd(message) {
  const said = message.content.slice(0, ANNOUNCED);
  if (message.state === "finished" && message.calls.length) {
    announce(`The model asks for ${plural(message.calls.length, "tool call")}. Approve or decline.`);
  } else if (message.state === "finished") announce(`Answer finished. ${said}`);
  else if (message.state === "cut") announce(`Answer cut at the limit. ${said}`);
  else if (message.state === "stopped") announce("Stopped. What came is kept.");
}

async function recover(conversation, message) {
  const { kind, wait } = message.fault;
  if (kind === "gone") missed();
  if (kind === "broken") look();
  if (kind === "gone") hold({ conversation, message, until: null });
  if ((kind === "busy" || (kind === "unready" && wait)) && (wait ?? 5) <= PATIENT) {
    hold({ conversation, message, until: Date.now() + 1000 * (wait ?? 5) });
  }
  if (kind === "key") session.emit("locked", serverKey() !== "");
  if (kind === "model") await learn();
}

/** The message waits: for a moment, or (`until` null) for the server to come back. */
function hold(waiting) {
  cancelWaiting();
  turn.waiting = waiting;
  const tick = () => {
    if (turn.waiting !== waiting) return clearInterval(timer);
    if (waiting.until !== null && Date.now() >= waiting.until) return resume();
    session.emit("tick", waiting.message);
  };
  const timer = setInterval(tick, 500);
  waiting.end = () => clearInterval(timer);
  session.emit("settled", waiting.message); // its card now says when
}

/** Gives up sending again by itself; the message keeps its Retry button. */
export function cancelWaiting() {
  const { waiting } = turn;
  if (!waiting) return;
  waiting.end?.();
  turn.waiting = null;
  session.emit("settled", waiting.message);
}

/** Sends what waits, if its conversation is still the open one and ends with it. */
function resume() {
  const { waiting } = turn;
  if (!waiting || turn.running) return;
  cancelWaiting();
  if (session.conversation !== waiting.conversation) return;
  if (waiting.conversation.messages.at(-1) === waiting.message) again(waiting.message);
}

/** Asks anew for an answer: it and all that follows it go; returns what was there before. */
export function again(message) {
  const { conversation } = session;
  const before = [...conversation.messages];
  conversation.messages.splice(conversation.messages.indexOf(message));
  ask();
  return before;
}

session.on("server", (state) => {
  if (state === "ok" && turn.waiting?.until === null) resume();
});
addEventListener("pagehide", () => {
  if (turn.running) store.save(turn.running.conversation, false);
});

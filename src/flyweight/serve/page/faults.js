// Every fault in plain words: what happened, what to do, and which buttons do it.
import { count } from "./words.js";

const said = ({ message }) => (message ? `The server says: ${message}${/[.!?:]$/.test(message) ? "" : "."}` : "");

const later = (s) => (s < 5400 ? `${Math.ceil(s / 60)} minutes` : `about ${Math.round(s / 3600)} hours`);

const TOLD = {
  gone: () => [
    "The server does not answer",
    "It may have been stopped, or this device has lost its connection to it. Nothing is lost: " +
      "the page looks for the server every few seconds and sends the message again once it is back.",
    ["retry"],
  ],
  key: (fault, model, keyed) => [
    keyed ? "The server does not know this key" : "This server asks for a key",
    "Whoever runs the server makes one with “flyweight key”. Enter it, and the message is sent.",
    ["key"],
  ],
  forbidden: (fault) => ["The server does not allow this", said(fault) || "Ask whoever runs it.", ["retry"]],
  model: (fault, model) => [
    "The server does not have this model",
    `It has no model named “${model}” now. Choose another, then retry.`,
    ["models", "retry"],
  ],
  size: () => [
    "The message is too long for the server",
    "Send less text at once, or start a new conversation, since earlier messages are sent along.",
    ["new"],
  ],
  form: () => [
    "The server did not understand the page",
    "Page and server may be of different versions. Reload the page, then retry.",
    ["reload", "retry"],
  ],
  request: (fault) => [
    "The server did not accept the request",
    `${said(fault) || "It gave no reason."} Check the settings, then retry.`,
    ["settings", "retry"],
  ],
  context: (fault, model, keyed, context) => [
    "The conversation no longer fits",
    `${context ? `This model reads at most ${count(context)} tokens at once, its answer included. ` : ""}` +
      `${said(fault)} Start a new conversation with your last message, shorten it, or ask for fewer tokens.`,
    ["new", "edit", "settings"],
  ],
  busy: (fault) => [
    fault.wait > 300 ? "Enough for now" : "The server is busy",
    `${said(fault) || "Too many people ask at once."}${fault.wait > 300 ? ` Come back in ${later(fault.wait)}.` : ""}`,
    ["retry"],
  ],
  failed: (fault) => [
    "The server failed",
    `${said(fault)} Retry; if it happens again, whoever runs the server finds the reason in its log.`.trim(),
    ["retry"],
  ],
  unready: (fault) => [
    "The server cannot answer now",
    `${said(fault) || "It is shutting down, or the model could not be loaded."} ` +
      "Retry in a while, or choose another model.",
    ["retry", "models"],
  ],
  slow: () => [
    "The answer took longer than the server allows",
    "Ask for a shorter one (“Most tokens” in the settings), or retry when the server has less to do.",
    ["settings", "retry"],
  ],
  broken: (fault) => [
    "The answer broke off",
    `${said(fault)} What came is kept. Retry asks for the whole answer again.`.trim(),
    ["retry"],
  ],
  internal: ({ message }) => ["The page failed", `${message} Retry, or reload the page.`, ["retry", "reload"]],
};

/** Title, advice and the names of the actions that help. */
export function tell(fault, { model, keyed, context }) {
  const [title, advice, actions] = (Object.hasOwn(TOLD, fault.kind) ? TOLD[fault.kind] : TOLD.failed)(fault, model, keyed, context);
  return { title, advice, actions };
}

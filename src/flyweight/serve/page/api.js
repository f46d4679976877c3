// Talking to the server: the OpenAI API that it came with, and nothing else.
const KEY = "flyweight.key";

/** What went wrong, small enough to be kept with the message that it befell. */
export class Fault extends Error {
  constructor(fault) {
    super(fault.message ?? fault.kind);
    this.fault = fault;
  }
}

/** The key of the server, kept in this tab or, if the person wishes, in this browser. */
export function serverKey() {
  try {
    return sessionStorage.getItem(KEY) ?? localStorage.getItem(KEY) ?? "";
  } catch {
    return memoryKey;
  }
}
let memoryKey = "";

/** Keeps the key for this tab, or for this browser; an empty one is forgotten. */
export function keepKey(key, always) {
  memoryKey = key;
  try {
    localStorage.removeItem(KEY);
    sessionStorage.removeItem(KEY);
    if (key) (always ? localStorage : sessionStorage).setItem(KEY, key);
  } catch {
    // storage is blocked: the key lives as long as the page
  }
}

function headers(more = {}) {
  const key = serverKey();
  return key ? { ...more, Authorization: `Bearer ${key}` } : more;
}

const KINDS = {
  400: "request", 401: "key", 403: "forbidden", 404: "model", 413: "size", 415: "form",
  408: "broken", 422: "request", 429: "busy", 500: "failed", 503: "unready", 504: "slow",
};

// In mid-stream the status has been sent already: the type of the error says it.
const STATUSES = { timeout_error: 504, rate_limit_error: 429, service_unavailable_error: 503 };

/** The fault that an error answer stands for. */
function faultOf(status, error, wait = null) {
  const message = typeof error?.message === "string" ? error.message.slice(0, 2000) : "";
  const code = `${error?.code ?? ""} ${error?.type ?? ""}`;
  let kind = KINDS[status] ?? (status >= 500 ? "failed" : "request");
  if (status === 400 && /context_length|context length|exceeds? the context/i.test(`${code} ${message}`)) {
    kind = "context";
  }
  return { status, kind, message, wait };
}

async function refusal(response) {
  let error = null;
  try {
    ({ error } = await response.json());
  } catch {
    // not the API's own form: the status has to say it
  }
  const wait = Number.parseFloat(response.headers.get("Retry-After") ?? "");
  return new Fault(faultOf(response.status, error, Number.isFinite(wait) ? Math.max(wait, 0) : null));
}

async function call(path, options = {}) {
  let response;
  try {
    response = await fetch(path, { cache: "no-store", ...options });
  } catch (error) {
    if (options.signal?.aborted) throw error;
    throw new Fault({ status: null, kind: "gone", message: "" });
  }
  if (!response.ok) throw await refusal(response);
  return response;
}

/** The models that the server has, as it describes them. */
export async function models() {
  const { data } = await (await call("v1/models", { headers: headers() })).json();
  return Array.isArray(data) ? data.filter((model) => typeof model?.id === "string") : [];
}

/** A picture of the server's as a data: address, since an <img> cannot show the key. */
export async function picture(address) {
  if (new URL(address, location).origin !== location.origin) throw new Error("not of this server");
  const blob = await (await call(address, { headers: headers() })).blob();
  return new Promise((resolve, reject) => {
    const reader = new FileReader();
    reader.onload = () => resolve(reader.result);
    reader.onerror = reject;
    reader.readAsDataURL(blob);
  });
}

/** "ok", "draining" or "gone". */
export async function health() {
  const timeout = new AbortController();
  const timer = setTimeout(() => timeout.abort(), 4000);
  try {
    const answer = await fetch("health", { cache: "no-store", signal: timeout.signal });
    return (await answer.json()).status === "draining" ? "draining" : "ok";
  } catch {
    return "gone";
  } finally {
    clearTimeout(timer);
  }
}

/** The chunks of a streamed answer; a Fault where the server refuses or the stream breaks. */
export async function* chat(body, signal) {
  const response = await call("v1/chat/completions", {
    method: "POST",
    headers: headers({ "Content-Type": "application/json" }),
    body: JSON.stringify({ ...body, stream: true, stream_options: { include_usage: true } }),
    signal,
  });
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  for (;;) {
    const { value, done } = await read(reader, signal);
    if (done) return;
    const lines = (rest + value).split(/\r?\n/);
    rest = lines.pop();
    for (const line of lines) {
      if (!line.startsWith("data:")) continue; // a comment keeps the connection alive
      const data = line.slice(5).trim();
      if (data === "[DONE]") return;
      yield event(data);
    }
  }
}

async function read(reader, signal) {
  try {
    return await reader.read();
  } catch (error) {
    if (signal.aborted) throw error;
    throw new Fault({ status: null, kind: "broken", message: "" });
  }
}

function event(data) {
  let chunk;
  try {
    chunk = JSON.parse(data);
  } catch {
    throw new Fault({ status: null, kind: "broken", message: "A piece of the answer was not JSON." });
  }
  if (chunk.error) {
    const fault = faultOf(STATUSES[chunk.error.type] ?? 500, chunk.error);
    throw new Fault(fault.kind === "failed" ? { ...fault, kind: "broken" } : fault);
  }
  return chunk;
}

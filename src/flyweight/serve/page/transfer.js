// Conversations as files: Markdown to read, JSON to keep and to bring back.
import { h } from "./dom.js";
import { cleanConversation, newId, store } from "./store.js";

const FORMAT = "flyweight-conversations";
const VERSION = 1;
const LARGEST = 50e6; // bytes of a file that is read

function download(name, type, text) {
  const address = URL.createObjectURL(new Blob([text], { type }));
  h("a", { href: address, download: name }).click();
  setTimeout(() => URL.revokeObjectURL(address), 10000);
}

const fileName = (title) => title.replace(/[^\p{L}\p{N}]+/gu, "-").replace(/^-|-$/g, "").slice(0, 50) || "conversation";

/** A fence that the text itself does not hold. */
function fenced(text, language = "") {
  let fence = "```";
  while (text.includes(fence)) fence += "`";
  return `${fence}${language}\n${text}\n${fence}`;
}

/** A conversation as Markdown. */
export function asMarkdown(conversation) {
  const parts = [`# ${conversation.title || "Conversation"}`];
  parts.push(`Model: ${conversation.model}. Begun ${new Date(conversation.created).toISOString().slice(0, 16)}Z.`);
  if (conversation.settings.system) parts.push("## System message", conversation.settings.system);
  for (const message of conversation.messages) {
    if (message.role === "user") parts.push("## You", message.content);
    if (message.role === "tool") parts.push(`## Tool result (${message.decision})`, fenced(message.content));
    if (message.role !== "assistant") continue;
    parts.push("## Answer");
    if (message.content) parts.push(message.json ? fenced(message.content, "json") : message.content);
    for (const { function: called } of message.calls) {
      parts.push(`Tool call \`${called.name}\`:`, fenced(called.arguments, "json"));
    }
  }
  return `${parts.join("\n\n")}\n`;
}

/** Saves a conversation as a Markdown file. */
export function exportMarkdown(conversation) {
  download(`${fileName(conversation.title)}.md`, "text/markdown", asMarkdown(conversation));
}

/** Saves conversations as a JSON file. */
export function exportJson(conversations, name) {
  const content = { format: FORMAT, version: VERSION, exported: new Date().toISOString(), conversations };
  download(`${fileName(name)}.json`, "application/json", JSON.stringify(content, null, 1));
}

/** Takes in conversations from a file; says how many, or throws an Error that says what is wrong. */
export async function importJson(file) {
  if (file.size > LARGEST) throw new Error("The file is too large (more than 50 MB).");
  let content;
  try {
    content = JSON.parse(await file.text());
  } catch {
    throw new Error("The file is not JSON.");
  }
  if (content?.format !== FORMAT || !Array.isArray(content.conversations)) {
    throw new Error("The file holds no conversations exported by this page.");
  }
  const found = content.conversations.map((each) => cleanConversation(each)).filter((each) => each?.messages.length);
  let taken = 0;
  for (const conversation of found) {
    const here = store.get(conversation.id);
    if (here && JSON.stringify(here.messages) === JSON.stringify(conversation.messages)) continue;
    if (here) conversation.id = newId(); // both are kept
    if (!store.save(conversation, false)) {
      store.remove(conversation.id);
      throw new Error(`This browser’s storage is full: ${taken} of ${found.length} conversations were taken.`);
    }
    taken += 1;
  }
  return { taken, known: found.length - taken };
}

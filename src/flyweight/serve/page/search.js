// Searching all conversations for the words that the person types.
const AROUND = 36; // characters shown before a hit
const SHOWN = 130;
const MOST = 60; // conversations listed

/** The words of a query, in small letters. */
export const wordsOf = (query) => query.toLowerCase().split(/\s+/).filter(Boolean);

/** Stretches of a text: {text, hit}, the hits of any of the words marked. */
export function marked(text, words) {
  const small = text.toLowerCase();
  if (small.length !== text.length) return [{ text, hit: false }]; // a letter that changes length
  const parts = [];
  let from = 0;
  while (from < text.length) {
    let [at, length] = [-1, 0];
    for (const word of words) {
      const found = small.indexOf(word, from);
      if (found !== -1 && (at === -1 || found < at || (found === at && word.length > length))) {
        [at, length] = [found, word.length];
      }
    }
    if (at === -1) break;
    if (at > from) parts.push({ text: text.slice(from, at), hit: false });
    parts.push({ text: text.slice(at, at + length), hit: true });
    from = at + length;
  }
  if (from < text.length) parts.push({ text: text.slice(from), hit: false });
  return parts;
}

function spoken(message) {
  const calls = (message.calls ?? []).map((call) => `${call.function.name} ${call.function.arguments}`);
  return [message.content, ...calls].join("\n");
}

function excerpt(text, words) {
  const line = text.replace(/\s+/g, " ");
  const small = line.toLowerCase();
  const first = Math.min(...words.map((word) => small.indexOf(word)).filter((at) => at !== -1));
  const start = Math.max(0, (Number.isFinite(first) ? first : 0) - AROUND);
  const end = start + SHOWN;
  return (start ? "…" : "") + line.slice(start, end) + (end < line.length ? "…" : "");
}

/** Conversations that have every word in one message or in the title, with an excerpt each. */
export function search(conversations, query) {
  const words = wordsOf(query);
  const has = (text) => {
    const small = text.toLowerCase();
    return words.every((word) => small.includes(word));
  };
  const hits = [];
  for (const conversation of conversations) {
    const index = conversation.messages.findIndex((message) => has(spoken(message)));
    if (index === -1 && !has(conversation.title)) continue;
    const message = conversation.messages[index] ?? null;
    hits.push({ conversation, index, words, excerpt: message ? excerpt(spoken(message), words) : "" });
    if (hits.length === MOST) break;
  }
  return hits;
}

/** Marks the words in what is shown, without touching it, where the browser can. */
export function highlight(root, words) {
  if (!globalThis.Highlight || !CSS.highlights) return;
  CSS.highlights.delete("found");
  if (!words.length) return;
  const ranges = [];
  const texts = document.createTreeWalker(root, NodeFilter.SHOW_TEXT);
  while (texts.nextNode() && ranges.length < 500) {
    let at = 0;
    for (const { text, hit } of marked(texts.currentNode.data, words)) {
      if (hit) ranges.push(new StaticRange({
        startContainer: texts.currentNode, startOffset: at,
        endContainer: texts.currentNode, endOffset: at + text.length,
      }));
      at += text.length;
    }
  }
  CSS.highlights.set("found", new Highlight(...ranges));
}

// Text inside a block: code, bold, italic, struck out, links. What a model wrote is never trusted:
// only text nodes are made from it, and a link shows where it leads.
import { h } from "./dom.js";

const FURTHEST = 2000; // characters from an opening mark to its closing one
const DEEPEST = 6;
const SPECIAL = /[\\`*_~[!]|https?:\/\//g;
const ADDRESS = /^https?:\/\/[^\s<>"'`|\\^{}]+/;
const PUNCTUATION = /[!-/:-@[-`{-~]/;
const WORD = /[\p{L}\p{N}]/u;

/** The nodes that a line or paragraph of Markdown stands for. */
export function inline(text, depth = 0, linked = false) {
  const nodes = [];
  let plain = 0; // where the text that is not yet a node begins
  let at = 0;
  const put = (node, start, end) => {
    if (start > plain) nodes.push(text.slice(plain, start));
    nodes.push(node);
    plain = at = end;
  };
  while (at < text.length) {
    SPECIAL.lastIndex = at;
    const found = SPECIAL.exec(text);
    if (!found) break;
    at = found.index;
    const piece = depth < DEEPEST ? read(text, at, depth, linked) : null;
    if (piece?.node !== undefined) put(piece.node, at, piece.end);
    else at = piece?.end ?? at + found[0].length;
  }
  if (plain < text.length) nodes.push(text.slice(plain));
  return nodes;
}

/** What stands at a mark: {node, end}, or only the end of marks that mean themselves. */
function read(text, at, depth, linked) {
  const mark = text[at];
  if (linked && "![h".includes(mark)) return null; // no link inside a link
  if (mark === "\\") {
    const next = text[at + 1] ?? "";
    if (next === "\n") return { node: h("br"), end: at + 2 };
    return PUNCTUATION.test(next) ? { node: next, end: at + 2 } : null;
  }
  if (mark === "`") return code(text, at);
  if (mark === "[" || (mark === "!" && text[at + 1] === "[")) return link(text, at, depth);
  if (mark === "h") return bare(text, at);
  if (mark === "*" || mark === "_" || mark === "~") return emphasis(text, at, depth, linked);
  return null;
}

function runLength(text, at) {
  let end = at;
  while (text[end] === text[at]) end += 1;
  return end - at;
}

function code(text, at) {
  const length = runLength(text, at);
  const fence = "`".repeat(length);
  let end = at + length;
  while ((end = text.indexOf(fence, end)) !== -1 && end - at < FURTHEST) {
    const closing = runLength(text, end);
    if (closing === length) {
      let inside = text.slice(at + length, end).replaceAll("\n", " ");
      if (/^ .*[^ ].* $/.test(inside)) inside = inside.slice(1, -1);
      return { node: h("code", {}, inside), end: end + length };
    }
    end += closing;
  }
  return { end: at + length };
}

function emphasis(text, at, depth, linked) {
  const mark = text[at];
  const length = runLength(text, at);
  const meaningless = { end: at + length };
  if (length > 3 || (mark === "~" && length !== 2)) return meaningless;
  if (/\s/.test(text[at + length] ?? " ")) return meaningless;
  if (mark === "_" && WORD.test(text[at - 1] ?? "")) return meaningless;
  const end = closing(text, at + length, mark, length);
  if (end === -1) return meaningless;
  const inside = inline(text.slice(at + length, end), depth + 1, linked);
  const tags = mark === "~" ? ["s"] : [[], ["em"], ["strong"], ["strong", "em"]][length];
  const node = tags.reduceRight((children, tag) => [h(tag, {}, ...children)], inside)[0];
  return { node, end: end + length };
}

/** Where a run of exactly these marks ends a word, near enough; -1 if nowhere. */
function closing(text, from, mark, length) {
  let at = from;
  while ((at = text.indexOf(mark, at)) !== -1 && at - from < FURTHEST) {
    const run = runLength(text, at);
    const inWord = mark === "_" && WORD.test(text[at + run] ?? "");
    if (run === length && at > from && !/\s/.test(text[at - 1]) && !inWord) return at;
    at += run;
  }
  return -1;
}

/** The address, if it is one that a page may link to; everything else stays text. */
function web(address) {
  try {
    const url = new URL(address);
    return ["http:", "https:"].includes(url.protocol) ? url : null;
  } catch {
    return null;
  }
}

function anchor(url, ...children) {
  const props = { href: url.href, target: "_blank", rel: "noopener noreferrer nofollow" };
  return h("a", props, ...children);
}

function link(text, at, depth) {
  const picture = text[at] === "!";
  const start = at + (picture ? 2 : 1);
  const middle = text.indexOf("](", start);
  if (middle === -1 || middle - start > FURTHEST) return { end: start };
  const found = ADDRESS.exec(text.slice(middle + 2, middle + 2 + FURTHEST));
  if (!found) return { end: start };
  let address = found[0];
  let close = address.length;
  for (let index = 0, open = 0; index < address.length; index += 1) {
    if (address[index] === "(") open += 1;
    if (address[index] === ")" && open-- === 0) {
      close = index;
      break;
    }
  }
  const end = middle + 2 + close;
  address = address.slice(0, close);
  const url = web(address);
  if (!url || text[end] !== ")") return { end: start };
  const words = text.slice(start, middle);
  // Pictures are not fetched: nothing comes from outside. The words lead to it instead.
  const shown = picture ? [words || "picture"] : inline(words, depth + 1, true);
  const target = h("span", { class: "target" }, ` (${shorten(url)})`);
  return { node: words === address ? anchor(url, shorten(url)) : anchor(url, ...shown, target), end: end + 1 };
}

function bare(text, at) {
  if (WORD.test(text[at - 1] ?? "")) return null;
  const [found] = ADDRESS.exec(text.slice(at, at + FURTHEST)) ?? [];
  const address = found?.replace(/[.,;:!?)\]*_~]+$/, "");
  const url = address && web(address);
  return url ? { node: anchor(url, shorten(url)), end: at + address.length } : null;
}

/** An address as the browser understands it: look-alike letters and user names show. */
function shorten(url) {
  const plain = url.href.replace(/\/$/, "");
  return plain.length > 80 ? `${plain.slice(0, 79)}…` : plain;
}

// Markdown in blocks: enough for what models write, in one pass over the lines.
import { button, copy, h } from "./dom.js";
import { inline } from "./inline.js";

const DEEPEST = 8; // lists in lists, quotes in quotes
const FENCE = /^ {0,3}(`{3,}|~{3,})\s*([^`\s]*)/;
const HEADING = /^ {0,3}(#{1,6})\s+(.*)$/;
const RULE = /^ {0,3}([-*_])(?:\s*\1){2,}\s*$/;
const ITEM = /^( {0,3})([-*+]|\d{1,9}[.)])(\s+|$)/;
const QUOTE = /^ {0,3}> ?/;

/** The blocks of a text, each {kind, start, lines, ...}; later text can change only the last. */
export function blocks(text) {
  const lines = text.split("\n");
  const found = [];
  let offset = 0;
  for (let at = 0; at < lines.length; ) {
    if (lines[at].trim() === "") {
      offset += lines[at].length + 1;
      at += 1;
      continue;
    }
    const block = readBlock(lines, at);
    found.push({ ...block, start: offset });
    for (; at < block.end; at += 1) offset += lines[at].length + 1;
  }
  return found;
}

function readBlock(lines, at) {
  const line = lines[at];
  const fence = FENCE.exec(line);
  if (fence) return readCode(lines, at, fence);
  const heading = HEADING.exec(line);
  if (heading) {
    return { kind: "heading", level: heading[1].length, lines: [heading[2].replace(/\s+#+\s*$/, "")], end: at + 1 };
  }
  if (RULE.test(line)) return { kind: "rule", lines: [], end: at + 1 };
  if (QUOTE.test(line)) return readWhile(lines, at, "quote", (each) => QUOTE.test(each));
  if (ITEM.test(line)) return readList(lines, at);
  if (line.includes("|") && isDelimiter(lines[at + 1])) {
    return readWhile(lines, at, "table", (each) => each.includes("|"));
  }
  return readWhile(lines, at, "paragraph", (each, index) => index === at || !startsBlock(each, lines[index + 1]));
}

function readWhile(lines, at, kind, belongs) {
  let end = at;
  while (end < lines.length && lines[end].trim() !== "" && belongs(lines[end], end)) end += 1;
  return { kind, lines: lines.slice(at, end), end };
}

/** Whether a line ends the paragraph before it. */
function startsBlock(line, next) {
  if (FENCE.test(line) || HEADING.test(line) || RULE.test(line) || QUOTE.test(line)) return true;
  return ITEM.test(line) || (line.includes("|") && isDelimiter(next));
}

function readCode(lines, at, [, fence, language]) {
  let end = at + 1;
  const closes = (line) => line.trim().startsWith(fence) && line.trim().replaceAll(fence[0], "") === "";
  while (end < lines.length && !closes(lines[end])) end += 1;
  const inside = lines.slice(at + 1, end);
  return { kind: "code", language, lines: inside, end: Math.min(end + 1, lines.length) };
}

function readList(lines, at) {
  const ordered = /\d/.test(ITEM.exec(lines[at])[2]);
  const items = [];
  let end = at;
  let blank = false;
  let indent = 0;
  for (; end < lines.length; end += 1) {
    const line = lines[end];
    const item = ITEM.exec(line);
    const inside = item && items.length && item[1].length >= Math.min(indent, 2);
    if (item && !inside && !RULE.test(line)) {
      if (/\d/.test(item[2]) !== ordered) break;
      indent = item[1].length + item[2].length + Math.min(item[3].length || 1, 4);
      items.push([line.slice(item[0].length)]);
    } else if (line.trim() === "") {
      items.at(-1).push("");
    } else if (/^(\t| {2})/.test(line)) {
      items.at(-1).push(dedent(line, indent));
    } else if (blank || startsBlock(line, lines[end + 1])) {
      break;
    } else {
      items.at(-1).push(line); // a paragraph that goes on without an indent
    }
    blank = line.trim() === "";
  }
  while (end > at + 1 && lines[end - 1].trim() === "") end -= 1;
  const first = ordered ? Number.parseInt(lines[at].trim(), 10) : null;
  return { kind: "list", first, items, lines: [], end };
}

function dedent(line, most) {
  const spaces = /^[ \t]*/.exec(line)[0].replaceAll("\t", "    ").length;
  return " ".repeat(Math.max(0, spaces - most)) + line.trimStart();
}

const cells = (line) =>
  line.trim().replace(/^\|/, "").replace(/\|$/, "").split(/(?<!\\)\|/).map((cell) => cell.trim().replaceAll("\\|", "|"));

function isDelimiter(line) {
  return Boolean(line?.includes("-")) && cells(line).every((cell) => /^:?-+:?$/.test(cell));
}

const MADE = {
  heading: (block) => h(`h${Math.min(block.level + 2, 6)}`, { dir: "auto" }, ...inline(block.lines[0])),
  rule: () => h("hr"),
  paragraph: (block) => h("p", { dir: "auto" }, ...inline(block.lines.map((line) => line.trimStart()).join("\n"))),
  quote: (block, depth) => {
    const inside = block.lines.map((line) => line.replace(QUOTE, "")).join("\n");
    return h("blockquote", {}, ...markdown(inside, depth + 1));
  },
  list: (block, depth) => {
    const items = block.items.map((lines) => h("li", { dir: "auto" }, ...listItem(lines.join("\n"), depth)));
    const start = block.first !== null && block.first !== 1 ? block.first : null;
    return h(block.first === null ? "ul" : "ol", { start }, ...items);
  },
  table: (block) => {
    const [head, delimiter, ...rows] = block.lines.map(cells);
    const sides = delimiter.map((cell) => (/^:?-+:$/.test(cell) ? (cell[0] === ":" ? "middle" : "right") : null));
    const row = (tag, values) =>
      h("tr", {}, ...head.map((_, index) =>
        h(tag, { class: sides[index], scope: tag === "th" ? "col" : null }, ...inline(values[index] ?? ""))));
    const table = h("table", {}, h("thead", {}, row("th", head)), h("tbody", {}, ...rows.map((each) => row("td", each))));
    return h("div", { class: "scroll", tabindex: "0", role: "region", "aria-label": "Table" }, table);
  },
  code: (block) => codeBlock(block.language || "Code", block.lines.join("\n")),
};

function listItem(text, depth) {
  const nodes = markdown(text, depth + 1);
  const tight = nodes[0]?.tagName === "P" && !text.trim().includes("\n\n");
  return tight ? [...nodes[0].childNodes, ...nodes.slice(1)] : nodes;
}

/** A block as an element. */
export function element(block, depth = 0) {
  return MADE[block.kind](block, depth);
}

/** The elements of a whole text. */
export function markdown(text, depth = 0) {
  if (depth > DEEPEST) return [h("p", {}, text)];
  return blocks(text).map((block) => element(block, depth));
}

/** Code, or JSON, with its name and a button that copies it. */
export function codeBlock(name, text, fill = (place) => place.append(text)) {
  const code = h("code");
  fill(code);
  const copying = button("Copy", "copy", () => copy(code.textContent, copying), { class: "quiet" });
  return h(
    "figure",
    { class: "code" },
    h("figcaption", {}, h("span", { class: "language" }, name.slice(0, 40)), copying),
    h("pre", { tabindex: "0", "aria-label": `${name.slice(0, 40)} block` }, code),
  );
}

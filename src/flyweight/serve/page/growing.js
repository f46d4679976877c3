// An answer on the screen while it grows: finished blocks are made once and left alone.
import { blocks, codeBlock, element } from "./markdown.js";

const SPACE = /\s/;

/** Markdown that only ever gets longer. */
export class GrowingText {
  #settled = 0; // characters whose blocks no later text can change
  #last = null; // the element of the block that still grows
  #language = "";
  #code = null; // its text, where it is code: there only the new part is added

  constructor(place) {
    this.place = place;
  }

  /** Shows the text, which begins with what was shown before. */
  show(text) {
    const found = blocks(text.slice(this.#settled));
    if (found.length === 0) return;
    const last = found.pop();
    if (found.length || !this.#growCode(last)) {
      const elements = [...found, last].map((block) => element(block));
      if (this.#last) this.#last.replaceWith(...elements);
      else this.place.append(...elements);
      this.#last = elements.at(-1);
      this.#code = last.kind === "code" ? this.#last.querySelector("code") : null;
      this.#language = last.language;
    }
    this.#settled += last.start;
  }

  #growCode(block) {
    if (!this.#code || block.kind !== "code" || block.language !== this.#language) return false;
    const text = block.lines.join("\n");
    const node = this.#code.firstChild;
    const before = node?.data ?? "";
    if (!text.startsWith(before)) return false;
    if (node) node.appendData(text.slice(before.length));
    else this.#code.append(text);
    return true;
  }
}

/** JSON that only ever gets longer, set out in lines as it comes; copied as it is set out. */
export class GrowingJson {
  #read = 0;
  #depth = 0;
  #inString = false;
  #escaped = false;
  #opened = false; // the last sign was { or [: an empty pair stays on one line
  #name = true; // a string that comes now is a name, not a value
  #stack = [];
  #code = null;
  #node = null;

  constructor(place) {
    const make = (code) => (this.#code = code);
    place.append(codeBlock("JSON", "", make));
  }

  /** Shows the text, which begins with what was shown before. */
  show(text) {
    let out = "";
    for (const sign of text.slice(this.#read)) {
      if (this.#inString) {
        out += sign;
        if (this.#escaped) this.#escaped = false;
        else if (sign === "\\") this.#escaped = true;
        else if (sign === '"') {
          this.#inString = false;
          this.#put(out);
          out = "";
          this.#node = null;
        }
      } else if (!SPACE.test(sign)) {
        if (sign === '"') {
          this.#put(out + this.#before(sign));
          out = sign;
          this.#inString = true;
          this.#node = this.#name && this.#stack.at(-1) === "{" ? this.#mark() : null;
        } else out += this.#before(sign) + sign + this.#after(sign);
      }
    }
    this.#put(out);
    this.#read = text.length;
  }

  #put(text) {
    if (text === "") return;
    const place = this.#node ?? this.#code;
    const end = place.lastChild;
    if (end?.nodeType === Node.TEXT_NODE) end.appendData(text);
    else place.append(text);
  }

  #mark() {
    const mark = document.createElement("b");
    this.#code.append(mark);
    return mark;
  }

  #newLine() {
    return `\n${"  ".repeat(Math.min(this.#depth, 40))}`;
  }

  #before(sign) {
    const opened = this.#opened;
    this.#opened = false;
    if (sign === "}" || sign === "]") {
      this.#depth = Math.max(0, this.#depth - 1);
      this.#stack.pop();
      return opened ? "" : this.#newLine();
    }
    return opened ? this.#newLine() : "";
  }

  #after(sign) {
    if (sign === "{" || sign === "[") {
      this.#depth += 1;
      this.#opened = true;
      this.#stack.push(sign);
    }
    if (sign === "{") this.#name = true;
    if (sign === ":") this.#name = false;
    if (sign === ",") this.#name = true;
    if (sign === ",") return this.#newLine();
    return sign === ":" ? " " : "";
  }
}

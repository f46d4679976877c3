// Making and finding elements. Text is only ever set as text: nothing here parses HTML.
import { ICONS } from "./icons.js";

const SVG = "http://www.w3.org/2000/svg";

/** An element with attributes, listeners (`onclick: f`) and children (nodes or text). */
export function h(tag, props = {}, ...children) {
  const element = document.createElement(tag);
  // Children first: with dir="auto" set, each one that is added is searched for its direction.
  element.append(...children.flat().filter((child) => child !== null && child !== undefined));
  for (const [name, value] of Object.entries(props)) {
    if (value === null || value === undefined || value === false) continue;
    if (typeof value === "function") element.addEventListener(name.slice(2), value);
    else if (name === "value" || name === "checked") element[name] = value;
    else element.setAttribute(name, value === true ? "" : value);
  }
  return element;
}

/** A picture of the page's own set; it says nothing to a screen reader. */
export function icon(name) {
  const svg = document.createElementNS(SVG, "svg");
  svg.setAttribute("viewBox", "0 0 24 24");
  svg.setAttribute("aria-hidden", "true");
  svg.setAttribute("class", `icon icon-${name.replace(" ", "-")}`);
  const path = document.createElementNS(SVG, "path");
  path.setAttribute("d", ICONS[name]);
  svg.append(path);
  return svg;
}

/** A button with a picture and, unless `hidden`, its name in words. */
export function button(name, picture, onclick, { hidden = false, ...props } = {}) {
  const content = [picture ? icon(picture) : null, hidden ? null : h("span", {}, name)];
  const named = hidden ? { "aria-label": name, title: name, class: "icon-button" } : {};
  return h("button", { type: "button", onclick, ...named, ...props }, ...content);
}

export const byId = (id) => document.getElementById(id);

/** Moves the focus to the message box; where that would raise a keyboard, beside it. */
export function toDraft() {
  const place = matchMedia("(pointer: coarse)").matches ? byId("main") : byId("draft");
  place.focus({ preventScroll: true });
}

/** Tells a screen reader, once, without moving the focus. */
export function announce(text) {
  const place = byId("announce");
  place.textContent = "";
  setTimeout(() => (place.textContent = text), 60); // a change is what is read out
}

/** Copies text; where a page without TLS may not use the clipboard, in the old way. */
export async function copy(text, from) {
  let done = false;
  try {
    await navigator.clipboard.writeText(text);
    done = true;
  } catch {
    const area = h("textarea", { class: "unseen", "aria-hidden": "true", value: text });
    (from.closest("dialog") ?? document.body).append(area);
    area.select();
    done = document.execCommand("copy");
    area.remove();
    from.focus();
  }
  announce(done ? "Copied" : "The browser did not allow copying");
  if (from.dataset.copied) return;
  const before = [...from.childNodes];
  from.dataset.copied = "yes";
  const words = from.querySelector("span") ? [h("span", {}, done ? "Copied" : "Not allowed")] : [];
  from.replaceChildren(icon(done ? "check" : "close"), ...words);
  setTimeout(() => {
    from.replaceChildren(...before);
    delete from.dataset.copied;
  }, 1600);
}

/** A note at the edge with one way back; it stays while the pointer or the focus is on it. */
export function toast(text, action, onaction) {
  const element = h("div", { class: "toast" }, h("span", {}, text));
  let timer = 0;
  const gone = () => element.remove();
  const wait = () => {
    clearTimeout(timer);
    timer = setTimeout(gone, action ? 20000 : 6000);
  };
  if (action) {
    const act = () => {
      gone();
      onaction();
    };
    element.append(button(action, null, act, { class: "link" }));
  }
  element.append(button("Close this note", "close", gone, { hidden: true }));
  for (const over of ["pointerenter", "focusin"]) element.addEventListener(over, () => clearTimeout(timer));
  for (const out of ["pointerleave", "focusout"]) element.addEventListener(out, wait);
  byId("toasts").replaceChildren(element);
  wait();
}

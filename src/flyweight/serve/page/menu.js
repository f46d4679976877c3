// A small menu under a button: arrow keys move, Escape closes, the focus goes back.
import { h, icon } from "./dom.js";

let close = null;

/** Closes the open menu; true if there was one. */
export function closeMenu() {
  const had = close !== null;
  close?.();
  return had;
}

/** Opens a menu of [name, picture, action] under a button; a second call closes it. */
export function openMenu(from, name, entries) {
  const again = from.getAttribute("aria-expanded") === "true";
  closeMenu();
  if (again) return;
  const items = entries.map(([label, picture, action]) => {
    const act = () => {
      closeMenu();
      action();
    };
    return h("button", { type: "button", role: "menuitem", tabindex: "-1", onclick: act }, icon(picture), h("span", {}, label));
  });
  const menu = h("div", { class: "menu", role: "menu", "aria-label": name }, ...items);
  menu.addEventListener("keydown", (event) => move(event, items));
  document.body.append(menu);
  place(menu, from);
  from.setAttribute("aria-expanded", "true");
  const outside = (event) => {
    if (!menu.contains(event.target) && !from.contains(event.target)) closeMenu();
  };
  document.addEventListener("pointerdown", outside);
  close = () => {
    close = null;
    document.removeEventListener("pointerdown", outside);
    const within = menu.contains(document.activeElement);
    menu.remove();
    from.setAttribute("aria-expanded", "false");
    if (within) from.focus();
  };
  items[0].focus();
}

function move(event, items) {
  const at = items.indexOf(document.activeElement);
  const to = { ArrowDown: at + 1, ArrowUp: at - 1, Home: 0, End: -1 }[event.key];
  if (event.key === "Tab") closeMenu();
  if (event.key === "Escape") {
    event.stopPropagation();
    closeMenu();
  }
  if (to === undefined) return;
  event.preventDefault();
  items.at(to % items.length).focus();
}

function place(menu, from) {
  const box = from.getBoundingClientRect();
  const { width, height } = menu.getBoundingClientRect();
  const below = box.bottom + 4 + height <= innerHeight;
  menu.style.left = `${Math.max(8, Math.min(box.right - width, innerWidth - width - 8))}px`;
  menu.style.top = `${below ? box.bottom + 4 : Math.max(8, box.top - height - 4)}px`;
}

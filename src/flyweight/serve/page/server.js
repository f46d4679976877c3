// Whether the server is there: asked when something hints that it is not, never all the time.
import { health, models } from "./api.js";
import { session } from "./session.js";

const SOON = 2000; // ms between two looks at first; later half as often
let timer = 0;
let looks = 0;

function become(state) {
  if (state === session.server) return;
  session.server = state;
  session.emit("server", state);
}

/** Looks once; goes on looking for as long as the server is away. */
export async function look() {
  clearTimeout(timer);
  const before = session.server;
  const state = await health();
  if (state === "ok") {
    looks = 0;
    if (session.models.length) become(state); // else it is learn that knows
    if (before !== "ok") await learn();
    return;
  }
  become(state);
  looks += 1;
  timer = setTimeout(look, looks < 15 ? SOON : 2 * SOON);
}

/** Asks which models there are; without a key, where one is needed, says so. */
export async function learn() {
  try {
    session.models = await models();
    become("ok");
    session.emit("models");
    return true;
  } catch (error) {
    if (!error.fault) throw error;
    if (error.fault.kind === "key") {
      const asked = session.server === "locked";
      become("locked");
      if (!asked) session.emit("locked"); // once: who closed the dialog knows the way
    } else if (error.fault.kind === "gone") missed();
    else session.emit("unlearned", error.fault);
    return false;
  }
}

/** A request got no answer: the server counts as gone, and is looked for. */
export function missed() {
  become("gone");
  clearTimeout(timer);
  timer = setTimeout(look, SOON);
}

/** From now on the page looks again whenever it is looked at again. */
export function watch() {
  document.addEventListener("visibilitychange", () => {
    if (!document.hidden) look();
  });
}

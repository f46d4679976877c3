// The dialogs for the server's key and for help; every dialog closes by a click beside it.
import { keepKey, serverKey } from "./api.js";
import { byId, toDraft } from "./dom.js";
import { learn } from "./server.js";
import { session } from "./session.js";
import { again, turn } from "./turn.js";

function retryLocked() {
  const last = session.conversation.messages.at(-1);
  if (last?.fault?.kind === "key" && !turn.running) again(last);
}

async function useKey(event) {
  event.preventDefault();
  const key = byId("key-value").value.trim();
  if (!key) return;
  keepKey(key, byId("key-always").checked);
  byId("key-problem").textContent = "";
  byId("key-use").disabled = true;
  const right = await learn();
  byId("key-use").disabled = false;
  if (!right) {
    byId("key-problem").textContent = session.server === "gone"
      ? "The server does not answer." : "The server does not know this key.";
    byId("key-value").focus();
    byId("key-value").select();
    return;
  }
  byId("key").close();
  toDraft();
  retryLocked();
}

/** Connects the dialogs. */
export function setUpDialogs() {
  for (const dialog of document.querySelectorAll("dialog")) {
    dialog.addEventListener("click", (event) => {
      if (event.target === dialog) dialog.close(); // the backdrop
    });
    dialog.querySelector("[data-close]").addEventListener("click", () => dialog.close());
  }
  byId("key-form").addEventListener("submit", useKey);
  byId("key-show").addEventListener("change", (event) => {
    byId("key-value").type = event.target.checked ? "text" : "password";
  });
  session.on("locked", () => {
    if (byId("key").open) return;
    byId("key-value").value = serverKey();
    byId("key-problem").textContent = serverKey() ? "The server does not know this key." : "";
    byId("key").showModal();
    byId("key-value").focus();
  });
  session.on("help", () => byId("help").showModal());
}

// A picture that goes with a message: taken from a file, the clipboard or a drop, and made small.
import { byId, button, h, icon, toast } from "./dom.js";
import { session } from "./session.js";

const LARGEST = 768; // pixels of the longer side: models look at little more
const KINDS = /^image\/(png|jpeg|webp|gif|bmp)$/;

let held = null; // the data: URL of the picture that the draft comes with

/** The picture that goes with the draft; null without one. */
export const heldPicture = () => held;

/** Whether the model takes pictures. */
const sees = () => session.model?.flyweight?.can?.includes("images") ?? false;

/** Whether the conversation has its picture: it is about one. */
const shown = () => session.conversation.messages.some((message) => message.image);

/** Why nothing can be sent with this picture, or in this conversation about one; null if it can. */
export function wrongPicture() {
  if (!held && shown() && !sees()) {
    return ["This conversation is about a picture, and this model has no eyes.", "Choose a model",
      () => session.emit("choose-model")];
  }
  if (!held || (sees() && !shown())) return null;
  return sees()
    ? ["This conversation is about another picture.", "New conversation with this one", () => {
      const kept = held;
      session.start();
      hold(kept);
    }]
    : ["This model has no eyes.", "Leave the picture out", () => hold(null)];
}

/** Holds a picture for the draft, or none. */
export function hold(url) {
  held = url;
  const place = byId("picture");
  const remove = button("Leave the picture out", "close", () => hold(null), { hidden: true });
  place.replaceChildren(...(url ? [h("img", { src: url, alt: "The picture that will be sent" }), remove] : []));
  place.hidden = !url;
  session.emit("settings");
}

/** A file as a data: URL, turned as it was taken, on white, no larger than models look at. */
async function shrunk(file) {
  const bitmap = await createImageBitmap(file);
  const scale = Math.min(1, LARGEST / Math.max(bitmap.width, bitmap.height));
  const canvas = h("canvas", {});
  canvas.width = Math.max(1, Math.round(bitmap.width * scale));
  canvas.height = Math.max(1, Math.round(bitmap.height * scale));
  const drawing = canvas.getContext("2d");
  drawing.fillStyle = "white";
  drawing.fillRect(0, 0, canvas.width, canvas.height);
  drawing.drawImage(bitmap, 0, 0, canvas.width, canvas.height);
  bitmap.close();
  return canvas.toDataURL("image/jpeg", 0.88);
}

async function take(files) {
  const file = pictureIn(files);
  if (!file) return toast("This is no picture that can be sent.");
  const { conversation } = session;
  try {
    const url = await shrunk(file);
    if (session.conversation === conversation && !shown()) hold(url);
  } catch {
    toast("This file holds no picture that the browser can read.");
  }
}

const pictureIn = (files) => [...files].find((each) => KINDS.test(each.type));

/** Connects the button, pasting and dropping. */
export function setUpPicture() {
  const input = byId("picture-file");
  const attach = byId("attach");
  attach.append(icon("picture"));
  attach.addEventListener("click", () => input.click());
  input.addEventListener("change", async () => {
    await take(input.files);
    input.value = "";
    byId("draft").focus();
  });
  byId("draft").addEventListener("paste", (event) => {
    const { clipboardData: given } = event;
    if (!sees() || !given || given.types.includes("text/plain") || !pictureIn(given.files)) return;
    event.preventDefault();
    take(given.files);
  });
  const composer = byId("composer");
  composer.addEventListener("dragover", (event) => {
    if (sees()) event.preventDefault();
  });
  composer.addEventListener("drop", (event) => {
    if (!sees() || !event.dataTransfer?.files.length) return;
    event.preventDefault();
    take(event.dataTransfer.files);
  });
  const show = () => (attach.hidden = !sees() || shown());
  session.on("conversation", () => {
    if (held) hold(null);
    show();
  });
  session.on("models settings messages settled", show);
}

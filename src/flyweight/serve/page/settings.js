// The settings of the open conversation: said at once where something is not right.
import { button, byId, h } from "./dom.js";
import { SCHEMA_EXAMPLE, TOOLS_EXAMPLE, parseSchema, parseTools } from "./forms.js";
import { session } from "./session.js";
import { DEFAULTS } from "./store.js";
import { plural } from "./words.js";

const NUMBERS = {
  temperature: { low: 0, high: 2, whole: false, empty: 0, said: "From 0 to 2." },
  top_p: { low: 0.01, high: 1, whole: false, empty: 1, said: "From 0.01 to 1." },
  max_tokens: { low: 1, high: 1e6, whole: true, empty: null, said: "A whole number from 1, or nothing." },
  seed: { low: 0, high: 2 ** 31 - 1, whole: true, empty: null, said: "A whole number from 0, or nothing." },
};
const CHOICES = { auto: "", required: ", must be called", none: ", not called" };
const pretty = (value) => JSON.stringify(value, null, 2);

/** What is wrong with the settings, so that nothing can be sent; an empty text if nothing is. */
export function wrongSettings() {
  const { form, schema, tools } = session.settings;
  const problem = form === "schema" ? parseSchema(schema).problem : null;
  if (problem) return `The JSON schema: ${problem}`;
  const tool = parseTools(tools).problem;
  return tool ? `The tools: ${tool}` : "";
}

/** The settings that make this conversation special, in a few words each. */
export function modes() {
  const { form, schema, tools, tool_choice, temperature, max_tokens } = session.settings;
  const found = [];
  if (form === "json") found.push("JSON");
  if (form === "schema") found.push(`JSON: ${parseSchema(schema).name ?? "schema not valid"}`);
  const { tools: given, problem } = parseTools(tools);
  if (problem) found.push("Tools not valid");
  else if (given.length) found.push(`${plural(given.length, "tool")}${CHOICES[tool_choice]}`);
  if (temperature > 0) found.push(`Temperature ${temperature}`);
  if (max_tokens) found.push(`At most ${plural(max_tokens, "token")}`);
  return found;
}

function say(id, problem, good) {
  const place = byId(id);
  place.textContent = problem ? `Not valid. ${problem}` : good;
  place.className = problem ? "validity bad" : good ? "validity good" : "validity";
}

function sayForms() {
  const { form, schema, tools } = session.settings;
  byId("schema-example").hidden = schema.trim() !== ""; // it would replace what is there
  byId("tools-example").hidden = tools.trim() !== "";
  const read = parseSchema(schema);
  byId("schema-part").hidden = form !== "schema";
  byId("schema").setAttribute("aria-invalid", String(Boolean(read.problem)));
  if (!schema.trim()) byId("schema-validity").replaceChildren("Paste a JSON schema.");
  if (!schema.trim()) byId("schema-validity").className = "validity";
  else say("schema-validity", read.problem, `Valid: ${read.summary}.`);
  const called = parseTools(tools);
  byId("tools").setAttribute("aria-invalid", String(Boolean(called.problem)));
  say("tools-validity", called.problem, called.tools?.length ? `Valid: ${called.summary}.` : "");
}

function sayAbilities() {
  const can = session.model?.flyweight?.can;
  const lacks = (what) => Array.isArray(can) && !can.includes(what);
  byId("schema-cannot").hidden = !lacks("json_schema");
  byId("tools-cannot").hidden = !lacks("tools");
  const own = session.model?.flyweight?.system;
  byId("system-note").textContent = own
    ? session.settings.system === null ? "The one that this model was judged with." : "Yours; the model was judged with another."
    : "Sent before every conversation; it says what the model is to do.";
  const judged = session.model?.flyweight?.one_turn;
  byId("alone-note").textContent = judged
    ? "This model was made for one message at a time: earlier ones would confuse it."
    : "What was said before is not sent along.";
  byId("system-reset").hidden = !own || session.settings.system === null;
}

function show() {
  const { settings } = session;
  const put = (id, value) => {
    if (document.activeElement !== byId(id)) byId(id).value = value;
  };
  put("system", session.system);
  byId("alone").checked = session.alone;
  put("schema", settings.schema);
  put("tools", settings.tools);
  put("tool_choice", settings.tool_choice);
  for (const name of Object.keys(NUMBERS)) put(name, settings[name] ?? "");
  for (const radio of document.getElementsByName("form")) radio.checked = radio.value === settings.form;
  sayForms();
  sayAbilities();
}

function connectNumber(name) {
  const { low, high, whole, empty, said } = NUMBERS[name];
  const input = byId(name);
  const note = h("p", { class: "validity bad", id: `${name}-problem` });
  input.closest(".field").append(note);
  input.setAttribute("aria-describedby", `${name}-note ${name}-problem`);
  input.addEventListener("input", () => {
    const value = input.value.trim() === "" ? empty : Number(input.value.replace(",", "."));
    const right = value === null || (value >= low && value <= high && (!whole || Number.isInteger(value)));
    note.textContent = right ? "" : said;
    input.setAttribute("aria-invalid", String(!right));
    if (right) session.set({ [name]: value });
  });
  input.addEventListener("blur", () => {
    note.textContent = "";
    input.setAttribute("aria-invalid", "false");
    input.value = session.settings[name] ?? "";
  });
}

/** Opens or closes the settings. */
export function showSettings(open) {
  const panel = byId("settings");
  if (panel.hidden === !open) return;
  panel.hidden = !open;
  byId("open-settings").setAttribute("aria-expanded", String(open));
  document.body.classList.toggle("settings-open", open);
  byId("column").inert = open && matchMedia("(max-width: 1100px)").matches;
  (open ? byId("close-settings") : byId("open-settings")).focus();
}

/** Connects every field. */
export function setUpSettings() {
  byId("open-settings").addEventListener("click", () => showSettings(byId("settings").hidden));
  byId("close-settings").addEventListener("click", () => showSettings(false));
  byId("system").addEventListener("input", (event) => session.set({ system: event.target.value }));
  byId("alone").addEventListener("change", (event) => session.set({ alone: event.target.checked }));
  byId("schema").addEventListener("input", (event) => session.set({ schema: event.target.value }));
  byId("tools").addEventListener("input", (event) => session.set({ tools: event.target.value }));
  byId("tool_choice").addEventListener("change", (event) => session.set({ tool_choice: event.target.value }));
  for (const radio of document.getElementsByName("form")) {
    radio.addEventListener("change", () => session.set({ form: radio.value }));
  }
  for (const name of Object.keys(NUMBERS)) connectNumber(name);
  const example = (name, value) =>
    button("Insert an example", null, () => session.set({ [name]: pretty(value) }), { class: "quiet" });
  byId("schema-example").append(example("schema", SCHEMA_EXAMPLE));
  byId("tools-example").append(example("tools", TOOLS_EXAMPLE));
  byId("system-reset").addEventListener("click", () => session.set({ system: null }));
  byId("reset").addEventListener("click", () => {
    const { temperature, top_p, max_tokens, seed } = DEFAULTS;
    session.set({ temperature, top_p, max_tokens, seed });
  });
  session.on("show-settings", () => showSettings(true));
  session.on("settings conversation models", show);
}

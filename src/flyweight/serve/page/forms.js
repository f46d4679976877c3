// What the person gives as JSON (a schema, tools): read, and said at once if it is not right.
const TYPES = new Set(["object", "array", "string", "number", "integer", "boolean", "null"]);
const NAME = /^[\w.-]{1,64}$/; // the API's rule for names of tools and schemas
const DEEPEST = 40;

export const SCHEMA_EXAMPLE = {
  type: "object",
  properties: {
    asset: { type: "string" },
    severity: { enum: ["low", "medium", "high"] },
  },
  required: ["asset", "severity"],
  additionalProperties: false,
};

export const TOOLS_EXAMPLE = [
  {
    type: "function",
    function: {
      name: "read_sensor",
      description: "Reads a sensor of a machine.",
      parameters: {
        type: "object",
        properties: { machine: { type: "string" }, sensor: { type: "string" } },
        required: ["machine", "sensor"],
      },
    },
  },
];

const isObject = (value) => typeof value === "object" && value !== null && !Array.isArray(value);
const listed = (names) => names.slice(0, 6).join(", ") + (names.length > 6 ? " …" : "");

/** Parses JSON; where it fails, says in which line. */
function parse(text) {
  try {
    return { value: JSON.parse(text) };
  } catch (error) {
    const where = /line (\d+) column (\d+)/.exec(error.message);
    const at = /position (\d+)/.exec(error.message);
    let line = where ? Number(where[1]) : null;
    if (!line && at) line = text.slice(0, Number(at[1])).split("\n").length;
    if (!line && /end of (JSON|data)|Unexpected end/i.test(error.message)) line = text.split("\n").length;
    return { problem: `Not JSON yet${line ? `: look at line ${line}` : ""}.` };
  }
}

/** The first problem of a schema, with its place; null if there is none. */
function problemIn(schema, place, depth = 0) {
  if (typeof schema === "boolean") return null;
  if (!isObject(schema)) return `${place} is not a schema.`;
  if (depth > DEEPEST) return `${place} is nested too deeply.`;
  const types = [schema.type ?? []].flat();
  const odd = types.find((type) => !TYPES.has(type));
  if (odd !== undefined) return `${place} has the unknown type “${odd}”.`;
  if ("enum" in schema && !(Array.isArray(schema.enum) && schema.enum.length)) {
    return `${place}: “enum” is a list with at least one value.`;
  }
  if ("properties" in schema && !isObject(schema.properties)) return `${place}: “properties” is an object.`;
  if ("required" in schema) {
    if (!Array.isArray(schema.required)) return `${place}: “required” is a list of names.`;
    const absent = schema.required.find((name) => !(name in (schema.properties ?? {})));
    if (absent !== undefined) return `${place} requires “${absent}”, which is not among its properties.`;
  }
  const inner = Object.entries(schema.properties ?? {}).map(([name, sub]) => [sub, `“${name}”`]);
  if ("items" in schema) inner.push([schema.items, `the items of ${place}`]);
  for (const many of ["anyOf", "oneOf", "allOf"]) {
    if (many in schema && !Array.isArray(schema[many])) return `${place}: “${many}” is a list of schemas.`;
    for (const sub of schema[many] ?? []) inner.push([sub, `${many} of ${place}`]);
  }
  for (const [sub, where] of inner) {
    const problem = problemIn(sub, where, depth + 1);
    if (problem) return problem;
  }
  return null;
}

/** A schema as typed: {name, schema, summary} or {problem}. The API's wrapper is taken too. */
export function parseSchema(text) {
  if (!text.trim()) return { problem: "Paste a JSON schema." };
  let { value, problem } = parse(text);
  if (problem) return { problem };
  value = value?.json_schema ?? value;
  const wrapped = isObject(value) && isObject(value.schema) && !("type" in value);
  const schema = wrapped ? value.schema : value;
  if (!isObject(schema)) return { problem: "A schema is an object, in { }." };
  problem = problemIn(schema, "The schema");
  if (problem) return { problem };
  const title = [wrapped ? value.name : null, schema.title].find((name) => NAME.test(name ?? ""));
  const names = Object.keys(schema.properties ?? {});
  const summary = names.length ? `an object with ${listed(names)}` : `any ${schema.type ?? "value that fits"}`;
  return { name: title ?? "answer", schema, summary };
}

/** Tool definitions as typed: {tools, summary} or {problem}; nothing typed is no tools. */
export function parseTools(text) {
  if (!text.trim()) return { tools: [], summary: "" };
  const { value, problem } = parse(text);
  if (problem) return { problem };
  const tools = Array.isArray(value) ? value : (value?.tools ?? [value]);
  if (!Array.isArray(tools) || !tools.length) return { problem: "Tools are a list, in [ ]." };
  const names = [];
  for (const [index, tool] of tools.entries()) {
    const which = `Tool ${index + 1}`;
    const given = tool?.function;
    if (tool?.type !== "function" || !isObject(given)) {
      return { problem: `${which} lacks "type": "function" or its "function".` };
    }
    if (!NAME.test(given.name ?? "")) return { problem: `${which} needs a name of letters, digits and _ . -` };
    if (names.includes(given.name)) return { problem: `Two tools are named “${given.name}”.` };
    const wrong = "parameters" in given ? problemIn(given.parameters, `${which}: its parameters`) : null;
    if (wrong) return { problem: wrong };
    names.push(given.name);
  }
  return { tools, summary: listed(names) };
}

/** The value of an answer that is a whole JSON object or list; undefined if it is not. */
export function wholeJson(text) {
  const start = text.trimStart()[0];
  if (start !== "{" && start !== "[") return undefined;
  try {
    return JSON.parse(text);
  } catch {
    return undefined;
  }
}

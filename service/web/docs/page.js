// Makes the page from /openapi.json: what there is to ask, a form for each, and what the node answers to it.
"use strict";

const $ = (id) => document.getElementById(id);

/** An element with attributes and children; texts become text, never markup. */
function make(tag, attributes, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes || {})) {
    if (value === true) made.setAttribute(name, "");
    else if (value !== false && value !== undefined) made.setAttribute(name, value);
  }
  made.append(...children.flat(Infinity).filter((child) => child !== null && child !== undefined));
  return made;
}

/** Text with `code` in it. */
const prose = (text) => (text || "").split(/`([^`]+)`/).map((part, at) => (at % 2 ? make("code", {}, part) : part));

let api;

const resolved = (schema) =>
  schema && schema.$ref ? api.components.schemas[schema.$ref.split("/").pop()] : schema || {};

/** Something to begin with: the required fields of a body, filled in by type. */
function sample(schema) {
  const given = resolved(schema);
  if (given.anyOf) return sample(given.anyOf[0]);
  if (given.enum) return given.enum[0];
  switch (given.type) {
    case "object":
      return Object.fromEntries((given.required || []).map((name) => [name, sample(given.properties[name])]));
    case "array":
      return [];
    case "string":
      return "";
    case "integer":
    case "number":
      return given.minimum || 0;
    case "boolean":
      return true;
    default:
      return "hi";
  }
}

/** A schema in one or a few lines, for reading. */
function spelt(schema, depth = 0) {
  const given = depth ? schema : resolved(schema);
  if (given.$ref) return depth > 3 ? given.$ref.split("/").pop() : spelt(resolved(given), depth);
  if (given.anyOf) return given.anyOf.map((one) => spelt(one, depth)).join(" | ");
  if (given.enum) return given.enum.map((one) => JSON.stringify(one)).join(" | ");
  if (given.type === "array") return `[${spelt(given.items || {}, depth + 1)}, …]`;
  if (given.type === "object" && given.properties) {
    const pad = "  ".repeat(depth + 1);
    const required = new Set(given.required || []);
    const rows = Object.entries(given.properties).map(
      ([name, one]) => `${pad}${name}${required.has(name) ? "" : "?"}: ${spelt(one, depth + 1)}`,
    );
    return `{\n${rows.join("\n")}\n${"  ".repeat(depth)}}`;
  }
  if (given.type === "object" && given.additionalProperties)
    return `{name: ${spelt(given.additionalProperties, depth + 1)}, …}`;
  const bounds = [
    ["minimum", "≥ "],
    ["maximum", "≤ "],
    ["maxLength", "length ≤ "],
  ]
    .filter(([name]) => given[name] !== undefined)
    .map(([name, sign]) => sign + given[name]);
  return (given.type || "any JSON") + (bounds.length ? ` (${bounds.join(", ")})` : "");
}

function field(parameter) {
  const { schema } = parameter;
  const names = { "data-name": parameter.name, "data-in": parameter.in, required: Boolean(parameter.required) };
  const hint = [...prose(parameter.description), schema.maximum ? ` (${schema.minimum} to ${schema.maximum})` : ""];
  const input = schema.enum
    ? make(
        "select",
        names,
        ["", ...schema.enum].map((one) => make("option", { value: one }, one || "–")),
      )
    : make("input", {
        ...names,
        type: schema.type === "integer" ? "number" : "text",
        min: schema.minimum,
        max: schema.maximum,
        placeholder: schema.default,
        spellcheck: "false",
        autocapitalize: "off",
      });
  return make(
    "label",
    {},
    parameter.name,
    parameter.required ? "" : make("small", {}, " optional"),
    make("br"),
    make("small", {}, hint),
    input,
  );
}

function responses(operation) {
  const rows = Object.entries(operation.responses).map(([status, one]) =>
    make("tr", {}, make("td", {}, status), make("td", {}, prose(one.description))),
  );
  const told = Object.entries(operation.responses)
    .map(([status, one]) => [status, one.content && one.content["application/json"]])
    .filter(([, content]) => content && content.schema.$ref)
    .map(([status, { schema }]) => [
      make("p", {}, `${status}: `, prose(resolved(schema).description)),
      make("pre", { tabindex: "0" }, spelt(schema)),
    ]);
  return make(
    "details",
    {},
    make("summary", {}, "What it may answer"),
    make("div", { class: "operation-schemas" }, make("table", {}, make("tbody", {}, rows)), told),
  );
}

/** The request that a form describes. */
function request(path, method, form) {
  const headers = {};
  const query = new URLSearchParams();
  let where = path;
  for (const input of form.querySelectorAll("[data-in]")) {
    const { name, in: place } = input.dataset;
    if (place === "path") where = where.replace(`{${name}}`, encodeURIComponent(input.value));
    else if (input.value && place === "query") query.set(name, input.value);
    else if (input.value && place === "header") headers[name] = input.value;
  }
  const body = form.querySelector("textarea");
  if (body && body.value.trim()) headers["Content-Type"] = "application/json";
  if ($("token").value.trim()) headers.Authorization = `Bearer ${$("token").value.trim()}`;
  if ($("user").value.trim()) query.set("user", $("user").value.trim());
  const asked = String(query) ? `${where}?${query}` : where;
  return [
    asked,
    {
      method: method.toUpperCase(),
      headers,
      body: body && body.value.trim() ? body.value : undefined,
      cache: "no-store",
      redirect: "error",
    },
  ];
}

function pretty(text, kind) {
  if (!/json/.test(kind || "")) return text;
  // Bodies are kept to the byte: numbers that JavaScript would round are shown as they came.
  try {
    return /\d{16}|\d[eE.]\d/.test(text) ? text : JSON.stringify(JSON.parse(text), null, 2);
  } catch {
    return text;
  }
}

/** Shows what comes, as it comes: the last part of it. */
async function follow(told, body) {
  const reader = told.body.pipeThrough(new TextDecoderStream()).getReader();
  for (let read = await reader.read(); !read.done; read = await reader.read()) {
    body.textContent = (body.textContent + read.value).slice(-50_000);
    body.scrollTop = body.scrollHeight;
  }
}

async function send(path, method, form, answer) {
  const button = form.querySelector("button");
  if (form.stop) {
    form.stop.abort();
    return;
  } // an answer without end, as /v1/events has, ends with the second press
  const [asked, options] = request(path, method, form);
  form.stop = new AbortController();
  button.textContent = "Stop";
  const began = performance.now();
  try {
    const told = await fetch(asked, { ...options, signal: form.stop.signal });
    const kind = told.headers.get("content-type") || "";
    const body = make("pre", { tabindex: "0", "aria-label": "body" });
    const took = Math.round(performance.now() - began);
    const headers = [...told.headers].map(([name, value]) => `${name}: ${value}`).join("\n");
    answer.replaceChildren(
      make("h3", {}, "Answer"),
      make(
        "p",
        {},
        make("span", { class: `status ${told.ok ? "good" : "bad"}` }, `${told.status} ${told.statusText}`),
        ` in ${took} ms to `,
        make("code", {}, `${options.method} ${asked}`),
      ),
      body,
      make("details", {}, make("summary", {}, "Headers"), make("pre", { tabindex: "0" }, headers)),
    );
    if (/event-stream/.test(kind)) await follow(told, body);
    else body.textContent = pretty(await told.text(), kind) || "(no body)";
  } catch (problem) {
    if (problem.name === "AbortError") answer.append(make("p", {}, "Stopped."));
    else answer.replaceChildren(make("p", { class: "problem" }, `No answer: ${problem.message}`));
  } finally {
    form.stop = null;
    button.textContent = "Send";
  }
}

function operationCard(path, method, operation) {
  const content = operation.requestBody && operation.requestBody.content["application/json"];
  const answer = make("div", { "aria-live": "polite" });
  const isOptional = operation.requestBody && !operation.requestBody.required;
  const body = content && [
    make(
      "label",
      {},
      "Body",
      make("small", {}, isOptional ? " optional" : ""),
      make("br"),
      make("small", {}, prose(resolved(content.schema).description)),
      make(
        "textarea",
        { spellcheck: "false", autocapitalize: "off", rows: "6" },
        JSON.stringify(sample(content.schema), null, 2),
      ),
    ),
    make(
      "details",
      {},
      make("summary", {}, "Fields of the body"),
      make("div", { class: "operation-schemas" }, make("pre", { tabindex: "0" }, spelt(content.schema))),
    ),
  ];
  const form = make(
    "form",
    {},
    operation.description ? make("p", {}, prose(operation.description)) : null,
    operation.parameters.length
      ? [make("h3", {}, "Parameters"), make("div", { class: "fields" }, operation.parameters.map(field))]
      : null,
    content ? [make("h3", {}, "Request"), body] : null,
    make("button", { type: "submit" }, "Send"),
  );
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    send(path, method, form, answer);
  });
  return make(
    "details",
    { class: "operation", id: operation.operationId },
    make(
      "summary",
      {},
      make("span", { class: `method ${method}` }, method.toUpperCase()),
      make("span", { class: "path" }, path),
      make("span", { class: "what" }, prose(operation.summary)),
    ),
    make("div", { class: "inside" }, form, answer, responses(operation)),
  );
}

function show() {
  $("version").textContent = api.info.version;
  $("about").replaceChildren(...prose(api.info.description));
  const all = Object.entries(api.paths).flatMap(([path, methods]) =>
    Object.entries(methods).map(([method, one]) => [path, method, one]),
  );
  const sections = api.tags.map(({ name, description }) =>
    make(
      "section",
      {},
      make("h2", {}, name, make("small", {}, description)),
      all.filter(([, , one]) => one.tags.includes(name)).map((one) => operationCard(...one)),
    ),
  );
  $("operations").replaceChildren(...sections);
  const asked = location.hash && $(location.hash.slice(1));
  if (asked && asked.tagName === "DETAILS") {
    asked.open = true;
    asked.scrollIntoView();
  }
}

function find() {
  const words = $("find").value.toLowerCase().split(/\s+/).filter(Boolean);
  for (const section of document.querySelectorAll("#operations section")) {
    const cards = [...section.querySelectorAll(".operation")];
    for (const card of cards)
      card.hidden = !words.every((word) => card.querySelector("summary").textContent.toLowerCase().includes(word));
    section.hidden = cards.every((card) => card.hidden);
  }
}

$("sign-in").addEventListener("submit", (event) => event.preventDefault());
$("find").addEventListener("input", find);
fetch("/openapi.json")
  .then((told) => {
    if (!told.ok) throw new Error(String(told.status));
    return told.json();
  })
  .then((found) => {
    api = found;
    show();
  })
  .catch((problem) =>
    $("operations").replaceChildren(
      make("p", { class: "problem", role: "alert" }, `/openapi.json could not be read: ${problem.message}`),
    ),
  );

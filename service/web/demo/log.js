// The open conversation as lines: messages and their states, who came and went, days, and gaps.

import { $, make, show } from "./dom.js";
import { gapText } from "./gaps.js";
import { idOf } from "./conversations.js";

const timeOf = (id) => new Date(Number(id.split("-")[0]));
const clock = new Intl.DateTimeFormat(undefined, { hour: "2-digit", minute: "2-digit" });
const day = new Intl.DateTimeFormat(undefined, { dateStyle: "full" });

/** A body as it was sent: this page sends `{ text }`, others may send any JSON. */
function content(body) {
  if (typeof body?.text === "string") return make("p", { class: "text" }, body.text);
  return make("pre", { tabindex: "0" }, JSON.stringify(body, null, 2));
}

function messageLine(message, me, takeAway) {
  const isOwn = message.from === me;
  const time = timeOf(message.id);
  const body = message.redacted ? make("p", { class: "gone" }, "This message was taken away") : content(message.body);
  const state =
    isOwn &&
    !message.redacted &&
    make("span", { class: "state", title: message.durability ? `stored: ${message.durability}` : "stored" }, "sent");
  return make(
    "li",
    { class: isOwn ? "own" : "other", "data-id": message.id, "data-state": "sent" },
    make("p", { class: "from" }, message.from),
    body,
    make(
      "p",
      { class: "below" },
      make(
        "time",
        { datetime: time.toISOString(), title: `${time.toLocaleString()} · ${message.id}` },
        clock.format(time),
      ),
      state || null,
      isOwn && !message.redacted
        ? make("button", { type: "button", class: "small", onclick: () => takeAway(message) }, "Take away")
        : null,
    ),
  );
}

function line(entry, { me, inbox, takeAway }) {
  if (entry.type === "message") return messageLine(entry, me, takeAway);
  if (entry.type === "gap") {
    return make(
      "li",
      { class: "gap", "data-gap": entry.cause.kind, title: entry.cause.at },
      gapText(entry, entry.stream === inbox),
    );
  }
  return make("li", { class: "note" }, `${entry.user} has ${entry.type} the group`);
}

/** Shows the lines; `context` has `me`, `inbox`, and `takeAway(message)`. */
export function showLog(lines, context) {
  let last;
  const rows = [];
  for (const entry of lines) {
    const date = timeOf(idOf(entry));
    const today = date.toDateString();
    if (entry.type === "message" && today !== last) {
      rows.push({ key: today, version: 0, draw: () => make("li", { class: "day" }, day.format(date)) });
      last = today;
    }
    const version = entry.type === "gap" ? entry.after : `${entry.redacted} ${entry.durability}`;
    rows.push({ key: `${entry.type} ${entry.stream} ${idOf(entry)}`, version, draw: () => line(entry, context) });
  }
  show($("log"), rows);
}

/** Shows what is not stored yet. What has failed for good waits for a decision. */
export function showOutbox(items, { resend, discard }) {
  show(
    $("outbox"),
    items.map((item) => ({
      key: item.key,
      version: `${item.state} ${item.code}`,
      draw: () =>
        make(
          "li",
          { class: "own", "data-key-of": item.key, "data-state": item.state },
          content(item.body),
          make(
            "p",
            { class: "below" },
            make("span", { class: "state" }, item.state === "failed" ? `failed: ${item.code}` : "queued"),
            item.state === "failed"
              ? [
                  make("button", { type: "button", class: "small", onclick: () => resend(item.key) }, "Send again"),
                  make("button", { type: "button", class: "small", onclick: () => discard(item.key) }, "Discard"),
                ]
              : null,
          ),
        ),
    })),
  );
}

// A page that shows what Waypost does, and how a page uses its client. Begin to read here.

import { connect } from "/client/waypost.js";
import { offerSecondDevice, showConnection } from "./connection.js";
import { showConversation } from "./conversation.js";
import { Conversations } from "./conversations.js";
import { $ } from "./dom.js";
import { recentPeople } from "./history.js";
import { showOffsets } from "./offsets.js";
import { showPlaces } from "./places.js";

function begin(user, device) {
  $("app").hidden = false;
  $("who").textContent = device ? `${user} · ${device}` : user;

  // In dev mode a name is enough. Elsewhere: `connect({ getToken })`.
  const client = connect({ user, device });
  const conversations = new Conversations(user, () => draw());
  const conversation = showConversation(client, conversations);
  const drawPlaces = showPlaces(client, conversations);
  const draw = () => {
    drawPlaces();
    conversation.draw();
  };

  // An entry is acknowledged once these have returned. This page keeps it in memory, and asks history for what it had
  // before a reload; a page that keeps messages itself would store them here, and return a promise.
  client.on("message", (message) => {
    const where = conversations.take(message);
    if (!conversation.isSeen(where)) conversations.markUnread(where, message);
  });
  client.on("gap", (gap) => conversations.take(gap));
  client.on("redacted", (entry) => conversations.take(entry));
  client.on("joined", (entry) => conversations.take(entry));
  client.on("left", (entry) => {
    if (entry.user === user)
      conversations.forget(`group:${entry.group}`); // on whichever device
    else conversations.take(entry);
  });

  // Of an own message the outbox says first that it is there, then that it is stored, and where. It comes as a message,
  // too: before or after, and is one line, for its stream and id are the same.
  client.on("outbox", ({ state, to, body, sent }) => {
    // What a reload has found in the outbox is shown where it was written, and what has failed wants a decision, even
    // in a group that was left meanwhile.
    if (state === "queued" || state === "failed") conversations.open(to);
    if (state === "sent" && sent.id) {
      const { stream, id, mid, durability } = sent;
      conversations.take({ type: "message", stream, id, mid, from: user, to, body, durability });
    }
    draw();
  });

  client.on("state", () => {
    $("who").textContent = `${client.user} · ${client.device}`;
  });

  client.on("live", ({ stream }) => {
    if (stream) return;
    // All streams are known now: the groups that this user is in are among them.
    for (const name of client.progress().keys()) if (name.startsWith("group:")) conversations.open(name);
    recentPeople(client, conversations).catch(() => {}); // the list is shorter then; the next `live` asks again
  });

  showConnection(client);
  showOffsets(client);
  offerSecondDevice(client);
  addEventListener("hashchange", drawPlaces);
  conversation.open();
  draw();
}

const query = new URLSearchParams(location.search);
if (query.get("user")) begin(query.get("user"), query.get("device") || undefined);
else {
  $("welcome").hidden = false;
  document.forms["sign-in"].elements.user.focus();
}

// docs/protocol.md, "Counting", "Gaps", "Offsets": what is handed to handlers, how often, in which order.

import assert from "node:assert/strict";
import { compareIds } from "../../service/web/waypost.js";
import { bodies, client, fake, live, LocalStorage, test, until } from "./harness.js";
import { number } from "./store.js";

const marks = (count, from = 1) => Array.from({ length: count }, (_, i) => i + from);
const ids = (one) => one.heard.map((event) => `${event.stream} ${event.id ?? event.to}`);

test("what was missed comes first, then live, then what is new; each once, in order", async () => {
  const server = await fake();
  for (const n of marks(20)) server.store.say("bob", "user:alice", n);
  const one = client(server);
  await live(one);
  assert.deepEqual(bodies(one), marks(20));
  assert.equal(one.lives, 1);
  for (const n of marks(20, 21)) server.store.say("bob", "user:alice", n);
  await until(() => one.heard.length === 40);
  assert.deepEqual(bodies(one), marks(40));
});

test("rule 1: an entry that was had is dropped, on one connection and after another", async () => {
  const server = await fake();
  for (const n of marks(5)) server.store.say("bob", "user:alice", n);
  server.script = (step) => (step === "entry" ? "twice" : undefined);
  const one = client(server);
  await live(one);
  server.connection.drop();
  for (const n of marks(5, 6)) server.store.say("bob", "user:alice", n);
  await until(() => one.heard.length >= 10);
  await until(() => one.lives === 2);
  assert.deepEqual(bodies(one), marks(10));
});

test("rule 2: an own message is counted as sent, and comes to the handlers once, with its body", async () => {
  const server = await fake();
  const one = client(server);
  await live(one);
  const sent = await one.send("user:bob", { own: 1 });
  assert.equal(sent.stream, "user:alice");
  assert.equal(sent.duplicate, false);
  assert.equal(sent.durability, "fsynced");
  server.store.say("bob", "user:alice", "after");
  await until(() => one.heard.length === 2);
  const [own] = one.heard;
  assert.deepEqual(
    { ...own },
    {
      type: "message",
      stream: "user:alice",
      id: sent.id,
      mid: sent.mid,
      from: "alice",
      to: "user:bob",
      body: { own: 1 },
    },
  );
  assert.equal(server.connections.length, 1, "the numbers had no hole");
  await until(() => one.progress().get("user:alice").acked === one.heard[1].id);
});

test("rule 3: the own joined in a group's stream begins the count anew", async () => {
  const server = await fake();
  server.store.join("bob", "g");
  for (const n of marks(5)) server.store.say("bob", "group:g", n);
  const one = client(server);
  await live(one);
  server.store.join("alice", "g"); // by another device
  server.store.tell();
  server.store.say("bob", "group:g", "welcome");
  await until(() => bodies(one).includes("welcome"));
  assert.deepEqual(bodies(one), ["welcome"]);
  server.store.leave("alice", "g");
  server.store.tell();
  for (const n of marks(3)) server.store.say("bob", "group:g", n);
  server.store.join("alice", "g");
  server.store.tell();
  server.store.say("bob", "group:g", "again");
  await until(() => bodies(one).includes("again"));
  assert.deepEqual(bodies(one), ["welcome", "again"]);
  assert.equal(server.connections.length, 1);
});

test("rule 4: an answer that overtakes is not counted; the entry comes in its place, once", async () => {
  const server = await fake();
  server.store.join("alice", "g");
  server.store.join("bob", "g");
  const one = client(server);
  await live(one);
  const connection = server.connection;
  connection.hold("group:g");
  for (const n of marks(3)) server.store.say("bob", "group:g", n);
  const sent = await one.send("group:g", "mine");
  server.store.say("bob", "group:g", 4);
  await one.history("group:g"); // what was said before has been heard
  assert.deepEqual(bodies(one), []);
  await connection.release("group:g");
  await until(() => bodies(one).length === 5);
  assert.deepEqual(bodies(one), [1, 2, 3, "mine", 4]);
  assert.equal(one.heard.find((event) => event.body === "mine").id, sent.id);
  await until(() => one.heard.length && server.connections.length === 1 && one.lives === 2);
});

test("rule 5: a hole leads to a new connection, and nothing is missing then", async () => {
  const server = await fake();
  const one = client(server);
  await live(one);
  let holes = 1;
  server.script = (step, _, detail) =>
    step === "entry" && number(detail.id) === 3 && holes-- > 0 ? "drop" : undefined;
  for (const n of marks(6)) server.store.say("bob", "user:alice", n);
  await until(() => one.heard.length === 6);
  assert.deepEqual(bodies(one), marks(6));
  assert.equal(server.connections.length, 2);
});

test("a hole that stays is not silent: a gap is told in its place, and what lies behind it comes", async () => {
  const server = await fake();
  const one = client(server);
  await live(one);
  server.script = (step, _, detail) => (step === "entry" && number(detail.id) === 3 ? "drop" : undefined);
  for (const n of marks(6)) server.store.say("bob", "user:alice", n);
  await until(() => one.heard.length === 6);
  assert.deepEqual(
    one.heard.map((event) => event.body ?? event.type),
    [1, 2, "gap", 4, 5, 6],
  );
  assert.ok(server.connections.length >= 2, "it asked once more before it gave up");
  assert.equal(one.heard[2].missed, 1);
});

test("several frames in one message, with blank lines and blanks, are all taken", async () => {
  const server = await fake();
  const one = client(server);
  await live(one);
  const at = (n) =>
    JSON.stringify({
      type: "message",
      stream: "user:alice",
      id: `5-${n}`,
      mid: `m${n}`,
      from: "bob",
      to: "user:alice",
      body: n,
    });
  server.connection.write(`${at(1)}\n  ${at(2)}  \n\n${at(3)}\r\n`);
  server.connection.write(Buffer.from(at(4))); // binary is read alike
  await until(() => one.heard.length === 4, "four entries");
  assert.deepEqual(bodies(one), marks(4));
});

test("unknown types and fields: an entry is counted and handed out as entry, another frame is nothing", async () => {
  const server = await fake();
  const one = client(server);
  await live(one);
  server.connection.out(
    { type: "weather", sun: true },
    { type: "reaction", stream: "user:alice", id: "5-1", emoji: 1 },
  );
  server.connection.out({
    type: "message",
    stream: "user:alice",
    id: "6-2",
    mid: "m",
    from: "bob",
    to: "user:alice",
    body: 1,
    colour: "red",
  });
  await until(() => one.heard.length === 2);
  assert.deepEqual(
    one.heard.map((event) => event.type),
    ["reaction", "message"],
  );
  assert.equal(one.heard[0].emoji, 1);
  assert.equal(server.connections.length, 1);
});

test("messages that were redacted, and redacted entries, come as they are", async () => {
  const server = await fake();
  const one = client(server);
  await live(one);
  server.connection.out({
    type: "message",
    stream: "user:alice",
    id: "5-1",
    mid: "m",
    from: "bob",
    to: "user:alice",
    redacted: true,
  });
  server.connection.out({ type: "redacted", stream: "user:alice", id: "6-2", target: "5-1", by: "bob" });
  await until(() => one.heard.length === 2);
  assert.equal("body" in one.heard[0] && one.heard[0].body !== undefined, false);
  assert.equal(one.heard[0].redacted, true);
  assert.equal(one.heard[1].target, "5-1");
});

test("a gap comes in its place, counts as delivered, and is acknowledged", async () => {
  for (const kind of ["trimmed", "lost"]) {
    const server = await fake();
    for (const n of marks(6)) server.store.say("bob", "user:alice", n);
    if (kind === "trimmed") server.store.trim("user:alice", 4);
    else server.store.lose("user:alice", 2, 4);
    server.store.device("alice", "phone").set("user:alice", "0-0");
    const one = client(server);
    await live(one);
    const gap = one.heard.find((event) => event.type === "gap");
    assert.equal(gap.cause.kind, kind);
    assert.equal(gap.missed, kind === "trimmed" ? 4 : 3);
    assert.deepEqual(bodies(one), kind === "trimmed" ? [5, 6] : [1, 5, 6]);
    await until(() => server.acks.some((ack) => number(ack["user:alice"]) === 6));
    assert.equal(server.connections.length, 1);
  }
});

test("a gap at the end of what is there is acknowledged too", async () => {
  const server = await fake();
  for (const n of marks(3)) server.store.say("bob", "user:alice", n);
  server.store.trim("user:alice", 3);
  server.store.device("alice", "phone").set("user:alice", "0-0");
  const one = client(server);
  await until(() => server.acks.some((ack) => number(ack["user:alice"] ?? "0-0") === 3));
  assert.deepEqual(
    one.heard.map((event) => event.type),
    ["gap"],
  );
});

test("a new epoch: the gap is told, numbers begin below, nothing new is taken for old", async () => {
  const server = await fake();
  const storage = new LocalStorage();
  for (const n of marks(9)) server.store.say("bob", "user:alice", n);
  const one = client(server, { storage });
  await live(one);
  server.store.reset("another");
  for (const n of marks(3, 101)) server.store.say("bob", "user:alice", n);
  server.connection.close(4000);
  await until(() => bodies(one).length === 12);
  assert.deepEqual(bodies(one).slice(9), [101, 102, 103]);
  assert.ok(one.heard.some((event) => event.type === "gap" && event.cause.kind === "epoch" && event.missed === null));
  await until(() => number(one.progress().get("user:alice").acked) === 3);
  await one.close();
  server.store.say("bob", "user:alice", 104);
  const two = client(server, { storage });
  await live(two);
  assert.deepEqual(bodies(two), [104]);
  assert.equal(server.connection.said.epoch, "another");
});

test("welcome with more: streams come in further frames, before any entry", async () => {
  const server = await fake();
  server.welcomeStreams = 2;
  for (const n of marks(7)) {
    server.store.join("alice", `g${n}`);
    server.store.join("bob", `g${n}`);
    server.store.say("bob", `group:g${n}`, n);
  }
  const one = client(server);
  await live(one);
  assert.deepEqual(bodies(one).sort(), marks(7));
  assert.equal(server.connections.length, 1);
  assert.equal(one.progress().size, 9);
});

test("cut in the middle of the replay, at every place: each entry once, in order", async () => {
  const server = await fake();
  for (const n of marks(12)) server.store.say("bob", "user:alice", n);
  let next = 1;
  server.script = (step, _, detail) =>
    step === "entry" && number(detail.id) === next + 1 && ++next && true ? "cut" : undefined;
  const one = client(server);
  for (let at = 0; at < 12; at += 1) {
    await until(() => next > at || one.state.state === "live");
    one.reconnect();
  }
  await live(one);
  assert.deepEqual(bodies(one), marks(12));
});

test("a stream appears while the connection is open, and one ends with the own left", async () => {
  const server = await fake();
  server.store.join("bob", "g");
  const one = client(server);
  await live(one);
  const joined = await one.join("g");
  assert.equal(joined.group, "g");
  server.store.say("bob", "group:g", "hi");
  await until(() => bodies(one).includes("hi"));
  await one.leave("g");
  await until(() => one.heard.some((event) => event.type === "left" && event.stream === "group:g"));
  server.store.say("bob", "user:alice", "done");
  await until(() => bodies(one).includes("done"));
  await until(() => server.acks.some((ack) => ack["user:alice"] === one.heard.at(-1).id));
  assert.equal(new Set(ids(one)).size, one.heard.length, "nothing twice");
  assert.equal(one.progress().has("group:g"), false, "the stream is forgotten");
});

test("ids are compared as pairs of numbers", () => {
  assert.ok(compareIds("9-2", "10-1") < 0);
  assert.ok(compareIds("10-10", "10-9") > 0);
  assert.equal(compareIds("10-1", "10-1"), 0);
});

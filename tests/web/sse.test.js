// docs/http.md: Server-Sent Events with POST, where WebSockets are blocked.

import assert from "node:assert/strict";
import { token } from "./fake.js";
import { bodies, client, fake, LocalStorage, live, refused, test, until } from "./harness.js";
import { number } from "./store.js";

const marks = (count, from = 1) => Array.from({ length: count }, (_, i) => i + from);
const stored = (server) => server.store.stored.map((message) => JSON.parse(message.raw));
const acked = (server, n) => server.acks.some((ack) => number(ack["user:alice"] ?? "0-0") >= n);

for (const refusal of [403, 503]) {
  test(`auto: WebSockets are refused with ${refusal}, the events come all the same`, async () => {
    const server = await fake();
    server.refusal = refusal;
    for (const n of marks(5)) server.store.say("bob", "user:alice", n);
    const one = client(server);
    await until(() => one.state.state === "live", "live", 15);
    assert.equal(one.state.transport, "sse");
    await one.send("user:bob", "mine");
    server.store.say("bob", "user:alice", "new");
    await until(() => bodies(one).length === 7);
    assert.deepEqual(bodies(one), [...marks(5), "mine", "new"]);
    await until(() => acked(server, 7));
  });
}

test("a server that is away is no reason to give WebSockets up", async () => {
  const server = await fake();
  let away = true;
  server.script = (step) => (away && (step === "upgrade" || step === "request") ? "cut" : undefined);
  const one = client(server);
  await until(() => one.states.filter((state) => state.state === "waiting").length >= 3);
  away = false;
  await live(one);
  assert.ok(["websocket", "sse"].includes(one.state.transport));
});

test("sends, in order, once, also when the answer is lost", async () => {
  const server = await fake();
  let count = 0;
  server.script = (step) => (step === "stored" && ++count % 4 === 2 ? "cut" : undefined);
  const one = client(server, { transport: "sse" });
  const pending = marks(12).map((n) => one.send("user:bob", n));
  for (let i = 0; i < 5; i += 1) {
    await until(() => one.state.state === "waiting" || one.outbox().length === 0 || one.state.state === "live");
    one.reconnect();
  }
  await Promise.all(pending);
  assert.deepEqual(stored(server), marks(12));
  await until(() => bodies(one).length === 12);
  assert.deepEqual(bodies(one), marks(12));
  assert.equal(server.upgrades, 0);
});

test("unavailable keeps the order; refusals for good fail with their code", async () => {
  const server = await fake();
  const one = client(server, { transport: "sse" });
  await live(one);
  let failures = 2;
  server.script = (step, _, request) => {
    if (step === "request" && request.method === "POST" && failures-- > 0)
      throw { code: "unavailable", extra: { retry_after: 0.05 } };
  };
  const pending = marks(4).map((n) => one.send("user:bob", n));
  const error = refused(one.send("group:none", "x"));
  pending.push(one.send("user:bob", 5));
  await Promise.all(pending);
  assert.equal((await error).code, "not_member");
  assert.deepEqual(stored(server), marks(5));
});

test("join, leave and history", async () => {
  const server = await fake();
  const one = client(server, { transport: "sse" });
  await live(one);
  const joined = await one.join("g");
  assert.deepEqual([joined.type, joined.group, joined.user], ["joined", "g", "alice"]);
  await one.send("group:g", "in");
  await until(() => bodies(one).includes("in"));
  const page = await one.history("group:g", { limit: 5 });
  assert.deepEqual(
    page.messages.map((message) => message.type),
    ["joined", "message"],
  );
  await one.leave("g");
  assert.equal((await refused(one.send("group:g", "out"))).code, "not_member");
});

test("frames that arrive in pieces, and comments", async () => {
  const server = await fake();
  const one = client(server, { transport: "sse" });
  await live(one);
  const connection = server.connection;
  const frame = JSON.stringify({
    type: "message",
    stream: "user:alice",
    id: "5-1",
    mid: "m",
    from: "bob",
    to: "user:alice",
    body: "größer 𝄞",
  });
  connection.comment(" still here");
  for (const byte of Buffer.from(`id: x\nevent: message\ndata:${frame}\n\n`)) {
    await new Promise((resolve) => connection.response.write(Buffer.from([byte]), resolve));
  }
  await until(() => bodies(one).length === 1);
  assert.deepEqual(bodies(one), ["größer 𝄞"]);
});

test("cut in the middle: nothing is lost, nothing comes twice, also across a reload", async () => {
  const server = await fake();
  const storage = new LocalStorage();
  for (const n of marks(8)) server.store.say("bob", "user:alice", n);
  let cut = true;
  server.script = (step, _, detail) => {
    if (step !== "entry" || number(detail.id) !== 5 || !cut) return undefined;
    cut = false;
    return "cut";
  };
  const one = client(server, { transport: "sse", storage });
  await until(() => bodies(one).length === 8);
  await live(one);
  assert.deepEqual(bodies(one), marks(8));
  await one.close();
  server.store.say("bob", "user:alice", 9);
  const two = client(server, { transport: "sse", storage });
  await until(() => bodies(two).length >= 1);
  await live(two);
  assert.deepEqual(bodies(two), [9]);
});

test("a silent stream is left within two pings; a comment keeps it", async () => {
  const server = await fake();
  server.ping = 0.2;
  const one = client(server, { transport: "sse" });
  await live(one);
  const first = server.connection;
  for (let n = 0; n < 5; n += 1) {
    first.comment();
    await one.history("user:alice");
    const next = performance.now() + 100;
    await until(() => performance.now() > next);
  }
  assert.equal(server.connections.length, 1, "comments keep it");
  await until(() => server.connections.length >= 2, "a new one");
  await live(one);
});

test("a token: in the header, and a fresh one when it has expired", async () => {
  const server = await fake();
  let count = 0;
  server.believe = (claims) => {
    if (claims.number === 1) throw { code: "expired" };
    return claims;
  };
  const one = client(server, {
    transport: "sse",
    user: undefined,
    getToken: () => token({ sub: "alice", number: ++count }),
  });
  await live(one);
  await one.send("user:bob", 1);
  for (const request of server.requests) assert.equal(request.query.has("token"), false, "addresses end up in logs");
  assert.ok(server.requests.every((request) => request.headers.authorization?.startsWith("Bearer ")));
});

test("expired for good, and what an administrator ends: stopped", async () => {
  const server = await fake();
  const one = client(server, { transport: "sse", user: undefined, token: token({ sub: "alice", exp: 1 }) });
  await until(() => one.state.state === "stopped");
  assert.equal(one.state.error.code, "expired");
  const two = client(server, { transport: "sse" });
  await live(two);
  server.connection.refuse("forbidden");
  await until(() => two.state.state === "stopped");
  assert.equal(two.state.error.code, "forbidden");
});

test("draining: it comes back", async () => {
  const server = await fake();
  const one = client(server, { transport: "sse" });
  await live(one);
  server.connection.refuse("draining");
  await until(() => server.connections.length === 2);
  await live(one);
});

// Awkward moments: what comes in an order that nobody planned, and must not cost a message or bring one twice.

import assert from "node:assert/strict";
import { token } from "./fake.js";
import { bodies, client, fake, live, LocalStorage, refused, test, until } from "./harness.js";
import { Store } from "./store.js";

const marks = (count) => Array.from({ length: count }, (_, i) => i);
const records = (storage) => [...storage.map.keys()].filter((key) => key.includes("/outbox/"));
const offsetOf = (storage, stream) =>
  storage.map.get([...storage.map.keys()].find((key) => key.endsWith(`/at/${stream}`)));

/** A storage that takes its time to remove a message, until `go` is called. */
class SlowRemovals extends LocalStorage {
  waiting = [];
  removeItem(key) {
    if (!key.includes("/outbox/")) return void this.map.delete(key);
    return new Promise((resolve) => this.waiting.push(() => resolve(this.map.delete(key))));
  }
  go() {
    for (const remove of this.waiting.splice(0)) remove();
  }
}

for (const transport of ["websocket", "sse"]) {
  test(`no progress is kept beyond an own message that is still in the outbox, its answer first or not: ${transport}`, async () => {
    const server = await fake();
    const storage = new SlowRemovals();
    const one = client(server, { storage, transport });
    await live(one);
    if (transport === "websocket") for (const connection of server.connections) connection.held.add("user:alice");
    await one.send("user:bob", "once", { key: "k-1" });
    if (transport === "websocket") {
      for (const connection of server.connections) {
        connection.held.clear();
        connection.pump();
      }
    }
    await until(() => storage.waiting.length);
    server.store.say("bob", "user:alice", "behind it");
    await until(() => one.progress().get("user:alice").received.endsWith("-2"));
    assert.ok(!offsetOf(storage, "user:alice")?.startsWith("1"), "an offset was kept");
    storage.go();
    await until(() => bodies(one).length === 2);
    assert.deepEqual(records(storage), []);
  });
}

test("a handler that is busy over several cuts, and a lot that waits: it goes on", async () => {
  const server = await fake();
  const one = client(server, {}, { listen: false });
  const seen = [];
  let open;
  const gate = new Promise((resolve) => (open = resolve));
  one.on("message", async ({ body }) => {
    await gate;
    seen.push(body.n ?? body);
  });
  await live(one);
  const pad = "x".repeat(60_000);
  for (const n of marks(40)) server.store.say("bob", "user:alice", { n, pad });
  await until(() => one.progress().get("user:alice").received.endsWith("-40"));
  for (const times of [2, 3, 4, 5]) {
    server.connection.drop();
    await until(
      () => server.connections.length === times && server.connection.subscribed?.get("user:alice")?.endsWith("-40"),
    );
  }
  open();
  await until(() => seen.length === 40);
  server.store.say("bob", "user:alice", "after");
  await until(() => seen.at(-1) === "after");
  assert.ok(!one.states.some(({ state }) => state === "paused"));
});

test("disconnect while handlers work: what they take is kept", async () => {
  const server = await fake();
  const storage = new LocalStorage();
  const one = client(server, { storage }, { listen: false });
  const seen = [];
  one.on("message", async ({ body }) => {
    await new Promise((resolve) => setTimeout(resolve, 5));
    seen.push(body);
  });
  await live(one);
  for (const n of marks(10)) server.store.say("bob", "user:alice", n);
  await until(() => seen.length === 2);
  one.disconnect();
  await until(() => offsetOf(storage, "user:alice")?.includes("-10 "));
  const two = client(server, { storage: new LocalStorage(new Map(storage.map)) });
  await live(two);
  assert.deepEqual(bodies(two), []);
});

for (const nth of [3, 4]) {
  test(`a storage that cannot be read for a moment while it begins (call ${nth}): it is tried again`, async () => {
    const server = await fake();
    let calls = 0;
    class Moody extends LocalStorage {
      getAllKeys() {
        if ((calls += 1) === nth) throw new Error("not now");
        return [...this.map.keys()];
      }
    }
    await live(client(server, { storage: new Moody() }));
  });
}

test("another history whose clock is behind: nothing of it is taken for what was had", async () => {
  const server = await fake();
  const one = client(server);
  await live(one);
  for (const n of marks(10)) server.store.say("bob", "user:alice", `old ${n}`);
  await until(() => bodies(one).length === 10);
  server.store = new Store();
  server.store.epoch = "ffff5a5cf260bd7b";
  server.connection.close(4000);
  await until(() => server.connections.length === 2);
  await live(one);
  for (const n of marks(12)) server.store.say("bob", "user:alice", `new ${n}`);
  await until(() => bodies(one).length === 22);
  assert.deepEqual(
    bodies(one).slice(10),
    marks(12).map((n) => `new ${n}`),
  );
});

test("the gap of another history is told once, however often the connection breaks before its turn", async () => {
  const server = await fake();
  const one = client(server, {}, { listen: false });
  const seen = [];
  let open;
  const gate = new Promise((resolve) => (open = resolve));
  one.on("message", async ({ body }) => {
    await gate;
    seen.push(body);
  });
  one.on("gap", ({ stream, cause }) => void (stream === "user:alice" && seen.push(cause.kind)));
  await live(one);
  server.store.say("bob", "user:alice", "a");
  server.store.say("bob", "user:alice", "b");
  await until(() => one.progress().get("user:alice").received.endsWith("-2"));
  server.store.reset("ffff5a5cf260bd7b");
  for (const times of [2, 3]) {
    server.connection.close(4000);
    await until(() => server.connections.length === times);
    await live(one);
  }
  open();
  await until(() => seen.length >= 3);
  server.connection.drop();
  await until(() => server.connections.length === 4);
  await live(one);
  assert.deepEqual(seen, ["a", "b", "epoch"]);
});

test("a gateway's words are not the service's: a send is repeated, and the client comes back", async () => {
  const server = await fake();
  let broken = () => false;
  const words = { status: 502, headers: { "content-type": "application/json" } };
  const through = (url, asked) =>
    broken(asked) ? Promise.resolve(new Response('{"message":"Bad gateway"}', words)) : fetch(url, asked);
  const one = client(server, { transport: "sse", fetch: through });
  await live(one);
  let refusals = 0;
  broken = ({ method }) => method === "POST" && (refusals += 1) < 3;
  await one.send("user:bob", "x");
  assert.equal(refusals, 3);
  let tries = 0;
  broken = ({ method }) => method === "GET" && (tries += 1) < 3;
  server.connection.drop();
  await until(() => tries >= 3);
  await live(one);
});

test("over events, 300 groups and one that was left on another device: it comes back", async () => {
  const server = await fake();
  for (const n of marks(300)) server.store.join("alice", `g${n}`);
  const one = client(server, { transport: "sse" });
  await live(one);
  assert.ok(one.progress().size > 300);
  one.disconnect();
  server.store.leave("alice", "g7");
  const asked = server.requests.length;
  one.reconnect();
  await live(one);
  assert.ok(server.requests.length - asked < 40, `${server.requests.length - asked} requests`);
});

test("the clock is set back by an hour: sending goes on, and a silent server is noticed", async () => {
  const server = await fake();
  server.ping = 0.3;
  server.limits = { ...server.limits, connection_sends_per_s: 50, connection_sends_burst: 500 };
  const one = client(server);
  await live(one);
  await one.send("user:bob", 1);
  const real = Date.now;
  Date.now = () => real() - 3_600_000;
  try {
    await one.send("user:bob", 2);
    server.connection.write = () => {};
    await until(() => server.connections.length === 2, "a new connection");
  } finally {
    Date.now = real;
  }
});

test("resend while the storage is full: the message stays where it was", async () => {
  const server = await fake();
  let isFull = false;
  class Full extends LocalStorage {
    setItem(key, value) {
      if (isFull && key.includes("/outbox/")) throw new Error("QuotaExceededError");
      super.setItem(key, value);
    }
  }
  const storage = new Full();
  const one = client(server, { storage });
  await live(one);
  await refused(one.send("group:none", "precious"));
  isFull = true;
  assert.equal((await refused(one.resend(one.outbox()[0].key))).code, "storage_failed");
  assert.deepEqual(
    one.outbox().map(({ body, state }) => [body, state]),
    [["precious", "failed"]],
  );
  assert.equal(records(storage).length, 1);
});

test("reconnect with a token on an open connection shows it, and counts as one more try once the old one is over", async () => {
  const server = await fake();
  const one = client(server, { user: undefined, token: token({ sub: "alice", number: 1 }) });
  await live(one);
  one.reconnect({ token: token({ sub: "alice", number: 2 }) });
  await until(() => server.of("auth").length === 1);
  server.connection.refuse("expired");
  await until(() => server.connections.length === 2);
  await live(one);
});

test("a leave whose answer was lost by disconnect has left", async () => {
  const server = await fake();
  const one = client(server);
  await live(one);
  await one.join("g");
  let hold;
  const held = new Promise((resolve) => (hold = resolve));
  server.script = (step) => (step === "left" ? held : undefined);
  const left = one.leave("g");
  await until(() => !server.store.members.get("g")?.has("alice"));
  one.disconnect();
  server.script = undefined;
  one.reconnect();
  await left;
  hold();
});

test("discard while the first try is written down: it is neither sent nor kept", async () => {
  const server = await fake();
  class Slow extends LocalStorage {
    async setItem(key, value) {
      if (key.includes("/outbox/")) await new Promise((resolve) => setTimeout(resolve, 60));
      super.setItem(key, value);
    }
  }
  const storage = new Slow();
  const one = client(server, { storage });
  one.disconnect();
  const sent = refused(one.send("user:bob", "regretted", { key: "k-1" }));
  await until(() => one.told.length === 1);
  one.reconnect();
  await until(() => ["catching-up", "live"].includes(one.state.state));
  await one.discard("k-1");
  assert.equal((await sent).code, "discarded");
  await one.send("user:bob", "another");
  assert.equal(server.store.times("k-1"), 0);
  await until(() => !records(storage).length, "nothing of it is kept");
});

test("leaving a loop by break leaves its event to whoever listens next", async () => {
  const server = await fake();
  const one = client(server, {}, { listen: false });
  const seen = [];
  for (const n of marks(3)) server.store.say("bob", "user:alice", n);
  for await (const { type, body } of one) if (type === "message" && seen.push(body)) break;
  for await (const { type, body } of one) if (type === "message" && seen.push(body) === 4) break;
  assert.deepEqual(seen, [0, 0, 1, 2]);
});

// Tabs of one device share one connection: who leads, what the others hear, and what happens when one goes.

import assert from "node:assert/strict";
import { token } from "./fake.js";
import { bodies, client, fake, LocalStorage, live, test, until } from "./harness.js";

const marks = (count, from = 1) => Array.from({ length: count }, (_, i) => i + from);
const stored = (server) => server.store.stored.map((message) => JSON.parse(message.raw));

/** What `navigator.locks` does, as far as exclusive locks go. */
class Locks {
  static noticeMs = 0;
  #queues = new Map();

  request(name, options, callback = options) {
    const { signal, ifAvailable = false, steal = false } = typeof options === "function" ? {} : options;
    if (signal?.aborted) return Promise.reject(signal.reason);
    if (!this.#queues.has(name)) this.#queues.set(name, []);
    const queue = this.#queues.get(name);
    if (ifAvailable && queue.length) return Promise.resolve().then(() => callback(null));
    return new Promise((resolve, reject) => {
      const ticket = { started: false };
      ticket.begin = async () => {
        ticket.started = true;
        try {
          resolve(await callback({ name, mode: "exclusive" }));
        } catch (error) {
          reject(error);
        }
        leave();
      };
      const leave = () => {
        const at = queue.indexOf(ticket);
        if (at < 0) return;
        queue.splice(at, 1);
        if (queue.length && !queue[0].started) setImmediate(() => queue[0]?.started === false && queue[0].begin());
      };
      signal?.addEventListener("abort", () => {
        if (ticket.started) return;
        leave();
        reject(signal.reason);
      });
      ticket.stolen = () => reject(new DOMException("stolen", "AbortError"));
      // Who is asleep hears of it late, and of what others say before that.
      if (steal) for (const before of queue.splice(0)) setTimeout(before.stolen, Locks.noticeMs);
      queue.push(ticket);
      if (queue[0] === ticket) setImmediate(() => ticket.started || ticket.begin());
    });
  }

  async query() {
    const held = [...this.#queues]
      .filter(([, queue]) => queue[0]?.started)
      .map(([name]) => ({ name, mode: "exclusive" }));
    const pending = [...this.#queues].flatMap(([name, queue]) =>
      queue.slice(1).map(() => ({ name, mode: "exclusive" })),
    );
    return { held, pending };
  }
}

Object.defineProperty(globalThis, "navigator", { value: { locks: new Locks(), onLine: true }, configurable: true });

async function tabs(count = 2) {
  const server = await fake();
  const storage = new LocalStorage();
  const all = Array.from({ length: count }, () => client(server, { storage, shared: true }));
  for (const one of all) await live(one);
  return {
    server,
    storage,
    all,
    leader: all.find((one) => one.state.isLeader),
    followers: all.filter((one) => !one.state.isLeader),
  };
}

test("one leads, the others follow: one connection, everybody hears everything, in order", async () => {
  const { server, all } = await tabs(3);
  assert.deepEqual(all.map((one) => one.state.isLeader).sort(), [false, false, true]);
  for (const n of marks(50)) server.store.say("bob", "user:alice", n);
  for (const one of all) await until(() => one.heard.length === 50);
  for (const one of all) assert.deepEqual(bodies(one), marks(50));
  assert.equal(server.connections.length, 1);
  await until(() => server.acks.some((ack) => ack["user:alice"] === all[0].heard.at(-1).id));
});

test("sends of the leader and of followers: each stored once, in the order of its tab", async () => {
  const {
    server,
    all,
    leader,
    followers: [follower],
  } = await tabs();
  const pending = marks(40).map((n) => (n % 2 ? leader : follower).send("user:bob", { tab: n % 2, n }));
  const sent = await Promise.all(pending);
  assert.equal(new Set(sent.map((answer) => answer.mid)).size, 40);
  assert.equal(stored(server).length, 40);
  for (const tab of [0, 1]) {
    const mine = stored(server)
      .filter((body) => body.tab === tab)
      .map((body) => body.n);
    assert.deepEqual(
      mine,
      [...mine].sort((a, b) => a - b),
    );
  }
  for (const one of all) await until(() => one.heard.length === 40 && one.outbox().length === 0);
  assert.deepEqual(bodies(leader), bodies(follower));
});

test("the leader closes: another one leads, and nothing is lost or comes twice", async () => {
  const {
    server,
    leader,
    followers: [follower],
  } = await tabs();
  for (const n of marks(10)) server.store.say("bob", "user:alice", n);
  await until(() => follower.heard.length === 10);
  const closing = leader.close();
  for (const n of marks(10, 11)) server.store.say("bob", "user:alice", n);
  const sent = follower.send("user:bob", "after");
  await closing;
  await sent;
  await until(() => follower.state.isLeader && follower.state.state === "live");
  await until(() => bodies(follower).length === 21);
  assert.deepEqual(
    bodies(follower).filter((body) => body !== "after"),
    marks(20),
  );
  assert.equal(stored(server).filter((body) => body === "after").length, 1);
  assert.equal(server.open.size, 1);
});

test("a follower closes: nothing happens to the leader", async () => {
  const {
    server,
    leader,
    followers: [follower],
  } = await tabs();
  await follower.close();
  await leader.send("user:bob", 1);
  await until(() => bodies(leader).length === 1);
  assert.equal(server.connections.length, 1);
});

test("a follower joins, asks history, and hears refusals", async () => {
  const {
    followers: [follower],
  } = await tabs();
  assert.equal((await follower.join("g")).group, "g");
  await follower.send("group:g", "in");
  const page = await follower.history("group:g");
  assert.equal(page.messages.at(-1).body, "in");
  await follower.leave("g");
  await assert.rejects(follower.send("group:g", "out"), { code: "not_member" });
});

test("acknowledged when the tab with the connection has taken it, whatever the others are busy with", async () => {
  const {
    server,
    leader,
    followers: [follower],
  } = await tabs();
  let go;
  const gate = new Promise((resolve) => (go = resolve));
  const acked = () => server.acks.some((ack) => "user:alice" in ack && !ack["user:alice"].startsWith("0-"));
  follower.on("message", () => new Promise(() => {}));
  leader.on("message", () => gate);
  server.store.say("bob", "user:alice", 1);
  await until(() => follower.heard.length === 1 && leader.heard.length === 1);
  await leader.history("user:alice");
  assert.equal(acked(), false);
  go();
  await until(acked);
});

test("the connection is cut again and again while both send", async () => {
  const { server, all } = await tabs();
  let count = 0;
  server.script = (step) => (["stored", "entry", "welcome"].includes(step) && ++count % 13 === 0 ? "cut" : undefined);
  const pending = marks(40).map((n) => all[n % 2].send("user:bob", n));
  await Promise.all(pending);
  assert.deepEqual(
    [...stored(server)].sort((a, b) => a - b),
    marks(40),
  );
  server.script = undefined;
  for (const one of all) {
    await until(() => one.heard.length >= 40);
    assert.deepEqual(bodies(one), stored(server));
  }
}, 30_000);

test("the tab with the connection dies before it has removed what was stored: the next one does, and sends nothing twice", async () => {
  const server = await fake();
  const map = new Map();
  let isDead = false;
  class Dying extends LocalStorage {
    constructor() {
      super(map);
    }
    removeItem(key) {
      return key.includes("/outbox/") ? new Promise(() => {}) : void map.delete(key);
    }
    setItem(key, value) {
      return isDead ? new Promise(() => {}) : super.setItem(key, value);
    }
  }
  const one = client(server, { storage: new Dying(), shared: true });
  await live(one);
  const two = client(server, { storage: new LocalStorage(map), shared: true });
  await live(two);
  one.send("user:bob", "once", { key: "k-1" }).catch(() => {});
  await until(() => bodies(two).includes("once"));
  isDead = true;
  one.disconnect();
  await until(() => two.state.isLeader && two.state.state === "live");
  await until(() => ![...map.keys()].some((key) => key.includes("/outbox/")), "the record is gone");
  server.store.keys.clear(); // days later
  const three = client(server, { storage: new LocalStorage(new Map(map)) });
  await live(three);
  await three.send("user:bob", "another");
  assert.equal(server.store.times("k-1"), 1);
});

test("a tab that slept while its connection was taken asks what it missed, and for what it had asked", async () => {
  const {
    server,
    leader: one,
    followers: [two],
  } = await tabs();
  Locks.noticeMs = 150;
  try {
    server.script = (step, connection) =>
      step === "join" && connection === server.connections[0] ? "drop" : undefined;
    const joined = one.join("g");
    await until(() => server.of("join").length === 1);
    server.connections[0].out = () => {}; // its socket is half open from here
    two.reconnect({ token: token({ sub: "alice" }) }); // takes the connection
    await until(() => two.state.isLeader && two.state.state === "live");
    server.store.say("bob", "user:alice", "meanwhile");
    await until(() => bodies(one).includes("meanwhile") && bodies(two).includes("meanwhile"));
    await joined;
  } finally {
    Locks.noticeMs = 0;
  }
});

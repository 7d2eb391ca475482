// The outbox outlives the client: on whatever storage, and wherever the client was ended.

import assert from "node:assert/strict";
import "fake-indexeddb/auto";
import { WebSocket } from "ws";
import { AsyncStorage, bodies, client, fake, LocalStorage, live, refused, seeded, test, until } from "./harness.js";

const stored = (server) => server.store.stored.map((message) => JSON.parse(message.raw));
const marks = (count, from = 1) => Array.from({ length: count }, (_, i) => i + from);

/** A life that ends at a call to the storage: nothing that it does afterwards has any effect. */
class Life {
  calls = 0;
  dead = false;
  sockets = new Set();

  constructor(map, last, how) {
    Object.assign(this, { map, last, how });
    const life = this;
    this.WebSocket = class extends WebSocket {
      constructor(...address) {
        if (life.dead) return { readyState: 0, send() {}, close() {}, addEventListener() {} };
        super(...address);
        life.sockets.add(this);
      }
      emit(...event) {
        return life.dead ? false : super.emit(...event);
      }
      send(...data) {
        if (!life.dead) super.send(...data);
      }
    };
  }

  #call(work) {
    if (this.dead) return new Promise(() => {});
    this.calls += 1;
    if (this.calls < this.last) return Promise.resolve().then(work);
    if (this.how === "after") work();
    if (this.how === "throws") return Promise.reject(new Error("the disk is full"));
    this.end();
    return new Promise(() => {});
  }

  end() {
    this.dead = true;
    for (const socket of this.sockets) socket.terminate();
  }

  getItem(key) {
    return this.#call(() => this.map.get(key) ?? null);
  }
  setItem(key, value) {
    return this.#call(() => void this.map.set(key, value));
  }
  removeItem(key) {
    return this.#call(() => void this.map.delete(key));
  }
  getAllKeys() {
    return this.#call(() => [...this.map.keys()]);
  }
}

for (const how of ["before", "after"]) {
  for (const forgotten of [false, true]) {
    test(`ended ${how} each call to the storage${forgotten ? ", and the keys are forgotten" : ""}: stored once, in order`, async () => {
      const now = Date.now;
      for (let last = 1; last < 200; last += 1) {
        const server = await fake();
        const life = new Life(new Map(), last, how);
        const one = client(server, { storage: life, WebSocket: life.WebSocket });
        const resolved = [];
        const kept = [];
        one.on("outbox", (item) => item.state === "queued" && !life.dead && kept.push(item.body));
        for (const n of marks(3))
          one.send("user:bob", n).then(
            () => life.dead || resolved.push(n),
            () => {},
          );
        await until(() => life.dead || (resolved.length === 3 && bodies(one).length === 3), `${how} call ${last}`);
        const survived = !life.dead;
        if (survived) await until(() => life.dead || one.progress().get("user:alice").offset === one.heard[2].id);
        life.end();
        await until(() => server.open.size === 0);
        const before = stored(server);
        if (forgotten) server.store.keys.clear();
        try {
          if (forgotten) Date.now = () => now() + 7_200_000;
          const two = client(server, { storage: new LocalStorage(life.map) });
          await live(two);
          await until(() => two.outbox().length === 0, `${how} call ${last}: ${JSON.stringify(two.outbox())}`);
          await two.send("user:bob", "last");
          const all = stored(server);
          assert.deepEqual(all, [...new Set(all)], `${how} call ${last}: stored twice`);
          assert.deepEqual(
            all.filter((n) => n !== "last"),
            marks(3).filter((n) => all.includes(n)),
            `${how} call ${last}: out of order`,
          );
          for (const n of [...resolved, ...before]) assert.ok(all.includes(n), `${how} call ${last}: ${n} was lost`);
          await until(
            () => two.progress().get("user:alice").offset === server.store.stream("user:alice").head,
            "the end",
          );
          const seen = new Set([...bodies(one), ...bodies(two)]);
          for (const n of all) assert.ok(seen.has(n), `${how} call ${last}: ${n} was handed to nobody`);
          await two.close();
        } finally {
          Date.now = now;
        }
        await server.stop().catch(() => {});
        if (survived && life.calls < last) return;
      }
      assert.fail("it never came to an end");
    }, 45_000);
  }
}

test("a storage that fails from a call on: told, and nothing is stored twice or out of order", async () => {
  for (const last of [1, 3, 5, 8, 12, 20]) {
    const server = await fake();
    const life = new Life(new Map(), last, "throws");
    const one = client(server, { storage: life });
    const pending = marks(5).map((n) =>
      one.send("user:bob", n).then(
        () => n,
        (error) => error.code,
      ),
    );
    let ended = false;
    void Promise.all(pending).then(() => (ended = true));
    const told = () => one.errors.some((error) => error.code === "storage_failed");
    await until(() => ended || told(), `call ${last}: an answer, or an error`);
    await one.close();
    const ends = await Promise.all(pending);
    if (told()) for (const [n, end] of ends.entries()) if (end === "closed") ends[n] = "storage_failed";
    for (const end of ends) assert.ok(typeof end === "number" || end === "storage_failed", `call ${last}: ${end}`);
    const all = stored(server);
    assert.deepEqual(all, [...new Set(all)].sort(), `call ${last}`);
    for (const end of ends) if (typeof end === "number") assert.ok(all.includes(end));
  }
});

for (const [name, make] of [
  ["localStorage", (map) => new LocalStorage(map)],
  ["AsyncStorage", (map) => new AsyncStorage(map, seeded(7))],
]) {
  test(`${name}: queued messages go after a reload, in order, and entries are not repeated`, async () => {
    const server = await fake();
    const map = new Map();
    for (const n of marks(5, 100)) server.store.say("bob", "user:alice", n);
    const one = client(server, { storage: make(map) });
    await until(() => bodies(one).length === 5);
    one.disconnect();
    const pending = marks(30).map((n) => refused(one.send("user:bob", n)));
    await until(() => one.outbox().length === 30);
    await one.close();
    for (const error of await Promise.all(pending)) assert.equal(error.code, "closed");
    const two = client(server, { storage: make(map) });
    const later = two.send("user:bob", 31);
    await later;
    assert.deepEqual(stored(server).slice(5), marks(31));
    await until(() => bodies(two).length === 31);
    assert.deepEqual(bodies(two), marks(31));
    await two.close();
    const keys = [...map.keys()].filter((key) => key.includes("outbox"));
    assert.deepEqual(keys, [], "nothing is left in the storage");
  });
}

test("AsyncStorage with delays by chance, connection cut at times: each once, in order", async () => {
  const server = await fake();
  const random = seeded(11);
  server.script = (step) => (["stored", "entry", "hello"].includes(step) && random() < 0.05 ? "cut" : undefined);
  const one = client(server, { storage: new AsyncStorage(new Map(), random) });
  await Promise.all(marks(40).map((n) => one.send("user:bob", n)));
  assert.deepEqual(stored(server), marks(40));
  await until(() => bodies(one).length === 40);
  assert.deepEqual(bodies(one), marks(40));
});

test("a storage with rubbish in it, or of a newer release, does not stop the client", async () => {
  const server = await fake();
  const map = new Map();
  const one = client(server, { storage: new LocalStorage(map) });
  await live(one);
  one.disconnect();
  one.send("user:bob", 1).catch(() => {});
  await until(() => [...map.keys()].some((key) => key.includes("outbox")));
  await one.close();
  for (const key of map.keys()) map.set(key, "{rubbish");
  map.set("somebody else's", "x");
  const two = client(server, { storage: new LocalStorage(map) });
  await two.send("user:bob", 2);
  await until(() => bodies(two).includes(2));
  assert.equal(map.get("somebody else's"), "x");
});

test("in a browser: IndexedDB and localStorage, a device that is made and kept", async () => {
  const server = await fake();
  globalThis.localStorage = new LocalStorage();
  try {
    const one = client(server, { storage: undefined, device: undefined });
    await live(one);
    assert.ok(one.device && one.device !== "default", one.device);
    one.disconnect();
    const pending = marks(5).map((n) => refused(one.send("user:bob", n)));
    await until(() => one.outbox().length === 5);
    await one.close();
    await Promise.all(pending);
    const two = client(server, { storage: undefined, device: undefined });
    await until(() => stored(server).length === 5);
    assert.deepEqual(stored(server), marks(5));
    assert.equal(two.device, one.device);
    await until(() => two.outbox().length === 0);
    await two.close();
    const three = client(server, { storage: undefined, device: undefined });
    await live(three);
    assert.deepEqual(three.outbox(), []);
    assert.equal(stored(server).length, 5);
  } finally {
    delete globalThis.localStorage;
  }
});

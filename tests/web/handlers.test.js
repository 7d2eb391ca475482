// What handlers are promised, and what is acknowledged.

import assert from "node:assert/strict";
import { bodies, client, fake, live, LocalStorage, test, until } from "./harness.js";
import { number } from "./store.js";

const marks = (count) => Array.from({ length: count }, (_, i) => i + 1);
const acked = (server, n, stream = "user:alice") => server.acks.some((ack) => number(ack[stream] ?? "0-0") >= n);
function deferred() {
  let resolve;
  let reject;
  const promise = new Promise((yes, no) => Object.assign({}, (resolve = yes), (reject = no)));
  return { promise, resolve, reject };
}

test("the next event comes when every handler of the one before is done; acknowledged then", async () => {
  const server = await fake();
  const one = client(server, {}, { listen: false });
  const seen = [];
  const gates = marks(3).map(deferred);
  one.on("message", ({ body }) => seen.push(`a${body}`));
  one.on("message", async ({ body }) => {
    await gates[body - 1].promise;
    seen.push(`b${body}`);
  });
  for (const n of marks(3)) server.store.say("bob", "user:alice", n);
  await until(() => seen.length === 1);
  await one.send("user:zoe", 0).catch(() => {});
  assert.deepEqual(seen, ["a1"]);
  assert.equal(acked(server, 1), false);
  gates[0].resolve();
  await until(() => seen.length === 3);
  await until(() => acked(server, 1));
  assert.equal(acked(server, 2), false);
  gates[1].resolve();
  gates[2].resolve();
  await until(() => seen.includes("b3"));
  assert.deepEqual(seen.slice(0, 6), ["a1", "b1", "a2", "b2", "a3", "b3"]);
});

test("a slow handler of one stream does not hold another stream", async () => {
  const server = await fake();
  const one = client(server, {}, { listen: false });
  const gate = deferred();
  const seen = [];
  one.on("message", async ({ stream, body }) => {
    if (stream === "user:alice") await gate.promise;
    seen.push(body);
  });
  await live(one);
  server.store.say("bob", "user:alice", "slow");
  server.store.say("bob", "all", "fast");
  await until(() => seen.length === 1);
  assert.deepEqual(seen, ["fast"]);
  gate.resolve();
  await until(() => seen.length === 2);
});

for (const kind of ["throws", "rejects"]) {
  test(`a handler that ${kind}: told as error, the same event comes again after a pause, in order`, async () => {
    const server = await fake();
    const one = client(server, {}, { listen: false });
    const seen = [];
    let bad = 2;
    one.on("message", ({ body }) => {
      seen.push(body);
      if (body === 2 && bad-- > 0) {
        if (kind === "rejects") return Promise.reject(new Error("disk"));
        throw new Error("disk");
      }
      return undefined;
    });
    for (const n of marks(3)) server.store.say("bob", "user:alice", n);
    await until(() => seen.length === 5);
    assert.deepEqual(seen, [1, 2, 2, 2, 3]);
    assert.deepEqual(
      one.errors.map((error) => error.code),
      ["handler_failed", "handler_failed"],
    );
    await until(() => acked(server, 3));
    assert.equal(server.connections.length, 1);
  });
}

test("handlers of state, outbox, progress and live that throw break nothing, and are told", async () => {
  const server = await fake();
  const one = client(server);
  for (const type of ["state", "outbox", "progress", "live"])
    one.on(type, () => {
      throw new Error(type);
    });
  await one.send("user:bob", 1);
  await live(one);
  await until(() => bodies(one).length === 1);
  await until(() => one.errors.some((error) => error.code === "handler_failed"), "an error that tells it", 3);
});

test("off, and the function that on returns", async () => {
  const server = await fake();
  const one = client(server);
  const seen = [];
  const first = ({ body }) => void seen.push(`a${body}`);
  const stop = one.on("message", ({ body }) => void seen.push(`b${body}`));
  one.on("message", first);
  await live(one);
  server.store.say("bob", "user:alice", 1);
  await until(() => seen.length === 2);
  one.off("message", first);
  server.store.say("bob", "user:alice", 2);
  await until(() => seen.length === 3);
  stop();
  stop();
  server.store.say("bob", "user:alice", 3);
  await until(() => one.heard.length === 3);
  assert.deepEqual(seen.sort(), ["a1", "b1", "b2"]);
});

test("entries wait until there is a handler for message, and nothing is acknowledged before", async () => {
  const server = await fake();
  for (const n of marks(3)) server.store.say("bob", "user:alice", n);
  const one = client(server, {}, { listen: false });
  one.on("gap", () => {});
  one.on("joined", () => {});
  await until(() => one.state.state === "live" || one.state.state === "catching-up");
  await one.send("user:bob", "x");
  assert.equal(acked(server, 1), false);
  const seen = [];
  one.on("message", ({ body }) => void seen.push(body));
  await until(() => seen.length === 4);
  assert.deepEqual(seen, [1, 2, 3, "x"]);
  await until(() => acked(server, 4));
});

test("live comes after everything that was missed has been handed over", async () => {
  const server = await fake();
  for (const n of marks(5)) server.store.say("bob", "user:alice", n);
  const one = client(server, {}, { listen: false });
  const seen = [];
  one.on("message", async ({ body }) => {
    await new Promise((resolve) => setImmediate(resolve));
    seen.push(body);
  });
  one.on("live", () => seen.push("live"));
  await until(() => seen.includes("live"));
  assert.deepEqual(seen, [1, 2, 3, 4, 5, "live"]);
});

test("iterating: an event is acknowledged when the next is asked for; gaps and live come too", async () => {
  const server = await fake();
  for (const n of marks(4)) server.store.say("bob", "user:alice", n);
  server.store.trim("user:alice", 1);
  server.store.device("alice", "phone").set("user:alice", "0-0");
  const one = client(server, {}, { listen: false });
  const iterator = one[Symbol.asyncIterator]();
  const first = await iterator.next();
  assert.equal(first.value.type, "gap");
  const second = await iterator.next();
  assert.equal(second.value.body, 2);
  await until(() => acked(server, 1));
  await one.send("user:zoe", 0);
  assert.equal(acked(server, 2), false, "2 is being worked on");
  const seen = [];
  for (;;) {
    const { value } = await iterator.next();
    seen.push(value.type === "live" ? "live" : value.body);
    if (value.body === 0) break;
  }
  assert.deepEqual(
    seen.filter((what) => what !== "live"),
    [3, 4, 0],
  );
  const waiting = iterator.next();
  await one.close();
  const last = await waiting;
  assert.ok(last.done || last.value.type === "live");
});

test("leaving an iteration does not acknowledge what was being worked on", async () => {
  const server = await fake();
  const storage = new LocalStorage();
  for (const n of marks(3)) server.store.say("bob", "user:alice", n);
  const one = client(server, { storage }, { listen: false });
  const seen = [];
  try {
    for await (const event of one) {
      if (event.type !== "message") continue;
      seen.push(event.body);
      if (event.body === 2) throw new Error("disk");
    }
  } catch {}
  await one.close();
  const two = client(server, { storage });
  await live(two);
  assert.deepEqual(seen, [1, 2]);
  assert.deepEqual(bodies(two), [2, 3]);
});

test("ack manual: nothing is acknowledged but by ack; comes again after a reload", async () => {
  const server = await fake();
  const storage = new LocalStorage();
  for (const n of marks(4)) server.store.say("bob", "user:alice", n);
  const one = client(server, { storage, ack: "manual" });
  await live(one);
  await until(() => one.heard.length === 4);
  one.ack(one.heard[1]);
  await until(() => acked(server, 2));
  assert.equal(acked(server, 3), false);
  one.ack(one.heard[0]);
  server.connection.drop();
  await until(() => one.lives === 2);
  assert.deepEqual(bodies(one), marks(4), "a reconnect brings nothing twice to the same client");
  await one.close();
  assert.equal(acked(server, 3), false);
  const two = client(server, { storage, ack: "manual" });
  await until(() => two.heard.length === 2);
  assert.deepEqual(bodies(two), [3, 4]);
});

test("acknowledgements are few, never lower, and the last one comes", async () => {
  const server = await fake();
  const one = client(server);
  await live(one);
  for (const n of marks(1000)) server.store.say("bob", "user:alice", n);
  await until(() => acked(server, 1000));
  const numbers = server.acks.map((ack) => number(ack["user:alice"] ?? "0-0"));
  assert.deepEqual(
    numbers,
    [...numbers].sort((a, b) => a - b),
  );
  assert.ok(numbers.length <= 200, `${numbers.length} acks`);
  await until(() => one.progress().get("user:alice").acked === one.heard.at(-1).id, "progress", 5);
  const { offset, received } = one.progress().get("user:alice");
  assert.deepEqual([offset, received], [one.heard.at(-1).id, one.heard.at(-1).id]);
});

test("an ack that was refused with ack_beyond does not stop those after it", async () => {
  const server = await fake();
  const one = client(server);
  await live(one);
  let refusals = 1;
  server.script = (step) => {
    if (step === "ack" && refusals-- > 0) throw { code: "ack_beyond" };
  };
  server.store.say("bob", "user:alice", 1);
  await until(() => server.of("ack").length >= 1);
  server.store.say("bob", "user:alice", 2);
  await until(() => acked(server, 2));
  assert.equal(server.connections.length, 1);
});

test("the last ack is refused, and nothing comes after it: told again, at the latest by close", async () => {
  const server = await fake();
  const one = client(server);
  await live(one);
  let refusals = 1;
  server.script = (step) => {
    if (step === "ack" && refusals-- > 0) throw { code: "ack_beyond" };
  };
  server.store.say("bob", "user:alice", 1);
  await until(() => server.of("ack").length >= 1);
  await one.close();
  await until(() => acked(server, 1));
});

test("an ack that was lost with the connection is made good by the next hello or ack", async () => {
  const server = await fake();
  const one = client(server);
  await live(one);
  let first = true;
  server.script = (step) => (step === "ack" && first ? ((first = false), "cut") : undefined);
  server.store.say("bob", "user:alice", 1);
  await until(() => number(server.store.device("alice", "phone").get("user:alice")) === 1);
  assert.deepEqual(bodies(one), [1]);
});

test("offsets are brought in hello: what was handled is not handed over again though no ack arrived", async () => {
  const server = await fake();
  const storage = new LocalStorage();
  server.script = (step) => (step === "ack" ? "drop" : undefined);
  for (const n of marks(5)) server.store.say("bob", "user:alice", n);
  const one = client(server, { storage });
  await live(one);
  await until(() => one.progress().get("user:alice").offset === one.heard[4].id);
  server.connection.drop();
  await until(() => one.lives === 2);
  one.close().catch(() => {});
  server.store.say("bob", "user:alice", 6);
  const two = client(server, { storage });
  await live(two);
  assert.deepEqual(bodies(two), [6]);
  assert.equal(number(two.progress().get("user:alice").offset), 6);
});

test("a handler that never ends: the client asks for less, and goes on when it ends", async () => {
  const server = await fake();
  const one = client(server, {}, { listen: false });
  const gate = deferred();
  const seen = [];
  one.on("message", async ({ body }) => {
    await gate.promise;
    seen.push(body.n);
  });
  await live(one);
  for (const n of marks(3000)) server.store.say("bob", "user:alice", { n, pad: "x".repeat(2000) });
  const passed = () => server.connection?.subscribed.get("user:alice") ?? "0-0";
  await until(
    () => one.states.some((state) => state.state === "paused") || !server.store.after("user:alice", passed()),
  );
  gate.resolve();
  await until(() => seen.length === 3000, "all of them", 20);
  assert.deepEqual(seen, marks(3000));
});

// docs/protocol.md, "Keys and repeating" and "Order": what is sent is stored once, in order, or refused and said so.

import assert from "node:assert/strict";
import { WaypostError } from "../../service/web/waypost.js";
import { bodies, client, fake, live, LocalStorage, refused, test, until } from "./harness.js";
import { token } from "./fake.js";

const stored = (server) => server.store.stored.map((message) => JSON.parse(message.raw));
const marks = (count) => Array.from({ length: count }, (_, i) => i + 1);
/** Answers the next sends with an error. */
const failing = (server, code, extra, count = 1) => {
  let left = count;
  server.script = (step) => {
    if (step === "send" && left > 0) {
      left -= 1;
      throw { code, extra };
    }
  };
};

test("many sends at once are stored once each, in order, and resolve", async () => {
  const server = await fake();
  const one = client(server);
  const sent = await Promise.all(marks(300).map((n) => one.send("user:bob", n)));
  assert.deepEqual(stored(server), marks(300));
  assert.equal(new Set(sent.map((answer) => answer.id)).size, 300);
  assert.deepEqual(one.outbox(), []);
  await until(() => bodies(one).length === 300);
  assert.deepEqual(bodies(one), marks(300));
});

for (const [step, name] of Object.entries({
  hello: "after hello",
  welcome: "before welcome",
  send: "with the send",
  stored: "between stored and sent",
  live: "before live",
})) {
  test(`cut ${name}, at every message: each stored once, in order`, async () => {
    const server = await fake();
    let count = 0;
    server.script = (at) => (at === step && ++count % 3 === 2 && count < 12 ? "cut" : undefined);
    const one = client(server);
    const pending = marks(10).map((n) => one.send("user:bob", n));
    for (let i = 0; i < 6; i += 1) {
      await until(() => one.state.state === "waiting" || one.outbox().length === 0 || one.state.state === "live");
      one.reconnect();
    }
    await Promise.all(pending);
    assert.deepEqual(stored(server), marks(10));
    await until(() => bodies(one).length === 10);
    assert.deepEqual(bodies(one), marks(10));
  });
}

test("unavailable in the middle: the batch is repeated in order, nothing overtakes", async () => {
  const server = await fake();
  const one = client(server);
  await live(one);
  let down = true;
  let count = 0;
  server.script = (step) => {
    if (step === "send" && ++count >= 3 && down) throw { code: "unavailable" };
  };
  const pending = marks(8).map((n) => one.send("user:bob", n));
  await until(() => count >= 5);
  down = false;
  pending.push(one.send("user:bob", 9));
  await Promise.all(pending);
  assert.deepEqual(stored(server), marks(9));
});

test("a call that failed as a whole, while a later one succeeds: the later one is not sent before", async () => {
  const server = await fake();
  const one = client(server);
  await live(one);
  let first = true;
  server.script = (step, _, frame) => {
    if (step === "send" && first && frame.body === 1) {
      first = false;
      throw { code: "unavailable" };
    }
  };
  const a = one.send("user:bob", 1);
  await until(() => !first);
  const b = one.send("user:bob", 2);
  await Promise.all([a, b]);
  assert.deepEqual(stored(server), [1, 2]);
});

test("rate_limited with retry_after: nothing that was sent after it overtakes", async () => {
  const server = await fake();
  const one = client(server);
  await live(one);
  let count = 0;
  server.script = (step) => {
    if (step === "send" && ++count === 4) throw { code: "rate_limited", extra: { retry_after: 0.1 } };
  };
  await Promise.all(marks(9).map((n) => one.send("user:bob", n)));
  assert.deepEqual(stored(server), marks(9));
  assert.ok(server.connections.length >= 2);
});

test("retry_after of an error without a close is kept to", async () => {
  const server = await fake();
  const one = client(server);
  await live(one);
  const times = [];
  server.script = (step) => {
    if (step === "send" && times.push(performance.now()) === 1)
      throw { code: "unavailable", extra: { retry_after: 0.5 } };
  };
  await one.send("user:bob", 1);
  assert.ok(times[1] - times[0] >= 480, `${times[1] - times[0]} ms`);
});

for (const [code, shape] of [
  ["storage_full", {}],
  ["internal", {}],
  ["uncertain", { retry: true }],
  ["brand_new", { retry: true }],
]) {
  test(`${code}: repeated with the same key and text`, async () => {
    const server = await fake();
    const one = client(server);
    await live(one);
    failing(server, code, shape);
    const sent = await one.send("user:bob", { b: 1, a: 2 });
    const [first, second] = server.of("send");
    assert.equal(first.key, second.key);
    assert.equal(first.key, sent.mid);
    assert.equal(server.store.stored[0].raw, '{"b":1,"a":2}');
  });
}

for (const code of ["not_member", "body_too_large", "key_reused", "not_allowed", "bad_request", "brand_new"]) {
  test(`${code} for good: failed with its code, later ones go on`, async () => {
    const server = await fake();
    const one = client(server);
    await live(one);
    failing(server, code, { retry: false });
    const first = refused(one.send("user:bob", 1, { key: "k1" }));
    const second = one.send("user:bob", 2);
    const error = await first;
    assert.ok(error instanceof WaypostError);
    assert.equal(error.code, code);
    assert.equal(error.retry, false);
    await second;
    const [failed] = one.outbox();
    assert.deepEqual(
      [failed.key, failed.state, failed.code, failed.body, failed.to],
      ["k1", "failed", code, 1, "user:bob"],
    );
    assert.deepEqual(stored(server), [2]);
    assert.deepEqual(
      one.told.filter((item) => item.key === "k1").map((item) => item.state),
      ["queued", "failed"],
    );
    await one.discard("k1");
    assert.deepEqual(one.outbox(), []);
  });
}

test("uncertain without retry: not repeated by itself; resend keeps the key", async () => {
  const server = await fake();
  const one = client(server);
  await live(one);
  server.script = (step) => {
    if (step === "stored") throw { code: "uncertain", extra: { retry: false } };
  };
  assert.equal((await refused(one.send("group:x", 1))).code, "not_member");
  const error = await refused(one.send("user:bob", 1, { key: "k1" }));
  assert.equal(error.code, "uncertain");
  server.script = undefined;
  await one.send("user:bob", 2);
  assert.equal(server.of("send").filter((frame) => frame.key === "k1").length, 1);
});

test("resend: with a new key after a refusal", async () => {
  const server = await fake();
  const one = client(server);
  await live(one);
  failing(server, "not_allowed");
  await refused(one.send("user:bob", "x", { key: "k1" }));
  const sent = await one.resend("k1");
  assert.notEqual(sent.mid, "k1");
  assert.deepEqual(stored(server), ["x"]);
  assert.deepEqual(one.outbox(), []);
  assert.ok((await refused(one.resend("nothing"))) instanceof Error);
});

test("a failed message is kept over a reload, and is not sent by itself", async () => {
  const server = await fake();
  const storage = new LocalStorage();
  const one = client(server, { storage });
  await live(one);
  failing(server, "not_allowed");
  await refused(one.send("user:bob", "x", { key: "k1" }));
  await one.close();
  const two = client(server, { storage });
  await live(two);
  await two.send("user:bob", "y");
  assert.deepEqual(
    two.outbox().map((item) => [item.key, item.state, item.code]),
    [["k1", "failed", "not_allowed"]],
  );
  assert.deepEqual(stored(server), ["y"]);
  await two.resend("k1");
  assert.deepEqual(stored(server), ["y", "x"]);
});

test("discard of a queued message: it is not sent, and its promise ends", async () => {
  const server = await fake();
  const one = client(server);
  await live(one);
  one.disconnect();
  const first = refused(one.send("user:bob", 1, { key: "k1" }));
  const second = one.send("user:bob", 2);
  await until(() => one.outbox().length === 2);
  await one.discard("k1");
  assert.ok((await first) instanceof WaypostError);
  one.reconnect();
  await second;
  assert.deepEqual(stored(server), [2]);
});

test("discard before anything was read from the storage", async () => {
  const server = await fake();
  const one = client(server);
  one.disconnect();
  const first = refused(one.send("user:bob", 1, { key: "k1" }));
  await one.discard("k1");
  assert.ok((await first) instanceof WaypostError);
  one.reconnect();
  await one.send("user:bob", 2);
  assert.deepEqual(stored(server), [2]);
});

test("sent and closed at once: the messages stay in the outbox", async () => {
  const server = await fake();
  const storage = new LocalStorage();
  const one = client(server, { storage });
  one.disconnect();
  const pending = marks(5).map((n) => refused(one.send("user:bob", n)));
  await one.close();
  for (const error of await Promise.all(pending)) assert.equal(error.code, "closed");
  const two = client(server, { storage });
  await live(two);
  await until(() => stored(server).length === 5, "five messages");
  assert.deepEqual(stored(server), marks(5));
});

test("the same key twice is one message; with another body it is refused", async () => {
  const server = await fake();
  const one = client(server);
  one.disconnect();
  const first = one.send("user:bob", 1, { key: "k" });
  const second = one.send("user:bob", 1, { key: "k" });
  const third = refused(one.send("user:bob", 2, { key: "k" }));
  one.reconnect();
  assert.equal((await first).id, (await second).id);
  assert.equal((await third).code, "key_reused");
  assert.deepEqual(stored(server), [1]);
});

for (const when of ["on a connection", "before there is any", "while offline"])
  test(`join and sends keep their order ${when}`, async () => {
    const server = await fake();
    const one = client(server);
    if (when !== "before there is any") await live(one);
    if (when === "while offline") one.disconnect();
    setImmediate(() => one.reconnect());
    const results = [one.join("g"), one.send("group:g", 1), one.leave("g"), refused(one.send("group:g", 2))];
    const [joined, sent, , error] = await Promise.all(results);
    assert.equal(joined.type, "joined");
    assert.equal(joined.stream, "group:g");
    assert.equal(joined.user, "alice");
    assert.equal(sent.stream, "group:g");
    assert.equal(error.code, "not_member");
  });

test("join is repeated until there is an answer, and refusals reject it", async () => {
  const server = await fake();
  let count = 0;
  server.script = (step) => {
    if (step !== "join") return undefined;
    count += 1;
    if (count === 1) return "cut";
    if (count === 2) throw { code: "unavailable" };
    if (count === 4) throw { code: "group_closed" };
    return undefined;
  };
  const one = client(server);
  assert.equal((await one.join("g")).group, "g");
  assert.equal((await refused(one.join("h"))).code, "group_closed");
  assert.equal(count, 4);
});

test("a join whose answer was overtaken by the end of the connection", async () => {
  const server = await fake();
  let cut = true;
  server.script = (step) => {
    if (step === "joined" && cut) {
      cut = false;
      return "cut";
    }
    return undefined;
  };
  const one = client(server);
  await live(one);
  const joined = await one.join("g");
  assert.equal(joined.user, "alice");
  await one.send("group:g", "in");
  await until(() => bodies(one).includes("in"));
});

test("bodies are the same to the byte when they are repeated, and across a reload", async () => {
  const strange = [
    { z: 1, a: { 2: "two", 1: "one" } },
    "\u2028\u2029 line",
    "𝄞 ü é ñ",
    "\ud800 alone",
    1e21,
    -0,
    0.1 + 0.2,
    123456789012345680000,
    "",
    null,
    false,
    [],
    {},
    [null, [[]]],
    "a\nb\r\tc\u0000",
    { "": { __proto__x: 1 } },
    new Date(0),
    { toJSON: () => "made" },
  ];
  const server = await fake();
  const storage = new LocalStorage();
  const one = client(server, { storage });
  await live(one);
  one.disconnect();
  const pending = strange.map((body) => one.send("user:bob", body));
  for (const promise of pending) promise.catch(() => {});
  await until(() => one.outbox().length === strange.length);
  await one.close();
  let count = 0;
  server.script = (step) => (step === "stored" && ++count <= 3 ? "cut" : undefined);
  const two = client(server, { storage });
  await until(() => server.store.stored.length === strange.length && two.outbox().length === 0);
  const wanted = strange.map((body) => JSON.parse(JSON.stringify(body)));
  assert.deepEqual(stored(server), wanted);
  assert.deepEqual(
    two.told.filter((item) => item.state === "failed"),
    [],
    "no repeat had another text",
  );
});

test("what has no JSON form is bad_body, and the next one goes", async () => {
  const server = await fake();
  const one = client(server);
  const cycle = {};
  cycle.cycle = cycle;
  const throwing = {
    toJSON: () => {
      throw new Error("no");
    },
  };
  for (const body of [undefined, () => 1, Symbol("x"), cycle, 5n, throwing])
    assert.equal((await refused(one.send("user:bob", body))).code, "bad_body", String(typeof body));
  await one.send("user:bob", 1);
  assert.deepEqual(stored(server), [1]);
  assert.deepEqual(one.outbox(), []);
});

test("a body that is changed after send is sent as it was", async () => {
  const server = await fake();
  const one = client(server);
  const body = { n: 1 };
  const pending = one.send("user:bob", body);
  body.n = 2;
  await pending;
  assert.deepEqual(stored(server), [{ n: 1 }]);
});

test("wrong streams and keys are refused", async () => {
  const server = await fake();
  const one = client(server);
  for (const to of ["bob", "user:", "", undefined, 5])
    assert.ok((await refused(one.send(to, 1))) instanceof WaypostError, String(to));
  for (const key of ["", "x".repeat(65), 5])
    assert.ok((await refused(one.send("user:bob", 1, { key }))) instanceof WaypostError, String(key));
  await one.send("user:bob", 1);
  assert.deepEqual(stored(server), [1]);
});

test("the outbox has a bound", async () => {
  const server = await fake();
  const one = client(server);
  one.disconnect();
  let full;
  for (let n = 0; n < 20_000 && !full; n += 1) one.send("user:bob", "x".repeat(200)).catch((error) => (full ??= error));
  await until(() => full);
  assert.equal(full.code, "outbox_full");
  assert.ok(one.outbox().length > 0);
});

test("no more unanswered than the server allows", async () => {
  const server = await fake();
  server.limits = { ...server.limits, unanswered_sends: 8 };
  const one = client(server);
  await live(one);
  let waiting = 0;
  let most = 0;
  const open = [];
  server.connection.take = ((take) =>
    function (frame, ...rest) {
      if (frame.type === "send") most = Math.max(most, ++waiting);
      return take.call(this, frame, ...rest);
    })(server.connection.take);
  server.script = async (step) => {
    if (step === "stored") {
      await new Promise((resolve) => open.push(resolve) && setImmediate(resolve));
      waiting -= 1;
    }
  };
  await Promise.all(marks(60).map((n) => one.send("user:bob", n)));
  assert.deepEqual(stored(server), marks(60));
  assert.ok(most <= 64, `${most} at once`);
});

test("no WebSocket message is above frame_bytes", async () => {
  const server = await fake();
  const one = client(server);
  await live(one);
  let largest = 0;
  for (const socket of server.sockets.clients)
    socket.on("message", (data) => (largest = Math.max(largest, data.length)));
  await Promise.all(marks(12).map((n) => one.send("user:bob", `${n}${"x".repeat(60_000)}`)));
  assert.ok(largest <= server.limits.frame_bytes, `${largest} bytes`);
});

test("the replay shows an own message: it leaves the outbox, and is not repeated", async () => {
  const server = await fake();
  const storage = new LocalStorage();
  const one = client(server, { storage });
  await live(one);
  server.script = (step) => (step === "stored" ? "cut" : undefined);
  const pending = one.send("user:bob", "once", { key: "k" });
  await until(() => server.store.times("k") === 1);
  server.script = undefined;
  const sent = await pending;
  await live(one);
  assert.equal(sent.mid, "k");
  assert.equal(server.store.times("k"), 1);
  assert.deepEqual(bodies(one), ["once"]);
});

test("a tried message is old: nothing is repeated before live", async () => {
  const server = await fake();
  const storage = new LocalStorage();
  const now = Date.now;
  const one = client(server, { storage });
  await live(one);
  server.script = (step) => (step === "stored" ? "cut" : undefined);
  one.send("user:bob", "old", { key: "k" }).catch(() => {});
  await until(() => server.store.times("k") === 1);
  one.disconnect();
  await one.close();
  server.store.keys.clear();
  for (let n = 0; n < 50; n += 1) server.store.say("bob", "user:alice", n);
  server.heard.length = 0;
  server.script = undefined;
  try {
    Date.now = () => now() + 7_200_000;
    const two = client(server, { storage });
    await live(two);
    await until(() => two.outbox().length === 0);
    await two.send("user:bob", "new");
  } finally {
    Date.now = now;
  }
  assert.equal(server.store.times("k"), 1);
  assert.equal(server.of("send").filter((frame) => frame.key === "k").length, 0);
});

test("listen: false sends; what comes is handed to nobody, and counts as taken", async () => {
  const server = await fake();
  server.store.say("bob", "user:alice", 1);
  const one = client(server, { listen: false });
  await one.send("user:bob", 2);
  await one.send("user:bob", 3);
  await until(() => one.progress().get("user:alice")?.offset.endsWith("-3"));
  await one.close();
  assert.deepEqual(one.heard, []);
  assert.match(server.store.device("alice", "phone").get("user:alice"), /-3$/);
});

test("another user on the same device sends nothing of the first", async () => {
  const server = await fake();
  const storage = new LocalStorage();
  const one = client(server, { storage, user: undefined, token: token({ sub: "alice" }) });
  await live(one);
  one.disconnect();
  one.send("user:bob", "alice's").catch(() => {});
  await until(() => one.outbox().length === 1);
  await one.close();
  const two = client(server, { storage, user: undefined, token: token({ sub: "carol" }) });
  await two.send("user:bob", "carol's");
  assert.deepEqual(two.outbox(), []);
  assert.deepEqual(
    server.store.stored.map((message) => [message.from, JSON.parse(message.raw)]),
    [["carol", "carol's"]],
  );
  await two.close();
  client(server, { storage, user: undefined, token: token({ sub: "alice" }) });
  await until(() => stored(server).includes("alice's"));
  assert.equal(server.store.stored.at(-1).from, "alice");
});

test("history over the wire: queries and refusals", async () => {
  const server = await fake();
  for (const n of marks(10)) server.store.say("bob", "user:alice", n);
  const one = client(server);
  await live(one);
  const page = await one.history("user:alice", { limit: 3 });
  assert.deepEqual(
    page.messages.map((message) => message.body),
    [8, 9, 10],
  );
  assert.equal(page.found_newest, true);
  await one.history("user:alice", { before: page.first, with: "bob" });
  await one.history("user:alice", { after: new Date(0), limit: 1 });
  const [, second, third] = server.of("history");
  assert.deepEqual([second.before, second.with], [page.first, "bob"]);
  assert.equal(third.after, "1970-01-01T00:00:00.000Z");
  server.script = (step) => {
    if (step === "history") throw { code: "bad_anchor" };
  };
  assert.equal((await refused(one.history("user:alice", { after: 99 }))).code, "bad_anchor");
  server.script = (step) => (step === "history" ? "cut" : undefined);
  assert.ok((await refused(one.history("user:alice"))) instanceof WaypostError);
});

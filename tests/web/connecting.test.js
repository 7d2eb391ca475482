// Life of a connection: sign-in, back-off, close codes, half-open lines, leaving.

import assert from "node:assert/strict";
import { execFile } from "node:child_process";
import { promisify } from "node:util";
import { CLIENT_ERRORS, connect, WaypostError } from "../../service/web/waypost.js";
import { token } from "./fake.js";
import { bodies, client, fake, live, LocalStorage, refused, test, until } from "./harness.js";

const waits = (one) => one.states.filter((state) => state.state === "waiting");

test("states: connecting, catching-up, live, and where it leads", async () => {
  const server = await fake();
  const one = client(server);
  await live(one);
  const seen = one.states.map((state) => state.state);
  assert.deepEqual(
    [...new Set(seen)].filter((name) => name !== "connecting"),
    ["catching-up", "live"],
  );
  assert.equal(one.state.transport, "websocket");
  assert.equal(one.state.node, "n1");
  assert.equal(one.state.isLeader, true);
  assert.equal(one.user, "alice");
  assert.equal(one.device, "phone");
});

test("options that cannot be are refused at once", () => {
  const wrong = [
    { url: "ftp://x" },
    { url: "not an address" },
    { device: "" },
    { user: "" },
    { ack: "never" },
    { transport: "pigeon" },
    { getToken: 5 },
    { storage: {} },
    { token: 5 },
    { user: 5 },
    { device: 5 },
  ];
  for (const options of wrong) {
    let made;
    try {
      made = connect({ url: "http://127.0.0.1:9", user: "alice", WebSocket: class {}, shared: false, ...options });
    } catch (error) {
      assert.ok(error instanceof WaypostError, `${JSON.stringify(options)}: ${error}`);
      assert.equal(error.code, "bad_option");
      continue;
    }
    made.close();
    assert.fail(`${JSON.stringify(options)} was taken`);
  }
  assert.ok("bad_option" in CLIENT_ERRORS);
});

test("a name that the service does not take: stopped, with what it says", async () => {
  const server = await fake();
  server.script = (step) => {
    if (step === "hello") throw { code: "bad_name" };
  };
  const one = client(server, { device: "a/b" });
  await until(() => one.state.state === "stopped");
  assert.equal(one.state.error.code, "bad_name");
});

test("back-off: within its bounds by chance, rising, and anew after live", async (t) => {
  const server = await fake();
  server.refusal = 503;
  t.mock.method(Math, "random", () => 0.5);
  const one = client(server, { transport: "websocket" });
  const told = [];
  one.on("state", (state) => state.state === "waiting" && told.push(state.retryAt - Date.now()));
  await until(() => told.length === 4);
  for (const [n, wait] of told.entries())
    assert.ok(wait <= 200 * 2 ** n && wait > 100 * 2 ** n - 80, `${n}: ${wait} ms`);
  server.refusal = undefined;
  await live(one);
  server.connection.drop();
  await until(() => told.length === 5);
  assert.ok(told[4] <= 200, `${told[4]} ms`);
});

for (const code of [1001, 1011, 1012, 4000, 4001, 4002, 4003, 4050, 3999]) {
  test(`close code ${code}: it comes back by itself`, async () => {
    const server = await fake();
    const one = client(server);
    await live(one);
    server.connection.close(code);
    await until(() => server.connections.length === 2);
    await live(one);
  });
}

for (const code of ["unauthorised", "bad_frame", "too_large", "forbidden", "hello_timeout", "too_many_connections"]) {
  test(`${code}: stopped, until reconnect`, async () => {
    const server = await fake();
    const one = client(server, { token: token({ sub: "alice" }) });
    await live(one);
    server.connection.refuse(code);
    await until(() => one.state.state === "stopped");
    assert.equal(one.state.error.code, code);
    const pending = one.send("user:bob", "later");
    one.reconnect();
    await pending;
    assert.equal(server.connections.length, 2);
  });
}

test("a close code of 41xx without an error stops too", async () => {
  const server = await fake();
  const one = client(server);
  await live(one);
  server.connection.close(4105);
  await until(() => one.state.state === "stopped");
  assert.ok(one.state.error instanceof WaypostError);
});

test("an error with retry_after, then its close: the client waits so long", async () => {
  const server = await fake();
  const one = client(server);
  await live(one);
  const before = Date.now();
  server.connection.refuse("rate_limited", { retry_after: 0.7 });
  await until(() => waits(one).length);
  assert.ok(waits(one).at(-1).retryAt >= before + 690, `${waits(one).at(-1).retryAt - before} ms`);
  await live(one);
});

test("the token goes in hello, never into the address", async () => {
  const server = await fake();
  const shown = token({ sub: "alice" });
  const one = client(server, { user: undefined, token: shown });
  await live(one);
  assert.equal(server.connection.query.has("token"), false);
  assert.equal(server.connection.said.token, shown);
  assert.equal(one.user, "alice");
});

test("expired with getToken: a fresh one is fetched, and it goes on", async () => {
  const server = await fake();
  let count = 0;
  const good = () => token({ sub: "alice", number: ++count });
  server.believe = (claims) => {
    if (claims.number === 1) throw { code: "expired" };
    return claims;
  };
  const one = client(server, { user: undefined, getToken: good });
  await live(one);
  assert.ok(count >= 2);
});

test("expired with a token alone: stopped with expired; reconnect with another", async () => {
  const server = await fake();
  const one = client(server, { user: undefined, token: token({ sub: "alice", exp: 1 }) });
  await until(() => one.state.state === "stopped");
  assert.equal(one.state.error.code, "expired");
  one.reconnect({ token: token({ sub: "alice" }) });
  await live(one);
});

test("getToken that rejects: waiting, and it is asked again", async () => {
  const server = await fake();
  let count = 0;
  const one = client(server, {
    user: undefined,
    getToken: async () => {
      count += 1;
      if (count === 1) throw new Error("the network");
      if (count === 2) return undefined;
      return token({ sub: "alice" });
    },
  });
  await live(one);
  assert.equal(count, 3);
  assert.ok(waits(one).length >= 2);
});

test("getToken that throws at once, not by a promise, is the same", async () => {
  const server = await fake();
  let count = 0;
  const one = client(server, {
    user: undefined,
    getToken: () => {
      if (count++ === 0) throw new Error("at once");
      return token({ sub: "alice" });
    },
  });
  await live(one);
});

test("a token is renewed on the open connection before it expires", async () => {
  const server = await fake();
  let count = 0;
  const one = client(server, {
    user: undefined,
    getToken: () => token({ sub: "alice", exp: Date.now() / 1000 + (count++ === 0 ? 1.5 : 3600) }),
  });
  await live(one);
  await until(() => server.of("auth").length === 1, "auth on the open connection");
  const heard = server.of("auth")[0];
  assert.ok(JSON.parse(Buffer.from(heard.token.split(".")[1], "base64url")).exp > Date.now() / 1000 + 100);
  await one.send("user:bob", "still here");
  assert.equal(server.connections.length, 1);
});

test("auth that is answered with unavailable is shown again", async () => {
  const server = await fake();
  let count = 0;
  let refusals = 1;
  server.script = (step) => {
    if (step === "auth" && refusals-- > 0) throw { code: "unavailable" };
  };
  const one = client(server, {
    user: undefined,
    getToken: () => token({ sub: "alice", exp: Date.now() / 1000 + (count++ === 0 ? 2 : 3600) }),
  });
  await live(one);
  await until(() => server.of("auth").length >= 2 || server.connections.length >= 2, "another try");
  await one.send("user:bob", 1);
});

test("expired on the open connection, with getToken: back with a fresh one", async () => {
  for (const transport of ["websocket", "sse"]) {
    const server = await fake();
    let count = 0;
    const one = client(server, {
      transport,
      user: undefined,
      getToken: () => token({ sub: "alice", number: ++count }),
    });
    await live(one);
    server.connection.refuse("expired");
    await until(() => server.connections.length === 2);
    await live(one);
    assert.ok(count >= 2);
  }
});

test("half-open: a server that is silent is left within two pings", async () => {
  const server = await fake();
  server.ping = 0.2;
  const one = client(server);
  await live(one);
  await until(() => server.of("ping").length >= 2, "pings");
  const first = server.connection;
  first.write = () => {};
  await until(() => server.connections.length === 2, "a new connection");
  await live(one);
});

test("a server that answers nothing at all to hello is left", async () => {
  const server = await fake();
  let silent = true;
  server.script = (step) => (step === "hello" && silent ? "drop" : undefined);
  const one = client(server);
  await until(() => server.of("hello").length === 1);
  silent = false;
  await until(() => one.state.state === "live", "a second try", 35);
});

test("disconnect: offline, what is sent waits; reconnect: it goes", async () => {
  const server = await fake();
  const one = client(server);
  await live(one);
  one.disconnect();
  assert.equal(one.state.state, "offline");
  await until(() => server.open.size === 0);
  const pending = one.send("user:bob", 1);
  await until(() => one.outbox().length === 1);
  assert.equal((await refused(one.history("user:alice"))).code, "offline");
  one.reconnect();
  await pending;
  assert.equal(server.connections.length, 2);
});

test("disconnect while it connects, and reconnect at once: one connection", async () => {
  const server = await fake();
  const one = client(server);
  one.disconnect();
  one.reconnect();
  one.disconnect();
  one.reconnect();
  one.reconnect();
  await live(one);
  await one.send("user:bob", 1);
  await until(() => server.open.size === 1 && bodies(one).length === 1);
});

test("close: acknowledges, leaves, rejects what is pending; the message stays in the outbox", async () => {
  const server = await fake();
  const storage = new LocalStorage();
  const one = client(server, { storage });
  await live(one);
  server.store.say("bob", "user:alice", "last");
  await until(() => one.heard.length === 1);
  server.script = (step) => (step === "send" ? "drop" : undefined);
  const pending = refused(one.send("user:bob", "unsent"));
  await until(() => server.of("send").length === 1);
  await one.close();
  assert.equal((await pending).code, "closed");
  assert.equal(one.state.state, "closed");
  assert.ok(
    server.acks.some((ack) => ack["user:alice"] === one.heard[0].id),
    "the last entry is acknowledged",
  );
  await until(() => server.open.size === 0);
  assert.equal((await refused(one.send("user:bob", "x"))).code, "closed");
  await one.close();
  server.script = undefined;
  const two = client(server, { storage });
  await until(() => server.store.stored.some((message) => message.raw === '"unsent"'));
  await until(() => two.outbox().length === 0);
});

test("close before there is any connection", async () => {
  const server = await fake();
  server.refusal = 503;
  const one = client(server);
  await one.close();
  assert.equal(one.state.state, "closed");
});

test("after close nothing holds the process", async () => {
  const server = await fake();
  const script = `
    import { WebSocket } from "ws";
    import { connect } from "../../service/web/waypost.js";
    const client = connect({ url: process.argv[1], user: "alice", WebSocket });
    client.on("message", async () => { await client.close(); });
    client.send("user:bob", 1);`;
  const { stderr } = await promisify(execFile)(process.execPath, ["--input-type=module", "-e", script, server.url], {
    cwd: import.meta.dirname,
    timeout: 15_000,
  });
  assert.equal(stderr, "");
});

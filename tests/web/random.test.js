// Faults by chance, from a seed: nothing lost, nothing twice, everything in order. SEED=<number> repeats a run.

import assert from "node:assert/strict";
import { AsyncStorage, client, fake, live, seeded, test, until } from "./harness.js";
import { text } from "./store.js";

const SEED = Number(process.env.SEED ?? Math.floor(Math.random() * 1e9));
const STEPS = ["hello", "welcome", "entry", "send", "stored", "live", "ack", "join", "joined"];
const CODES = ["unavailable", "storage_full", "rate_limited", "internal"];

for (const transport of ["websocket", "sse"])
  test(`two clients, faults by chance over ${transport}, seed ${SEED}`, async () => {
    const random = seeded(SEED + transport.length);
    const server = await fake();
    const count = transport === "sse" ? 200 : 1000;
    let faults = transport === "sse" ? 20 : 40;
    server.script = (step) => {
      if (faults <= 0 || !STEPS.includes(step)) return undefined;
      const dice = random();
      if (dice < 0.01) {
        faults -= 1;
        return "cut";
      }
      if (step === "send" && dice < 0.02) {
        faults -= 1;
        throw { code: CODES[Math.floor(random() * CODES.length)], extra: { retry_after: 0.02 } };
      }
      if (step === "entry" && dice < 0.015 && transport === "websocket") return "twice";
      return undefined;
    };
    const people = ["alice", "bob"].map((user) => {
      const person = { user, map: new Map(), heard: [], next: 0, told: new Set() };
      person.begin = () => {
        person.client = client(
          server,
          { user, transport, device: `${user}-1`, storage: new AsyncStorage(person.map, random) },
          { listen: false },
        );
        // The pauses are tested elsewhere: most are cut short.
        const mine = person.client;
        const hurry = () => mine.state.state === "waiting" && !mine.closing && mine.reconnect();
        mine.on("state", ({ state }) => void (state === "waiting" && random() < 0.9 && setImmediate(hurry)));
        for (const type of ["message", "joined", "left", "gap"])
          person.client.on(type, (event) => void person.heard.push(event));
      };
      person.begin();
      return person;
    });
    for (const person of people) await person.client.join("g");
    const work = people.map(async (person) => {
      const other = people.find((one) => one !== person).user;
      while (person.next < count) {
        const many = 1 + Math.floor(random() * 40);
        const pending = [];
        for (let i = 0; i < many && person.next < count; i += 1) {
          const n = person.next++;
          pending.push(
            person.client
              .send(random() < 0.5 ? `user:${other}` : "group:g", { from: person.user, n })
              .catch((error) => error.code === "closed" || Promise.reject(error)),
          );
        }
        if (random() < 0.08) {
          await person.client.history(`user:${person.user}`).catch(() => {});
          person.client.closing = true;
          await person.client.close();
          person.begin();
        } else if (random() < 0.1) {
          person.client.disconnect();
          person.client.reconnect();
        }
        await Promise.all(pending);
      }
    });
    await Promise.all(work);
    faults = 0;
    for (const { client: one } of people) one.closing = true; // they are not hurried any more
    const say = `seed ${SEED}`;
    for (const { client: one } of people) one.reconnect();
    for (const { client: one } of people)
      await until(() => one.outbox().length === 0 && one.state.state === "live", `an empty outbox, ${say}`, 20);
    const all = server.store.stored.map((message) => ({ ...JSON.parse(message.raw), to: message.to }));
    for (const { user } of people) {
      const mine = all.filter((body) => body.from === user).map((body) => body.n);
      assert.equal(new Set(mine).size, mine.length, `${user}: nothing is stored twice, ${say}`);
      assert.equal(mine.length, count, `${user}: everything is stored, ${say}`);
      assert.deepEqual(
        mine,
        [...mine].sort((a, b) => a - b),
        `${user}: in the order it was sent, ${say}`,
      );
    }
    for (const { user, heard } of people) {
      for (const stream of [`user:${user}`, "group:g"]) {
        const entries = [...server.store.stream(stream).entries.values()].map((entry) => JSON.parse(text(entry)));
        // A device begins at the own joined: where the connection broke just then, it is not pushed any more.
        const from =
          stream === "group:g" ? entries.findIndex((entry) => entry.type === "joined" && entry.user === user) + 1 : 0;
        const wanted = entries.slice(from).map((entry) => entry.id);
        const isOwnJoining = (event) => stream === "group:g" && event.type === "joined" && event.user === user;
        const got = () =>
          heard.filter((event) => event.stream === stream && !isOwnJoining(event)).map((event) => event.id);
        await until(
          () => got().length >= wanted.length,
          `${user}, ${stream}: ${got().length} of ${wanted.length}, ${say}`,
        );
        assert.deepEqual(got(), wanted, `${user}, ${stream}: each once, in order, ${say}`);
      }
    }
  }, 50_000);

// What the tests share: clients with a storage of their own, waiting until something is so, and what a client heard.

import { afterEach, test as plain } from "node:test";
import { WebSocket } from "ws";
import { connect } from "../../service/web/waypost.js";
import { Fake } from "./fake.js";

const begun = [];
const fakes = [];

afterEach(async () => {
  for (const one of fakes) one.script = undefined;
  for (const one of begun.splice(0)) one.close().catch(() => {});
  await Promise.all(fakes.splice(0).map((one) => one.stop()));
});

/** A test that fails, and not its whole file, when it hangs. */
export const test = (name, run, timeout = 12_000) => plain(name, { timeout }, run);

/** Waits until `test` gives something that is true, and gives that. Fails after `seconds`. */
export async function until(test, what = test.toString(), seconds = 8) {
  const end = performance.now() + seconds * 1000;
  for (;;) {
    const answer = await test();
    if (answer) return answer;
    if (performance.now() > end) throw new Error(`in vain: ${what}`);
    await new Promise((resolve) => setTimeout(resolve, 2));
  }
}

export async function fake() {
  const one = await Fake.start();
  fakes.push(one);
  return one;
}

/** What `localStorage` is: synchronous, with `length` and `key`. */
export class LocalStorage {
  constructor(map = new Map()) {
    this.map = map;
  }
  get length() {
    return this.map.size;
  }
  key(n) {
    return [...this.map.keys()][n] ?? null;
  }
  getItem(key) {
    return this.map.get(String(key)) ?? null;
  }
  setItem(key, value) {
    this.map.set(String(key), String(value));
  }
  removeItem(key) {
    this.map.delete(String(key));
  }
}

/** What React Native's `AsyncStorage` is: promises, which take their time, in whatever order. */
export class AsyncStorage {
  constructor(map = new Map(), random = Math.random) {
    Object.assign(this, { map, random });
  }
  async #pause() {
    await new Promise((resolve) => setTimeout(resolve, this.random() * 4));
  }
  async getItem(key) {
    await this.#pause();
    return this.map.get(key) ?? null;
  }
  async setItem(key, value) {
    if (typeof value !== "string") throw new TypeError("a text is wanted");
    await this.#pause();
    this.map.set(key, value);
    await this.#pause();
  }
  async removeItem(key) {
    await this.#pause();
    this.map.delete(key);
  }
  async getAllKeys() {
    await this.#pause();
    return [...this.map.keys()];
  }
}

/** A client of alice's phone, which writes down what it hears in `heard`, `states`, `errors` and `told` (the outbox). */
export function client(server, options = {}, { listen = true } = {}) {
  const one = connect({
    url: server.url,
    user: "alice",
    device: "phone",
    WebSocket,
    shared: false,
    storage: new LocalStorage(),
    ...options,
  });
  begun.push(one);
  Object.assign(one, { heard: [], states: [], errors: [], told: [] });
  one.on("state", (state) => one.states.push(state));
  one.on("error", (error) => one.errors.push(error));
  one.on("outbox", (item) => one.told.push(item));
  if (listen) {
    for (const type of ["message", "joined", "left", "redacted", "entry", "gap"])
      one.on(type, (event) => void one.heard.push(event));
  }
  one.lives = 0;
  one.on("live", () => (one.lives += 1));
  return one;
}

export const live = (one) =>
  until(() => one.state.state === "live", `a client that is live, and not ${JSON.stringify(one.state)}`);
export const bodies = (one) => one.heard.filter((event) => event.type === "message").map((event) => event.body);

/** The error that a promise ends with. */
export async function refused(promise) {
  try {
    await promise;
  } catch (error) {
    return error;
  }
  throw new Error("it was not refused");
}

/** A random number between 0 and 1 from a seed. */
export function seeded(seed) {
  let state = seed >>> 0;
  return () => {
    state = (state + 0x6d2b79f5) >>> 0;
    let t = Math.imul(state ^ (state >>> 15), 1 | state);
    t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t;
    return ((t ^ (t >>> 14)) >>> 0) / 4_294_967_296;
  };
}

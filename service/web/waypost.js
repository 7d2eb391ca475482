/**
 * The Waypost client for browsers, Node and React Native. What `connect` takes and gives stands in waypost.d.ts; how to
 * use it, and what it promises, in docs/browser.md; the wire that it speaks in docs/protocol.md.
 *
 * From the bottom up:
 *
 *   ids, errors, pauses       what everything else needs
 *   Tracks                    where each stream is: what has come, what was handed out, what was taken
 *   Hub                       handlers and iterators
 *   storage, Kept             what outlives the page: offsets, and the outbox
 *   Operations                the order in which sends, joins and leaves go out
 *   WebSocketLine, EventsLine one connection each, with the same face
 *   Link                      one connection after the other, for as long as it makes sense
 *   Tabs                      which of several tabs has the link
 *   WaypostClient             all of it together
 */

// -- numbers, and why -------------------------------------------------------------------------------------------------

const ACK_EVERY_MS = 500; // acknowledgements of half a second go together; the server stores them within a second
const PAUSE_FIRST_MS = 200; // the longest pause before the second try; doubled with each that fails
const PAUSE_MOST_MS = 10_000;
const PAUSE_ASKED_MOST_MS = 60_000; // a server may ask for longer pauses, up to this
const GREETING_MS = 10_000; // until `welcome`: a server that is silent for so long is as good as none
const PROBE_MS = 5_000; // for an answer when the network has changed, or the page is looked at again
const GOODBYE_MS = 2_000; // for the last acknowledgement to be confirmed
const WEBSOCKET_AGAIN_MS = 300_000; // with Server-Sent Events, WebSockets are tried again after so long
const BLOCKED_TRIES = 2; // so many WebSockets that never said anything, and the other way is tried
const RENEW_AT = 0.8; // of a token's life
const TIMER_MOST_MS = 2_000_000_000; // what a timer can count
// Servers forget keys after `key_window_s`, a minute at the least. What was first sent longer ago is repeated only
// after the replay, in which we may find it.
const KEY_IS_SAFE_MS = 50_000;
const OUTBOX_MOST = 1_000; // messages: a page that sends for ever while offline must hear of it
const FAILED_MOST = 100; // of them refused ones that nobody has looked at; the oldest go first
const WAITING_MOST = 1_000; // entries that wait for handlers; above it the connection is given up until they caught up
const WAITING_BYTES_MOST = 8_388_608;
const OFFSETS_BYTES = 32_768; // of one `hello` or `offsets` frame, well below what a server takes
const LEADER_LOOK_MS = 10_000; // between two looks of a tab in sight whether the one with the connection still runs
const LEADER_ANSWER_MS = 3_000;
const SETTLED_KEPT = 1_000; // keys of messages that were stored, for tabs that ask late

// -- errors -----------------------------------------------------------------------------------------------------------

export const CLIENT_ERRORS = Object.freeze({
  bad_option: "an option that cannot be",
  bad_body: "the body has no JSON form",
  closed: "the client was closed",
  handler_failed: "a handler threw; the same event comes again",
  lost: "the connection was lost",
  offline: "there is no connection",
  outbox_full: "too many messages wait already",
  storage_failed: "what has to outlive the page could not be kept",
  token_failed: "getToken gave no token",
  wrong_user: "the token is somebody else's",
  wrong_wire: "the server says what is not the wire",
});

export class WaypostError extends Error {
  constructor(code, message = CLIENT_ERRORS[code] ?? code, { retry = false, retryAfter, cause } = {}) {
    super(`${code}: ${message}`, cause === undefined ? undefined : { cause });
    this.name = "WaypostError";
    this.code = code;
    this.retry = retry;
    if (retryAfter !== undefined) this.retryAfter = retryAfter;
  }

  /** Of an `error` frame, or of a problem over HTTP. */
  static of(told) {
    return new WaypostError(told.code, told.message ?? told.detail ?? told.title ?? told.code, {
      retry: told.retry,
      retryAfter: told.retry_after,
    });
  }
}

// What ends a connection, by close code: the part of docs/errors.md that clients act upon.
const CLOSES = {
  1009: "too_large",
  4000: "unavailable",
  4001: "slow",
  4002: "draining",
  4003: "rate_limited",
  4101: "unauthorised",
  4102: "expired",
  4103: "bad_frame",
  4104: "too_large",
  4105: "forbidden",
  4106: "hello_timeout",
  4107: "too_many_connections",
};
const CLOSING = new Set(Object.values(CLOSES));
const SIGN_IN = new Set(["unauthorised", "expired"]);

/** Whether coming back as we are would end the same way. */
const isFinalClose = (code) => (code >= 4100 && code < 4200) || code === 1009;

/** Something did not come: the connection is of no use any more, and the next one brings it. */
class Hole extends Error {}

// -- ids --------------------------------------------------------------------------------------------------------------

function parseId(text) {
  const found = /^(\d+)-(\d+)$/.exec(text);
  if (!found) throw new WaypostError("wrong_wire", `not an entry id: ${String(text).slice(0, 40)}`);
  return { ms: Number(found[1]), n: Number(found[2]), text };
}

const compare = (a, b) => a.ms - b.ms || a.n - b.n;
/** Whether an entry is the next one after this place. */
const follows = (entry, at) => entry.n === at.n + 1 && entry.ms >= at.ms;
/** Whether who is at this place has had the entry. */
const had = (entry, at) => entry.ms <= at.ms && entry.n <= at.n;

export function compareIds(a, b) {
  return compare(parseId(a), parseId(b));
}

// -- small things -----------------------------------------------------------------------------------------------------

/** Milliseconds of a clock that nobody sets. */
const now = () => globalThis.performance?.now() ?? Date.now();
const isPromise = (value) => value !== null && typeof value === "object" && typeof value.then === "function";
const sleep = (ms) => new Promise((resolve) => setTimeout(resolve, ms));
const ignore = () => {};

/** A promise, and the two ends of it. */
function later() {
  const made = {};
  made.promise = new Promise((resolve, reject) => Object.assign(made, { resolve, reject }));
  made.promise.catch(ignore); // whoever waits for it hears of it
  return made;
}

function utf8Length(text) {
  return typeof TextEncoder === "undefined"
    ? encodeURIComponent(text.toWellFormed?.() ?? text).replace(/%../g, "x").length
    : new TextEncoder().encode(text).length;
}

function randomName() {
  const bytes = new Uint8Array(16);
  if (globalThis.crypto?.getRandomValues) globalThis.crypto.getRandomValues(bytes);
  else for (let i = 0; i < bytes.length; i += 1) bytes[i] = Math.random() * 256; // React Native without a polyfill
  return Array.from(bytes, (byte) => byte.toString(16).padStart(2, "0")).join("");
}

/** Who a token says it is for, undefined when it cannot be read. The server verifies it; here it only names a place. */
function subjectOf(token) {
  try {
    const part = token.split(".")[1].replace(/-/g, "+").replace(/_/g, "/");
    const bytes = Uint8Array.from(atob(part), (char) => char.charCodeAt(0));
    const subject = JSON.parse(new TextDecoder().decode(bytes)).sub;
    return typeof subject === "string" ? subject : undefined;
  } catch {
    return undefined;
  }
}

/** Whether a server may have forgotten the key of what was first tried then, by a clock that may have been set. */
const isLongAgo = (tried) => Math.abs(Date.now() - tried) > KEY_IS_SAFE_MS;

/** How long to wait before the next try: longer each time, and never in step with everybody else. */
class Backoff {
  #tries = 0;

  /** Milliseconds to wait now; `askedFor` seconds at the least, where the server said so. */
  pause(askedFor = 0) {
    const longest = Math.min(PAUSE_MOST_MS, PAUSE_FIRST_MS * 2 ** Math.min(this.#tries, 10));
    this.#tries += 1;
    return Math.max(Math.random() * longest, Math.min(askedFor * 1000, PAUSE_ASKED_MOST_MS));
  }

  reset() {
    this.#tries = 0;
  }
}

// -- where each stream is ---------------------------------------------------------------------------------------------

/** One stream. All ids are parsed ones. */
class Track {
  at = null; // the connection's count: everything up to here has come on this connection
  handed = null; // the highest entry that was put in the queue. Outlives connections: nothing is handed out twice
  taken = null; // {id, epoch}: the handlers are done with everything up to here. Kept, and brought in `hello`
  acked = null; // up to where the server was told on this connection
  isFollowed = false; // the server takes acknowledgements for it
  lastHole = ""; // where the last hole was
  lastEpochGap = "";
  queue = []; // what waits for the handlers
  isPumping = false;
}

const NEW = "hand it out";
const AGAIN = "it was handed out on an earlier connection: count it, and no more";
const HAD = "it has passed before, or pages will bring it: drop it";
const HOLE = "something before it did not come";

/**
 * All streams of one device, as docs/protocol.md says to count them.
 *
 * A server counts from what was brought, which is `taken`; what lies between that and `handed` comes again and is let
 * pass. Ids of one history of the store (its epoch) mean nothing in another, so what was taken carries its epoch.
 */
class Tracks {
  #byStream = new Map();
  #epochs = []; // in the order they were seen; the last one is the current one

  /** `epoch` is the one that was current when `offsets` ({stream: {id, epoch}}) were kept. */
  constructor(epoch = undefined, offsets = []) {
    for (const [stream, mark] of offsets) {
      if (mark.epoch !== epoch && !this.#epochs.includes(mark.epoch)) this.#epochs.push(mark.epoch);
      const track = this.of(stream);
      track.taken = mark;
      track.handed = mark.id;
    }
    if (epoch) this.#epochs.push(epoch);
  }

  get epoch() {
    return this.#epochs.at(-1);
  }

  of(stream) {
    let track = this.#byStream.get(stream);
    if (!track) this.#byStream.set(stream, (track = new Track()));
    return track;
  }

  has(stream, track) {
    return this.#byStream.get(stream) === track;
  }

  [Symbol.iterator]() {
    return this.#byStream[Symbol.iterator]();
  }

  /**
   * What `hello` brings: the offsets of the oldest epoch that is not left behind everywhere. One `hello` can speak of
   * one epoch only; the streams of a newer one are left to the server, which has their acknowledgements.
   */
  brought() {
    const marks = [...this.#byStream]
      .filter(([, track]) => track.taken)
      .map(([stream, track]) => [stream, track.taken]);
    const age = Math.min(...marks.map(([, mark]) => this.#epochs.indexOf(mark.epoch)));
    const epoch = this.#epochs[age];
    return {
      epoch,
      offsets: marks.filter(([, mark]) => mark.epoch === epoch).map(([stream, mark]) => [stream, mark.id]),
    };
  }

  /** The server has welcomed us, and counts each stream from its start. Returns the streams that are ours no more. */
  opened(epoch, starts) {
    if (this.epoch !== epoch) this.#epochs = [...this.#epochs.filter((seen) => seen !== epoch), epoch];
    const before = this.#byStream;
    this.#byStream = new Map();
    for (const [stream, start] of starts) {
      const track = before.get(stream) ?? new Track();
      this.#byStream.set(stream, track);
      track.at = start;
      track.acked = start;
      track.isFollowed = true;
      track.handed ??= start;
      track.taken ??= { id: start, epoch };
    }
    return [...before.keys()].filter((stream) => !this.#byStream.has(stream));
  }

  /** For a tab without a connection: what the tab with the connection passes on is counted from what we have. */
  follow(epoch) {
    if (epoch && this.epoch !== epoch) this.#epochs = [...this.#epochs.filter((seen) => seen !== epoch), epoch];
    for (const track of this.#byStream.values()) track.at = track.handed;
  }

  /**
   * An entry has come. `begins`: it is our own `joined`, from which the stream counts anew. `isAnswer`: it answers what
   * we asked, and on a stream that is behind overtakes the pages.
   */
  entry(stream, id, { begins = false, isAnswer = false } = {}) {
    const track = this.of(stream);
    const { at } = track;
    if (at && had(id, at)) return HAD;
    const isNext = at ? follows(id, at) : !isAnswer;
    if (isNext || (begins && (!at || compare(id, at) > 0))) {
      track.isFollowed = true;
      return this.#handOut(track, id);
    }
    return isAnswer || !at ? HAD : HOLE;
  }

  /** A gap was announced. Also returns from where it is new: what was handed out before is not missing here. */
  gap(stream, after, to, isEpoch) {
    const track = this.of(stream);
    if (isEpoch) {
      const place = `${this.epoch} ${to.text}`;
      const fate = track.lastEpochGap === place ? HAD : NEW;
      track.lastEpochGap = place;
      track.at = to;
      if (fate === NEW) track.handed = to; // ids of before mean nothing now
      return { fate, start: after };
    }
    if (track.at && had(to, track.at)) return { fate: HAD, start: after };
    if (track.at && after.n > track.at.n) return { fate: HOLE, start: after };
    const start = track.handed && track.handed.n > after.n ? track.handed : after;
    return { fate: this.#handOut(track, to), start };
  }

  #handOut(track, id) {
    track.at = id;
    if (track.handed && had(id, track.handed)) return AGAIN;
    track.handed = id;
    return NEW;
  }

  /**
   * What came left a hole that ends at `upto`. Returns undefined the first time: reconnect, and it is sent again. When
   * it is in the same place again the server knows no better: then returns where the hole begins.
   */
  hole(stream, upto) {
    const track = this.of(stream);
    const place = `${track.at.text} ${upto.text}`;
    if (track.lastHole !== place) {
      track.lastHole = place;
      return undefined;
    }
    return track.at;
  }

  /** It is ours no more. */
  forget(stream) {
    this.#byStream.delete(stream);
  }

  /** The handlers are done with something. Returns whether that moved the stream. */
  took(track, { id, epoch, restarts = false }) {
    const mark = track.taken;
    if (mark) {
      const newer = this.#epochs.indexOf(epoch) - this.#epochs.indexOf(mark.epoch);
      if (newer < 0 || (newer === 0 && !restarts && compare(id, mark.id) <= 0)) return false;
      if (newer > 0 || restarts) track.lastEpochGap = "";
    }
    track.taken = { id, epoch };
    if (restarts && epoch === this.epoch) track.acked = id; // the server counts from there, too
    return true;
  }

  /** What was taken and the server was not told on this connection; afterwards it counts as told. */
  toAcknowledge() {
    const offsets = [];
    for (const [stream, track] of this.#byStream) {
      const mark = track.taken;
      if (!track.isFollowed || mark?.epoch !== this.epoch) continue;
      if (!track.acked || compare(mark.id, track.acked) > 0) {
        track.acked = mark.id;
        offsets.push([stream, mark.id.text]);
      }
    }
    return offsets;
  }
}

// -- handlers ---------------------------------------------------------------------------------------------------------

const ENTRY_TYPES = new Set(["message", "joined", "left", "redacted"]);
const EVENT_TYPES = new Set([...ENTRY_TYPES, "entry", "gap", "live", "state", "outbox", "progress", "error"]);

class Hub {
  #handlers = new Map([...EVENT_TYPES].map((type) => [type, new Set()]));
  #iterators = new Set();
  onHeard = ignore; // somebody has begun to listen

  on(type, handler) {
    const handlers = this.#handlers.get(type);
    if (!handlers || typeof handler !== "function") {
      throw new WaypostError("bad_option", `on("${type}", …) takes ${[...EVENT_TYPES].join(", ")}, and a function`);
    }
    handlers.add(handler);
    if (type === "message") this.onHeard();
    return () => this.off(type, handler);
  }

  off(type, handler) {
    this.#handlers.get(type)?.delete(handler);
  }

  iterate(handler) {
    this.#iterators.add(handler);
    this.onHeard();
    return () => this.#iterators.delete(handler);
  }

  /** Whether anybody takes entries. */
  get isHeard() {
    return this.#handlers.get("message").size > 0 || this.#iterators.size > 0;
  }

  /** Tells what nobody has to be done with. A handler that throws harms no other one. */
  tell(type, event) {
    for (const handler of [...this.#handlers.get(type)]) this.#call(handler, type, event);
  }

  #call(handler, type, event) {
    const failed = (cause) => {
      if (type === "error")
        queueMicrotask(() => {
          throw cause;
        }); // as an event of the page would
      else this.tell("error", new WaypostError("handler_failed", `a handler for ${type} threw`, { cause }));
    };
    try {
      const result = handler(event);
      if (isPromise(result)) result.then(ignore, failed);
    } catch (cause) {
      failed(cause);
    }
  }

  /**
   * Hands an event to everybody, one after the other. Returns a promise where one of them needs time. `have` are those
   * who have had it: it grows, so that who failed is the first to get it again.
   */
  hand(event, have) {
    const type = EVENT_TYPES.has(event.type) ? event.type : "entry";
    let waiting = null;
    for (const handler of [...this.#handlers.get(type), ...this.#iterators]) {
      if (have.has(handler)) continue;
      if (waiting) {
        waiting = waiting.then(() => handler(event)).then(() => have.add(handler));
        continue;
      }
      const result = handler(event);
      if (isPromise(result)) waiting = result.then(() => have.add(handler));
      else have.add(handler);
    }
    return waiting;
  }
}

// -- what outlives the page -------------------------------------------------------------------------------------------

class MemoryStorage {
  #items = new Map();
  getItem(key) {
    return this.#items.get(key);
  }
  setItem(key, value) {
    this.#items.set(key, value);
  }
  removeItem(key) {
    this.#items.delete(key);
  }
  getAllKeys() {
    return [...this.#items.keys()];
  }
}

/** Each write is on disk when its promise is fulfilled: what was sent must not come back after a power cut. */
class IndexedStorage {
  #database = null;
  #writes = []; // that wait for the one on its way: they go together, for each takes the time of the disk
  #isWriting = false;

  #open() {
    this.#database ??= new Promise((resolve, reject) => {
      const request = indexedDB.open("waypost", 1);
      request.onupgradeneeded = () => request.result.createObjectStore("kept");
      request.onerror = () => reject(request.error);
      request.onsuccess = () => {
        request.result.onclose = () => (this.#database = null);
        request.result.onversionchange = () => {
          this.#database = null;
          request.result.close();
        };
        resolve(request.result);
      };
    }).catch((error) => {
      this.#database = null;
      throw error;
    });
    return this.#database;
  }

  async #do(mode, act) {
    const database = await this.#open();
    return new Promise((resolve, reject) => {
      const transaction = database.transaction("kept", mode, { durability: "strict" });
      const request = act(transaction.objectStore("kept"));
      transaction.oncomplete = () => resolve(request.result);
      transaction.onabort = transaction.onerror = () => reject(transaction.error ?? request.error);
    });
  }

  #write(act) {
    const { promise, resolve, reject } = later();
    this.#writes.push({ act, resolve, reject });
    if (!this.#isWriting) this.#writeAll();
    return promise;
  }

  async #writeAll() {
    this.#isWriting = true;
    await null; // for what else is asked for in this turn
    while (this.#writes.length) {
      const batch = this.#writes.splice(0);
      try {
        await this.#do("readwrite", (kept) => batch.map(({ act }) => act(kept)).at(-1));
        for (const { resolve } of batch) resolve();
      } catch (error) {
        for (const { reject } of batch) reject(error);
      }
    }
    this.#isWriting = false;
  }

  getItem(key) {
    return this.#do("readonly", (kept) => kept.get(key));
  }
  setItem(key, value) {
    return this.#write((kept) => kept.put(value, key));
  }
  removeItem(key) {
    return this.#write((kept) => kept.delete(key));
  }
  getAllKeys() {
    return this.#do("readonly", (kept) => kept.getAllKeys());
  }
}

function keysOf(storage) {
  return storage.getAllKeys ? storage.getAllKeys() : Array.from({ length: storage.length }, (_, n) => storage.key(n));
}

/** The page's localStorage, null where there is none, or none that may be used. */
function pageStorage() {
  try {
    const storage = globalThis.localStorage;
    storage?.getItem("waypost");
    return storage ?? null;
  } catch {
    return null;
  }
}

/** Where things are kept: `slow` for the outbox, and `quick` for offsets, which localStorage writes at once. */
async function storagesOf(given) {
  if (given) return { slow: given, quick: given, isLasting: true };
  const page = typeof document === "undefined" ? null : pageStorage(); // Node has one that warns of itself
  if (typeof indexedDB !== "undefined") {
    const slow = new IndexedStorage();
    try {
      await slow.getItem("waypost");
      return { slow, quick: page ?? slow, isLasting: true };
    } catch {
      // a private window of some browsers has none: what follows is the next best
    }
  }
  const storage = page ?? new MemoryStorage();
  return { slow: storage, quick: storage, isLasting: page !== null };
}

function storageError(cause) {
  if (cause instanceof WaypostError) return cause;
  return new WaypostError("storage_failed", String(cause?.message ?? cause), { retry: true, cause });
}

/** An offset as it is kept, undefined for what is none. */
function markIn(text) {
  const [id, epoch] = text.split(" ");
  return epoch && /^\d+-\d+$/.test(id) ? { id: parseId(id), epoch } : undefined;
}

/** What is kept for one user and device: offsets under `…/at/<stream>`, the outbox under `…/outbox/<place>`. */
class Kept {
  #slow;
  #quick;
  #prefix;
  #saved = new Map(); // by stream, what is written or being written
  #following = new Map(); // by stream, what is to be written after that; undefined while nothing is
  #report;

  constructor({ slow, quick }, prefix, report) {
    this.#slow = slow;
    this.#quick = quick;
    this.#prefix = prefix;
    this.#report = report;
  }

  async #under(storage, folder) {
    const prefix = this.#prefix + folder;
    const keys = (await keysOf(storage)).filter((key) => String(key).startsWith(prefix)).sort();
    const texts = await Promise.all(keys.map((key) => storage.getItem(key)));
    return keys.map((key, n) => [key.slice(prefix.length), texts[n]]).filter(([, text]) => typeof text === "string");
  }

  async loadOffsets() {
    const quick = await this.#offsetsIn(this.#quick);
    const slow = this.#slow === this.#quick ? quick : await this.#offsetsIn(this.#slow);
    const offsets = new Map(slow.offsets);
    const epoch = quick.epoch ?? slow.epoch;
    for (const [stream, mark] of quick.offsets) {
      const other = offsets.get(stream);
      const isBehind = other && (other.epoch === mark.epoch ? compare(other.id, mark.id) > 0 : other.epoch === epoch);
      if (!isBehind) offsets.set(stream, mark);
    }
    this.#saved = new Map(offsets);
    return { epoch, offsets };
  }

  async #offsetsIn(storage) {
    const offsets = new Map();
    for (const [stream, text] of await this.#under(storage, "at/")) {
      const mark = markIn(text);
      if (mark) offsets.set(stream, mark);
    }
    return { epoch: (await storage.getItem(`${this.#prefix}epoch`)) ?? undefined, offsets };
  }

  async loadItems() {
    const items = [];
    for (const [place, text] of await this.#under(this.#slow, "outbox/")) {
      try {
        items.push({ ...JSON.parse(text), place });
      } catch {
        // written by something else; it is not ours to remove
      }
    }
    return items;
  }

  saveItem({ place, key, to, text, at, tried, state, code }) {
    const value = JSON.stringify({ key, to, text, at, tried, state, code });
    return this.#async(() => this.#slow.setItem(`${this.#prefix}outbox/${place}`, value));
  }

  removeItem({ place }) {
    return this.#async(() => this.#slow.removeItem(`${this.#prefix}outbox/${place}`));
  }

  async #async(act) {
    try {
      return await act();
    } catch (cause) {
      throw storageError(cause);
    }
  }

  saveEpoch(epoch) {
    for (const storage of new Set([this.#quick, this.#slow])) {
      this.#async(() => storage.setItem(`${this.#prefix}epoch`, epoch)).catch(this.#report);
    }
  }

  /**
   * Until these offsets ([stream, id], of this epoch) would outlive the browser, too. It writes localStorage some time
   * after it says so; what a server is told before that, and this device forgets, would be handed out again.
   */
  async keepOffsets(offsets, epoch) {
    if (this.#slow === this.#quick) {
      await this.settled();
      return;
    }
    const writes = offsets.map(([stream, id]) => this.#slow.setItem(`${this.#prefix}at/${stream}`, `${id} ${epoch}`));
    await this.#async(() => Promise.all(writes));
  }

  /** Written at once where the storage can; else one write at a time, of the newest. Never goes back in one epoch. */
  saveOffset(stream, mark, restarts = false) {
    const isKept = (saved) => saved?.epoch === mark.epoch && !restarts && compare(mark.id, saved.id) <= 0;
    if (isKept(this.#saved.get(stream)) || isKept(this.#writtenByOthers(stream))) return;
    this.#saved.set(stream, mark);
    if (this.#following.has(stream)) {
      this.#following.set(stream, mark);
      return;
    }
    this.#write(stream, () => this.#quick.setItem(`${this.#prefix}at/${stream}`, `${mark.id.text} ${mark.epoch}`));
  }

  /** Another tab may have come further, where that can be seen at once. */
  #writtenByOthers(stream) {
    if (this.#slow === this.#quick) return undefined;
    const text = this.#quick.getItem(`${this.#prefix}at/${stream}`);
    return typeof text === "string" ? markIn(text) : undefined;
  }

  forgetOffset(stream) {
    this.#saved.delete(stream);
    if (this.#slow !== this.#quick) {
      this.#async(() => this.#slow.removeItem(`${this.#prefix}at/${stream}`)).catch(this.#report);
    }
    this.#write(stream, () => this.#quick.removeItem(`${this.#prefix}at/${stream}`));
  }

  #write(stream, act) {
    try {
      const writing = act();
      if (!isPromise(writing)) return;
      this.#following.set(stream, undefined);
      const written = () => {
        const next = this.#following.get(stream);
        this.#following.delete(stream);
        if (next && this.#saved.get(stream) === next) {
          this.#write(stream, () =>
            this.#quick.setItem(`${this.#prefix}at/${stream}`, `${next.id.text} ${next.epoch}`),
          );
        }
      };
      writing.then(written, (cause) => {
        this.#failed(cause);
        written();
      });
    } catch (cause) {
      this.#failed(cause);
    }
  }

  #failed(cause) {
    this.#report(storageError(cause));
  }

  /** Until nothing is being written. */
  async settled() {
    while (this.#following.size) await sleep(1);
  }
}

// -- what goes out ----------------------------------------------------------------------------------------------------

/**
 * Sends, joins and leaves in the order they were asked for, repeated until there is an answer.
 *
 * They go out in batches, and a batch only when the one before it is answered. That keeps the order: when a call fails
 * the node fails everything of it that waited behind, and nothing can still be on its way that would then overtake.
 */
class Operations {
  #waiting = [];
  #flying = new Map(); // the batch on its way, by `ref`
  #again = []; // of that batch: refused for now
  #backoff = new Backoff();
  #notBefore = 0;
  #tokens = 0; // sends that may go out at once, as the server counts them
  #filledAt = 0;
  #refs = 0;

  get isEmpty() {
    return !this.#waiting.length && !this.#flying.size && !this.#again.length;
  }

  add(operation) {
    operation.ref = `o${(this.#refs += 1)}`;
    this.#waiting.push(operation);
  }

  find(test) {
    return [...this.#flying.values(), ...this.#again, ...this.#waiting].find(test);
  }

  isFlying(operation) {
    return this.#flying.has(operation.ref);
  }

  /** It is not sent (again). One that is on its way stays until it is answered, for its answer is an entry. */
  withdraw(operation) {
    operation.isOver = true;
    this.#waiting = this.#waiting.filter((one) => !one.isOver);
    this.#again = this.#again.filter((one) => !one.isOver);
  }

  /** A connection stands: it may take so many at once. */
  opened(limits) {
    this.#tokens = limits.connection_sends_burst || Infinity;
    this.#filledAt = now();
  }

  /** The next batch, empty for none now. `isLive`: everything that was missed has come. */
  batch(limits, isLive) {
    if (this.#flying.size || now() < this.#notBefore) return [];
    this.lost();
    this.#fill(limits);
    const batch = [];
    let size = 0;
    while (this.#waiting.length && batch.length < (limits.unanswered_sends ?? 64)) {
      const [operation] = this.#waiting;
      const { item } = operation;
      if (item && (!item.isKept || this.#tokens < 1)) break;
      if (item?.tried && !isLive && (item.isOld || isLongAgo(item.tried))) break;
      size += utf8Length(operation.line()) + 1;
      if (batch.length && size > (limits.frame_bytes ?? 131_072)) break;
      if (item) this.#tokens -= 1;
      this.#waiting.shift();
      if (operation.call) operation.call.tries = (operation.call.tries ?? 0) + 1;
      this.#flying.set(operation.ref, operation);
      batch.push(operation);
    }
    return batch;
  }

  /** As the server does it, and a little slower: what it counts against us must never come as a surprise. */
  #fill({ connection_sends_per_s: perSecond, connection_sends_burst: burst }) {
    const passed = now() - this.#filledAt;
    this.#tokens = perSecond ? Math.min(burst, this.#tokens + (passed / 1000) * perSecond * 0.9) : Infinity;
    this.#filledAt += passed;
  }

  /** In how many milliseconds `batch` may have something though nothing happens until then. */
  get dueIn() {
    if (this.isEmpty || this.#flying.size) return undefined;
    const pause = this.#notBefore - now();
    if (pause > 0) return pause;
    return this.#tokens < 1 ? 100 : undefined;
  }

  /** The answer to one of the batch has come; returns it, undefined for anything else. */
  answered(ref) {
    const operation = this.#flying.get(ref);
    if (this.#flying.delete(ref)) this.#backoff.reset();
    return operation;
  }

  /** One of the batch was refused. Returns it where that is for good. */
  refused(ref, error) {
    const operation = this.#flying.get(ref);
    if (!this.#flying.delete(ref) || operation.isOver) return undefined;
    if (!error.retry) return operation;
    if (!this.#again.length) this.pause(error.retryAfter); // one pause for a batch that failed as a whole
    this.#again.push(operation);
    return undefined;
  }

  pause(seconds) {
    this.#notBefore = now() + this.#backoff.pause(seconds);
  }

  /** The connection is gone, or the batch failed: what is not answered goes back to the front, in its order. */
  lost() {
    const batch = [...this.#flying.values(), ...this.#again].filter((operation) => !operation.isOver);
    batch.sort((a, b) => a.ref.slice(1) - b.ref.slice(1));
    this.#waiting.unshift(...batch);
    this.#flying.clear();
    this.#again = [];
  }
}

// -- one connection: two kinds with the same face ---------------------------------------------------------------------
//
// A line is given `{frame, heard, closed}`: called with each object that the server says (and whether it is an answer
// that stands beside the entries), with every sign of life, and once at the end with {code?, error?, isOurs?}.

/** Offsets ([stream, id]) as objects that each fit a frame, or a request; at least one. */
function inParts(offsets) {
  const parts = [{}];
  let size = 0;
  for (const [stream, id] of offsets) {
    size += utf8Length(stream) + id.text.length + 6;
    if (size > OFFSETS_BYTES) {
      parts.push({});
      size = 0;
    }
    parts.at(-1)[stream] = id.text;
  }
  return parts;
}

/** What both lines have in common: who hears of it (`ends`, null after the end), and that they end once. */
class Line {
  ends;

  constructor(ends) {
    this.ends = ends;
  }

  /** Ends it, for another one to begin. */
  leave() {
    this.end({ isOurs: true });
  }

  /** Gives the connection up at once: one that is half open would take its time to close. */
  drop(error) {
    this.end({ error });
  }

  end(how) {
    const { ends } = this;
    if (!ends) return;
    this.ends = null;
    this.hangUp();
    ends.closed(how);
  }

  /** Closes what carries it; each kind has its own way. */
  hangUp() {}
}

class WebSocketLine extends Line {
  kind = "websocket";
  #socket;
  #token;

  constructor(service, token, hello, ends) {
    super(ends);
    this.#token = token;
    const query = token === undefined ? `?user=${encodeURIComponent(service.user)}` : "";
    const socket = new service.WebSocket(`${service.base.replace(/^http/, "ws")}/v1/connect${query}`, ["waypost.v1"]);
    this.#socket = socket;
    socket.onopen = () => this.write(this.#greetings(hello()));
    socket.onmessage = ({ data }) => this.#take(data);
    socket.onerror = ignore; // `close` follows
    socket.onclose = ({ code }) => this.end({ code });
  }

  #greetings({ device, epoch, offsets }) {
    const parts = inParts(offsets);
    const more = (n) => (n < parts.length - 1 ? { more: true } : {});
    const brought = offsets.length ? { offsets: parts[0], epoch } : {};
    return [
      { type: "hello", device, token: this.#token, ...brought, ...more(0) },
      ...parts.slice(1).map((part, n) => ({ type: "offsets", offsets: part, ...more(n + 1) })),
    ].map((frame) => JSON.stringify(frame));
  }

  #take(data) {
    const text = typeof data === "string" ? data : new TextDecoder().decode(data);
    this.ends?.heard();
    let frames;
    try {
      frames = objectsIn(text);
    } catch (cause) {
      this.end({ error: new WaypostError("wrong_wire", undefined, { retry: true, cause }) });
      return;
    }
    for (const [frame, size] of frames) this.ends?.frame(frame, { size });
  }

  /** Writes frames, each as the text it is; those of one batch go together. */
  write(lines, asOne = false) {
    if (this.#socket.readyState !== 1) return;
    for (const text of asOne ? [lines.join("\n")] : lines) this.#socket.send(text);
  }

  /** Shows a fresh token on the open connection. */
  renew(token) {
    this.write([JSON.stringify({ type: "auth", token, ref: "auth" })]);
  }

  hangUp() {
    const socket = this.#socket;
    socket.onopen = socket.onmessage = socket.onclose = null;
    try {
      socket.close(1000);
    } catch {
      // it is closed, or was never open
    }
  }
}

/** The objects of a message, each with the length of its text: one a line, or one over several lines. */
function objectsIn(text) {
  const lines = text.split("\n").filter((line) => line.trim());
  try {
    return lines.map((line) => [JSON.parse(line), line.length]);
  } catch {
    return [[JSON.parse(text), text.length]];
  }
}

/** Server-Sent Events for what comes, and a request for each thing that is said: where WebSockets are blocked. */
class EventsLine extends Line {
  kind = "sse";
  #service;
  #token;
  #device = "";
  #abort = new AbortController();
  #order = Promise.resolve(); // sends, joins and leaves one after the other

  constructor(service, token, hello, ends) {
    super(ends);
    this.#service = service;
    this.#token = token;
    this.#run(hello()).then(
      () => this.end({}),
      (cause) => this.end({ error: cause instanceof WaypostError ? cause : lostError(cause) }),
    );
  }

  async #run({ device, epoch, offsets }) {
    this.#device = device;
    if (offsets.length) await this.#bring(offsets);
    const query = new URLSearchParams({ device });
    const answer = await this.#fetch("GET", `/v1/events?${query}`, undefined, "text/event-stream");
    if (!answer.ok || !answer.body?.getReader) throw await problemOf(answer);
    const reader = answer.body.getReader();
    const decoder = new TextDecoder();
    let rest = "";
    const streams = {};
    let welcomed;
    for (;;) {
      const { done, value } = await reader.read();
      if (done || !this.ends) return;
      this.ends.heard();
      const lines = (rest + decoder.decode(value, { stream: true })).split("\n");
      rest = lines.pop();
      for (const line of lines) {
        if (!line.startsWith("data:")) continue; // what it says about coming back is for who knows no better
        const frame = JSON.parse(line.slice(5));
        this.ends?.frame(frame, { size: line.length });
        if (frame.type !== "welcome" && frame.type !== "streams") continue;
        if (frame.type === "welcome") welcomed = frame.epoch;
        Object.assign(streams, frame.streams);
        if (!frame.more) await this.#catchUp({ epoch: welcomed, streams }, epoch, new Map(offsets));
      }
    }
  }

  /** Offsets are acknowledged before the stream begins: it begins at what is acknowledged. */
  async #bring(offsets) {
    const known = await this.#stored();
    const ahead = offsets.filter(([stream, id]) => known.has(stream) && compare(id, known.get(stream)) > 0);
    for (const part of ahead.length ? inParts(ahead) : []) await this.#acknowledgeAll(Object.entries(part));
  }

  /** What is ours, and how far this device has come in it. */
  async #stored() {
    const known = new Map();
    for (let after = null; ;) {
      const query = new URLSearchParams({ device: this.#device, limit: "200", ...(after ? { after } : {}) });
      const answer = await this.#fetch("GET", `/v1/streams?${query}`);
      if (!answer.ok) throw await problemOf(answer);
      const page = await answer.json();
      for (const { stream, offset } of page.streams) known.set(stream, parseId(offset));
      if (!page.next) return known;
      after = new URLSearchParams(page.next.split("?")[1]).get("after");
    }
  }

  /** Raises why it cannot be done now. One that is refused for good takes the others with it: so they go by halves. */
  async #acknowledgeAll(offsets) {
    const problem = await this.#acknowledge(Object.fromEntries(offsets));
    if (problem && (problem.retry || SIGN_IN.has(problem.code))) throw problem;
    if (!problem || offsets.length === 1) return;
    const half = offsets.length >> 1;
    await this.#acknowledgeAll(offsets.slice(0, half));
    await this.#acknowledgeAll(offsets.slice(half));
  }

  async #acknowledge(offsets) {
    const answer = await this.#fetch("PUT", `/v1/devices/${encodeURIComponent(this.#device)}/offsets`, { offsets });
    return answer.ok ? undefined : problemOf(answer);
  }

  /** What a WebSocket is told because it brings its offsets: that they are of another history, or what lies between. */
  async #catchUp(welcome, epoch, brought) {
    for (const [stream, state] of Object.entries(welcome.streams)) {
      const id = brought.get(stream);
      if (!id) continue;
      if (epoch !== welcome.epoch) {
        const cause = { kind: "epoch" };
        this.ends?.frame({ type: "gap", stream, after: id.text, to: state.offset, missed: null, cause }, { size: 0 });
      } else if (compare(parseId(state.offset), id) > 0) {
        await this.#fetchBetween(stream, id, parseId(state.offset));
      }
    }
  }

  async #fetchBetween(stream, from, to) {
    this.ends?.frame({ type: "rewind", stream, to: from.text }, { size: 0 });
    for (let after = from.text; ;) {
      const query = new URLSearchParams({ after, limit: "200" });
      const answer = await this.#fetch("GET", `/v1/streams/${encodeURIComponent(stream)}/messages?${query}`);
      if (!answer.ok) throw await problemOf(answer);
      const page = await answer.json();
      const found = [
        ...page.messages.map((entry) => [parseId(entry.id), entry]),
        ...page.gaps.map((gap) => [parseId(gap.to), gap]),
      ].sort(([a], [b]) => compare(a, b));
      for (const [id, frame] of found) {
        if (compare(id, to) > 0) return;
        this.ends?.frame(frame, { size: JSON.stringify(frame).length });
      }
      if (page.found_newest || !page.last || compare(parseId(page.last), to) >= 0) return;
      after = page.last;
    }
  }

  #fetch(method, path, body, accept = "application/json") {
    const { base, user, fetch } = this.#service;
    const headers = { accept };
    if (body !== undefined) headers["content-type"] = "application/json";
    if (this.#token !== undefined) headers.authorization = `Bearer ${this.#token}`;
    else path += `${path.includes("?") ? "&" : "?"}user=${encodeURIComponent(user)}`;
    const text = body === undefined || typeof body === "string" ? body : JSON.stringify(body);
    return fetch(base + path, { method, headers, body: text, signal: this.#abort.signal, cache: "no-store" });
  }

  /** Frames become requests, and their answers frames. */
  write(lines, asOne = false) {
    const told = lines.map((line) => [JSON.parse(line), line]);
    if (asOne) {
      this.#order = this.#order.then(() => this.#inOrder(told));
      return;
    }
    for (const [frame] of told) {
      if (frame.type === "ack") this.#ack(frame);
      else if (frame.type === "history") this.#ask(frame, () => this.#history(frame));
      // A ping has no request: the server's heartbeats come by themselves.
    }
  }

  async #ack({ offsets, ref }) {
    try {
      await this.#acknowledgeAll(Object.entries(offsets));
    } catch {
      return; // it comes again with the next connection
    }
    if (ref !== undefined) this.#answer({ type: "acked", ref });
  }

  /** Once one of them may not have been done, nothing that was asked for after it may be. */
  async #inOrder(told) {
    let hasFailed = false;
    for (const [frame, line] of told) {
      if (hasFailed) this.#answer({ type: "error", ref: frame.ref, code: "unavailable", message: "", retry: true });
      else hasFailed = !(await this.#ask(frame, () => this.#operate(frame, line)));
    }
  }

  /** Answers what was asked. Returns false where it has failed for now. */
  async #ask(frame, act) {
    try {
      this.#answer({ ...(await act()), ref: frame.ref });
      return true;
    } catch (cause) {
      const problem =
        cause instanceof WaypostError ? cause : new WaypostError("uncertain", "no answer", { retry: true });
      const { code, message, retry, retryAfter } = problem;
      this.#answer({ type: "error", ref: frame.ref, code, message, retry, retry_after: retryAfter });
      return !retry;
    }
  }

  async #operate(frame, line) {
    const { user } = this.#service;
    const place = `/v1/groups/${encodeURIComponent(frame.group)}/members/${encodeURIComponent(user)}`;
    if (frame.type === "send")
      return { duplicate: false, ...(await this.#json("POST", "/v1/messages", line)), type: "sent" };
    const about = { stream: `group:${frame.group}`, user, group: frame.group };
    if (frame.type === "join") return { ...about, type: "joined", id: (await this.#json("PUT", place, {})).since };
    await this.#json("DELETE", place);
    return { ...about, type: "left" };
  }

  async #history({ stream, type, ref, ...query }) {
    const path = `/v1/streams/${encodeURIComponent(stream)}/messages?${new URLSearchParams(query)}`;
    return { ...(await this.#json("GET", path)), type: "history" };
  }

  async #json(method, path, body) {
    const answer = await this.#fetch(method, path, body);
    if (!answer.ok) throw await problemOf(answer);
    return answer.status === 204 ? {} : answer.json();
  }

  #answer(frame) {
    this.ends?.frame(frame, { isAside: true, size: 0 });
  }

  /** A stream ends with its token: with a fresh one another begins. */
  renew() {
    this.leave();
  }

  hangUp() {
    this.#abort.abort();
  }
}

const lostError = (cause) => new WaypostError("lost", String(cause?.message ?? cause), { retry: true, cause });

async function problemOf(answer) {
  try {
    const told = await answer.json();
    if (typeof told.code !== "string") throw new TypeError("a gateway's words, not the service's");
    return WaypostError.of(told);
  } catch {
    return new WaypostError("lost", `the server answers with HTTP status ${answer.status}`, { retry: true });
  }
}

// -- one connection after the other -----------------------------------------------------------------------------------

/**
 * Connects, and connects again, until `stop` or until it makes no sense.
 *
 * `owner` is the client: `hello()` gives what to bring, `opened(welcome, starts)`, `take(frame, about)` and `lost()`
 * hear what happens, `state(state)` what there is to say of it, `hasRoom()` waits while handlers have too much to do.
 */
class Link {
  limits = {};
  isLive = false;
  #owner;
  #service;
  #turn = null; // the run that counts; another one ends by itself
  #line = null;
  #isOpen = false;
  #welcome = null; // while more `streams` follow
  #starts = [];
  #lastError = null; // said on this connection before its end
  #backoff = new Backoff();
  #wake = ignore; // out of a pause
  #timers = new Set();
  #heardAt = 0;
  #pingedAt = 0; // 0: no ping is without an answer
  #token; // one that was fetched and not shown yet
  #renewals = new Backoff();
  #signInTries = 0;
  #silentTries = 0; // WebSockets in a row that said nothing
  #eventsUntil = 0; // until when Server-Sent Events are used instead

  constructor(owner, service) {
    this.#owner = owner;
    this.#service = service;
  }

  get isOpen() {
    return this.#isOpen;
  }

  /** `token`: one that was fetched just now. */
  start(token) {
    this.#token = token;
    this.#signInTries = 0;
    this.#backoff.reset();
    const turn = {};
    this.#turn = turn;
    this.#run(turn).catch((cause) => this.#owner.report(lostError(cause)));
  }

  stop() {
    this.#turn = null;
    this.#wake();
    this.#line?.drop();
  }

  /** Something has changed out there: try at once, or see whether the connection still stands. */
  hint() {
    this.#backoff.reset();
    this.#eventsUntil = 0; // another network may let WebSockets pass
    this.#wake();
    if (!this.#isOpen) return;
    const { line, heardAt } = { line: this.#line, heardAt: this.#heardAt };
    this.#ping();
    if (line.kind === "websocket") {
      this.#timer(() => line === this.#line && this.#heardAt === heardAt && line.drop(silentError()), PROBE_MS);
    }
  }

  write(lines, asOne) {
    if (this.#isOpen) this.#line.write(lines, asOne);
  }

  /** The handlers have too much to do: another connection, once there is room. */
  again() {
    this.#line?.leave();
  }

  async #run(turn) {
    const isOver = () => this.#turn !== turn;
    while (!isOver()) {
      await this.#owner.hasRoom();
      if (isOver()) return;
      this.#owner.state({ state: "connecting" });
      const end = await this.#connection(isOver);
      if (isOver()) return;
      if (end.isOurs) continue;
      const error = end.error ?? this.#lastError ?? closeError(end.code);
      if (this.#isFinal(end, error)) {
        this.#turn = null;
        this.#owner.state({ state: "stopped", error });
        return;
      }
      const pause = Math.round(this.#backoff.pause(error.retryAfter));
      this.#owner.state({ state: "waiting", error, retryAt: Date.now() + pause });
      await new Promise((resolve) => {
        const timer = setTimeout(resolve, pause);
        this.#wake = () => (clearTimeout(timer), resolve());
      });
      this.#wake = ignore;
    }
  }

  #isFinal(end, error) {
    if (SIGN_IN.has(error.code) && this.#service.hasFreshToken && this.#signInTries < 1) {
      this.#signInTries += 1;
      return false;
    }
    if (isFinalClose(end.code)) return true;
    return end.code === undefined || end.code < 4000 ? !error.retry : false;
  }

  /** One connection, from the token to the end: see the lines. */
  async #connection(isOver) {
    this.#lastError = null;
    let token = this.#token;
    this.#token = undefined;
    try {
      token ??= await this.#service.token();
    } catch (error) {
      return { error };
    }
    if (isOver()) return {};
    const Line = this.#choose();
    const end = await new Promise((closed) => {
      const frame = (told, about) => this.#guard(() => this.#take(told, about));
      const heard = () => {
        this.#heardAt = now();
        this.#pingedAt = 0;
      };
      try {
        this.#line = new Line(this.#service, token, () => this.#owner.hello(), { frame, heard, closed });
      } catch (cause) {
        closed({ error: lostError(cause) });
        return;
      }
      this.#timer(() => this.#isOpen || this.#line?.drop(silentError()), GREETING_MS);
    });
    this.#down(Line);
    return end;
  }

  #down(Line) {
    const wasOpen = this.#isOpen;
    if (Line === WebSocketLine) this.#silentTries = wasOpen || this.#lastError ? 0 : this.#silentTries + 1;
    else if (!wasOpen) this.#eventsUntil = 0; // that does not work either: the next try is a WebSocket
    for (const timer of this.#timers) clearTimeout(timer);
    this.#timers.clear();
    this.#line = this.#welcome = null;
    this.#isOpen = this.isLive = false;
    this.#pingedAt = 0;
    this.#owner.lost();
  }

  /** WebSockets, unless they have proved to be blocked: then the other way for some time. */
  #choose() {
    const { transport, canFetch } = this.#service;
    if (transport !== "auto") return transport === "sse" ? EventsLine : WebSocketLine;
    if (!canFetch) return WebSocketLine;
    if (now() < this.#eventsUntil) return EventsLine;
    if (this.#silentTries < BLOCKED_TRIES) return WebSocketLine;
    this.#silentTries = BLOCKED_TRIES - 1; // when their time comes again, one try is enough
    this.#eventsUntil = now() + WEBSOCKET_AGAIN_MS;
    return EventsLine;
  }

  #guard(act) {
    try {
      act();
    } catch (cause) {
      const error = cause instanceof WaypostError ? cause : new WaypostError("wrong_wire", cause.message, { cause });
      error.retry = true; // another connection may do better
      if (!(cause instanceof Hole)) this.#owner.report(error);
      this.#line?.drop(error);
    }
  }

  #take(frame, about) {
    if (frame.type === "error" && frame.ref === undefined) this.#takeError(WaypostError.of(frame));
    else if (frame.type === "welcome" || frame.type === "streams") this.#greeted(frame);
    else if (frame.type === "authorised") this.#renewLater(frame.expires_in);
    else if (frame.type === "error" && frame.ref === "auth" && frame.retry) this.#renewAgain(WaypostError.of(frame));
    else if (this.#isOpen && frame.type !== "pong") {
      if (frame.type === "live" && !frame.stream) {
        this.isLive = true;
        this.#backoff.reset();
      }
      this.#owner.take(frame, about);
    }
  }

  #takeError(error) {
    if (!this.#isOpen) {
      this.#lastError = error;
      if (!error.retry) this.#line.drop(error); // `hello` was refused: as we are it always will be
    } else if (CLOSING.has(error.code)) {
      this.#lastError = error; // says why the connection is about to end
    }
    // Else an acknowledgement was refused: of a group just left, or overtaken by its page. The next covers it.
  }

  #greeted(frame) {
    if (frame.type === "welcome") {
      this.#welcome = frame;
      this.#starts = [];
    }
    if (!this.#welcome) throw new WaypostError("wrong_wire", "it did not begin with a welcome");
    for (const [stream, { offset }] of Object.entries(frame.streams)) this.#starts.push([stream, parseId(offset)]);
    if (frame.more) return;
    const welcome = this.#welcome;
    this.#welcome = null;
    this.limits = welcome.limits ?? {};
    this.#isOpen = true;
    this.#signInTries = 0;
    this.#watch((welcome.ping ?? 25) * 1000);
    this.#renewLater(welcome.expires_in);
    this.#owner.opened(welcome, this.#starts, this.#line.kind);
  }

  /** A server that says nothing for two periods is gone, whatever the socket thinks. */
  #watch(period) {
    const line = this.#line;
    const look = () => {
      if (line !== this.#line) return;
      const patience = line.kind === "sse" ? 2 * period : period;
      if (this.#pingedAt && now() - this.#pingedAt >= patience) {
        line.drop(silentError());
        return;
      }
      if (!this.#pingedAt && now() - this.#heardAt >= (line.kind === "sse" ? 0 : period / 2)) this.#ping();
      this.#timer(look, period / 4);
    };
    look();
  }

  #ping() {
    this.#pingedAt ||= now();
    this.#line.write([JSON.stringify({ type: "ping" })]);
  }

  #renewLater(expiresIn) {
    if (expiresIn === undefined || !this.#service.getToken) return;
    this.#renewals.reset();
    const due = now() + expiresIn * 1000 * RENEW_AT;
    const wait = () => {
      const left = due - now();
      if (left > TIMER_MOST_MS) this.#timer(wait, TIMER_MOST_MS);
      else this.#timer(() => this.#renew(), Math.max(0, left));
    };
    wait();
  }

  /** Shows this token, on the open connection. */
  renew(token) {
    if (this.#line.kind === "sse") this.#token = token;
    this.#line.renew(token);
  }

  async #renew() {
    const line = this.#line;
    try {
      const token = await this.#service.token();
      if (line === this.#line) this.renew(token);
    } catch (error) {
      if (line === this.#line) this.#renewAgain(error);
    }
  }

  #renewAgain(error) {
    if (!error.retry) {
      this.#line.drop(error); // somebody else has signed in
      return;
    }
    this.#owner.report(error);
    this.#timer(() => this.#renew(), this.#renewals.pause(error.retryAfter));
  }

  /** For as long as this connection. */
  #timer(act, ms) {
    const timer = setTimeout(() => {
      this.#timers.delete(timer);
      act();
    }, ms);
    this.#timers.add(timer);
  }
}

const offlineError = () => new WaypostError("offline", undefined, { retry: true });
const silentError = () => new WaypostError("lost", "the server says nothing", { retry: true });

function closeError(code) {
  const known = CLOSES[code];
  return new WaypostError(known ?? "lost", known ?? `the connection was lost${code ? ` (${code})` : ""}`, {
    retry: !isFinalClose(code),
  });
}

// -- several tabs -----------------------------------------------------------------------------------------------------

const canShare = () => typeof BroadcastChannel !== "undefined" && Boolean(globalThis.navigator?.locks);

/**
 * Which tab has the connection: the one that holds a lock. The others hear over a channel what it hears.
 *
 * The browser gives the lock on when a tab ends. One that holds it and does not answer (phones stop tabs that are out of
 * sight) is left out: whoever is in sight takes the lock, and the other one notices when it wakes.
 */
class Tabs {
  id = randomName();
  isLeader = false;
  #name;
  #owner;
  #channel;
  #timer;
  #answered = ignore;

  constructor(name, owner) {
    this.#name = name;
    this.#owner = owner;
    this.#channel = new BroadcastChannel(name);
    this.#channel.onmessage = ({ data }) => this.#take(data);
    this.#channel.unref?.(); // Node: it keeps no process alive
    this.#request({});
    this.post({ kind: "who" });
    this.#timer = setInterval(() => this.look(), LEADER_LOOK_MS);
    this.#timer.unref?.();
  }

  #request(options) {
    const claim = (this.claim = {});
    const hold = () => {
      if (this.claim !== claim || !this.#channel) return undefined;
      this.isLeader = true;
      this.#owner.lead();
      return new Promise((release) => (claim.release = release));
    };
    claim.abort = new AbortController();
    const signal = options.steal ? {} : { signal: claim.abort.signal };
    navigator.locks.request(this.#name, { ...options, ...signal }, hold).catch(() => {
      if (this.claim !== claim || !this.#channel) return;
      this.isLeader = false; // another tab has taken it
      this.#owner.follow();
      this.#request({});
    });
  }

  /** Takes the connection over from the tab that has it. */
  steal() {
    if (this.isLeader || !this.#channel) return;
    this.claim.abort.abort();
    this.#request({ steal: true });
  }

  /** Whether the tab with the connection still answers; only a tab in sight is allowed to doubt it. */
  async look() {
    if (this.isLeader || !this.#channel) return;
    if (typeof document !== "undefined" && document.visibilityState !== "visible") return;
    const answered = new Promise((resolve) => (this.#answered = () => resolve(true)));
    this.post({ kind: "there?" });
    if (!(await Promise.race([answered, sleep(LEADER_ANSWER_MS)]))) this.steal();
  }

  post(message) {
    this.#channel?.postMessage({ from: this.id, ...message });
  }

  #take(message) {
    if (message.to !== undefined && message.to !== this.id) return;
    if (message.kind === "there?") {
      if (this.isLeader) this.post({ kind: "here", to: message.from });
      return;
    }
    if (message.fromLeader || message.kind === "here") this.#answered();
    if (message.kind !== "here") this.#owner.hear(message);
  }

  stop() {
    clearInterval(this.#timer);
    this.#channel?.close();
    this.#channel = null;
    this.claim.abort.abort();
    this.claim.release?.();
    this.isLeader = false;
  }
}

// -- the client -------------------------------------------------------------------------------------------------------

const PAGE_EVENTS = ["online", "offline", "pagehide", "pageshow"];
const Withdrawn = Symbol("an iterator has ended before it was done with its event");

/** What the options say, checked: where the service is, and how to reach it. */
class Service {
  user;
  transport;
  shared;
  #token;
  #shown; // the last one of those that were given

  constructor(options) {
    const {
      url = globalThis.location?.href,
      token,
      getToken,
      user,
      transport = "auto",
      ack = "auto",
      shared,
    } = options;
    const refuse = (what) => {
      throw new WaypostError("bad_option", what);
    };
    let parsed;
    try {
      parsed = new URL(url, globalThis.location?.href);
    } catch {
      refuse("url: not an address");
    }
    if (!/^(https?|wss?):$/.test(parsed.protocol)) refuse("url: http(s):// or ws(s)://");
    // Of a page only where it comes from counts; an address that was given may have a path before ours.
    const path = options.url === undefined ? "" : parsed.pathname.replace(/\/(v1\/connect)?\/*$/, "");
    this.base = `${parsed.protocol.replace(/^ws/, "http")}//${parsed.host}${path}`;
    this.host = parsed.host + path;
    if (!["auto", "websocket", "sse"].includes(transport)) refuse("transport: auto, websocket or sse");
    if (!["auto", "manual"].includes(ack)) refuse("ack: auto or manual");
    if (getToken !== undefined && typeof getToken !== "function") refuse("getToken: a function");
    for (const [name, value] of Object.entries({ WebSocket: options.WebSocket, fetch: options.fetch })) {
      if (value !== undefined && typeof value !== "function") refuse(`${name}: a function`);
    }
    const { storage } = options;
    if (
      storage !== undefined &&
      !["getItem", "setItem", "removeItem"].every((name) => typeof storage?.[name] === "function")
    ) {
      refuse("storage: it has no getItem, setItem and removeItem");
    }
    for (const [name, value] of Object.entries({ listen: options.listen, shared })) {
      if (value !== undefined && typeof value !== "boolean") refuse(`${name}: true or false`);
    }
    for (const [name, value] of Object.entries({ token, user, device: options.device })) {
      if (value !== undefined && (typeof value !== "string" || !value)) refuse(`${name}: a text`);
    }
    if (!token && !getToken && !user) refuse("who signs in: token, getToken, or in dev mode user");
    if (shared && !canShare()) refuse("shared: there are no Web Locks or no BroadcastChannel here");
    this.WebSocket = options.WebSocket ?? globalThis.WebSocket;
    const fetch = options.fetch ?? globalThis.fetch;
    this.fetch = fetch && ((...request) => fetch(...request)); // a browser's wants to be called as a function
    this.canFetch = Boolean(fetch);
    if (!this.WebSocket && transport === "websocket") refuse("WebSocket: there is none here, give one");
    if (!this.WebSocket && !fetch) refuse("WebSocket, fetch: there is neither here");
    this.transport = this.WebSocket ? transport : "sse";
    this.shared = shared ?? canShare();
    this.user = user ?? (token && subjectOf(token));
    this.getToken = getToken;
    this.#token = token;
  }

  set given(token) {
    this.#token = token;
  }

  /** Whether there is one that was not shown yet. */
  get hasFreshToken() {
    return Boolean(this.getToken) || this.#token !== this.#shown;
  }

  /** The token to show, undefined in dev mode. Raises `token_failed`, and `wrong_user` for somebody else's. */
  async token() {
    let token = (this.#shown = this.#token);
    if (this.getToken) {
      this.#token = undefined; // one that was given beside it is good for the first time
      try {
        token ??= await Promise.race([this.getToken(), sleep(GREETING_MS)]);
        if (typeof token !== "string" || !token) throw new TypeError("getToken gave no text");
      } catch (cause) {
        throw new WaypostError("token_failed", String(cause?.message ?? cause), { retry: true, cause });
      }
    }
    const subject = token && subjectOf(token);
    if (subject && this.user && subject !== this.user) throw new WaypostError("wrong_user", `it is for ${subject}`);
    return token;
  }
}

class WaypostClient {
  #options;
  #service;
  #hub = new Hub();
  #device;
  #name; // under which everything is kept, and tabs find each other
  #state = { type: "state", state: "connecting", isLeader: false };
  #beginning = null; // a promise
  #isReady = false; // what is kept has been read
  #isClosing = false; // what was sent so far is still to be kept
  #isClosed = false;
  #isWanted = true; // to be online
  #kept = null;
  #tracks = new Tracks();
  #keeps = false; // offsets: the tab that has the connection does
  #isPlaced = false; // the tracks are where this tab is, and not only where the device was
  #waiting = 0; // events in the queues
  #waitingBytes = 0;
  #isLacking = false; // what another tab has passed on was too much at once
  #room = null; // when set: the connection waits until the handlers have caught up
  #ackTimer = null;
  #closing = null; // a promise
  #goodbye = null; // the last acknowledgement, on closing
  #items = new Map(); // the outbox, by key
  #removals = new Map(); // key → promise: what is leaving it
  #early = []; // of it: put there before what is kept was read
  #settled = new Map(); // key → Sent of those that left it lately
  #promises = new Map(); // key → who waits for it in this tab
  #place = { ms: 0, count: 0 };
  #posts = Promise.resolve(); // to other tabs, in the order of the outbox
  #calls = new Map(); // joins, leaves and histories that were asked for in this tab
  #asks = 0; // sends, joins, leaves and histories, in the order they were asked for in this tab
  #asked = new Map(); // histories on their way, by `ref`
  #asking = []; // and those that wait for the connection
  #operations = null; // and the link: of the tab that has the connection
  #link = null;
  #flight = null; // a batch whose first try is being written down
  #flushTimer = null;
  #tabs = null;
  #onHint = (event) => this.#hint(event);

  constructor(options) {
    this.#options = options;
    this.#service = new Service(options);
    this.#device = options.device;
    this.#hub.onHeard = () => this.#pumpAll();
    for (const type of PAGE_EVENTS) globalThis.addEventListener?.(type, this.#onHint);
    globalThis.document?.addEventListener("visibilitychange", this.#onHint);
    this.#beginning = this.#begin();
  }

  get user() {
    return this.#service.user ?? "";
  }
  get device() {
    return this.#device ?? "";
  }
  get state() {
    return this.#state;
  }
  on(type, handler) {
    return this.#hub.on(type, handler);
  }
  off(type, handler) {
    this.#hub.off(type, handler);
  }

  // -- the beginning --------------------------------------------------------------------------------------------------

  /** Reads what is kept, and begins. Where that cannot be, nothing is sent: it may hold what was sent already. */
  async #begin() {
    try {
      const storages = await storagesOf(this.#options.storage);
      const place = `waypost/${this.#service.host}/`;
      const token = await this.#whoAmI(storages, `${place}user`);
      this.#device ??= await this.#whichDevice(storages, `${place}device`);
      const names = [this.#service.user, this.#device].map(encodeURIComponent);
      this.#name = `${place}${names.join("/")}/`;
      this.#kept = new Kept(storages, this.#name, (error) => this.#report(error));
      const { epoch, offsets } = await this.#kept.loadOffsets();
      this.#tracks = new Tracks(epoch, offsets);
      this.#merge(await this.#kept.loadItems());
      this.#isReady = true;
      for (const item of this.#early.splice(0)) this.#put(item);
      if (this.#isWanted && !this.#isClosing) this.#goOnline(token);
    } catch (cause) {
      const error = storageError(cause);
      this.#tellState({ state: "stopped", error });
      this.#report(error);
      for (const item of this.#early.splice(0)) this.#dropItem(item, error); // they could not be kept
    }
  }

  /** The name under which everything is kept: who the token is for, or who it was for last time. Returns the token. */
  async #whoAmI({ slow }, key) {
    const service = this.#service;
    const remembered = service.user ?? (await slow.getItem(key)) ?? undefined;
    const backoff = new Backoff();
    let token;
    while (service.getToken) {
      try {
        token = await service.token();
        break;
      } catch (error) {
        this.#report(error);
        if (remembered || !error.retry || this.#isClosing) break; // it is asked again when there is something to connect to
        const pause = Math.round(backoff.pause());
        this.#tellState({ state: "waiting", error, retryAt: Date.now() + pause });
        await sleep(pause);
      }
    }
    service.user ??= (token && subjectOf(token)) ?? remembered;
    if (!service.user) throw new WaypostError("bad_option", "the token names nobody: give user, too");
    await slow.setItem(key, service.user);
    return token;
  }

  /** A name that is made once. Tabs that cannot share a connection each have their own, as long as they are open. */
  async #whichDevice({ slow, isLasting }, key) {
    if (!isLasting) return "default";
    const storage = this.#service.shared || typeof sessionStorage === "undefined" ? slow : sessionStorage;
    const find = async () => {
      const found = await storage.getItem(key);
      if (found) return found;
      const made = `web-${randomName().slice(0, 12)}`;
      await storage.setItem(key, made);
      return made;
    };
    return this.#service.shared ? navigator.locks.request(key, find) : find(); // of two new tabs one makes it
  }

  #goOnline(token) {
    this.#tellState({ state: "connecting" });
    if (!this.#service.shared) {
      this.#lead(token);
      return;
    }
    this.#tabs = new Tabs(this.#name, {
      lead: () => this.#lead(),
      follow: () => this.#follow(),
      hear: (message) => this.#hear(message),
    });
  }

  // -- which tab has the connection: called by `Tabs` -----------------------------------------------------------------

  get #isLeading() {
    return this.#tabs ? this.#tabs.isLeader : this.#isWanted && !this.#isClosed;
  }

  /** This tab is to have the connection. What other tabs have put into the outbox is read from where it is kept. */
  async #lead(token) {
    const { claim } = this.#tabs ?? {};
    const isOver = () => !this.#isLeading || this.#tabs?.claim !== claim || this.#link !== null;
    const backoff = new Backoff();
    for (;;) {
      try {
        const mine = [...this.#items.values()].filter((item) => item.isKept);
        await this.#merge(await this.#kept.loadItems(), mine);
        await this.#kept.loadOffsets();
        break;
      } catch (cause) {
        const error = storageError(cause);
        const pause = Math.round(backoff.pause());
        if (isOver()) return;
        this.#report(error);
        this.#tellState({ state: "waiting", error, retryAt: Date.now() + pause });
        await sleep(pause);
      }
    }
    if (isOver()) return;
    this.#isPlaced = true;
    this.#keeps = true;
    this.#operations = new Operations();
    for (const [stream, track] of this.#tracks) if (track.taken) this.#kept.saveOffset(stream, track.taken);
    this.#link = new Link(this.#ends(), this.#service);
    this.#askAll();
    this.#link.start(token);
    this.#announce();
  }

  /** Sends, joins and leaves go out in the order they were asked for; first what was there before this tab asked. */
  #askAll() {
    const sends = this.#inOrder().filter((item) => item.state === "queued");
    const asked = [
      ...sends.map((item) => ({ order: item.order ?? 0, item })),
      ...[...this.#calls.values()].map((call) => ({ order: call.id, call })),
    ];
    for (const { item, call } of asked.sort((a, b) => a.order - b.order)) {
      if (call) this.#execute(call);
      else {
        item.isOld = item.tried > 0;
        this.#operations.add(this.#sending(item));
      }
    }
  }

  /** What a link tells, and asks for. */
  #ends() {
    return {
      hello: () => this.#hello(),
      opened: (welcome, starts, transport) => this.#opened(welcome, starts, transport),
      take: (frame, about) => this.#take(frame, about),
      lost: () => this.#lost(),
      hasRoom: () => this.#hasRoom(),
      state: (state) => this.#tellState(state),
      report: (error) => this.#report(error),
    };
  }

  /** Another tab has taken the connection. */
  #follow() {
    this.#keeps = false;
    this.#letGo();
    this.#tracks.follow();
    this.#tellState({ state: "connecting" });
    this.#tabs.post({ kind: "who" }); // what the other one has said meanwhile was not heard
  }

  #letGo() {
    const link = this.#link;
    this.#link = this.#operations = null;
    link?.stop();
    clearTimeout(this.#flushTimer);
    clearTimeout(this.#ackTimer);
    this.#flushTimer = this.#ackTimer = this.#flight = null;
  }

  /** Where this tab is, and what its handlers have not done yet, for tabs that begin to follow. */
  #announce(to) {
    if (!this.#tabs) return;
    const tracks = [...this.#tracks].map(([stream, { taken, queue }]) => ({
      stream,
      taken,
      queue: queue
        .filter(({ id }) => id)
        .map(({ told, id, epoch, restarts, isLast }) => ({ event: told, id, epoch, restarts, isLast })),
    }));
    const { error, ...state } = this.#state;
    this.#share({ kind: "leader", to, epoch: this.#tracks.epoch, tracks, state: { ...state, error: plain(error) } });
  }

  #share(message) {
    if (this.#link) this.#tabs?.post({ fromLeader: true, ...message });
  }

  /** What another tab says. */
  #hear(message) {
    const { kind } = message;
    if (this.#link) {
      if (kind === "who") {
        this.#announce(message.from);
        this.#look();
      } else if (kind === "added") this.#added(message.item);
      else if (kind === "item") this.#heardOfItem(message);
      else if (kind === "call") this.#execute(message.call, message.from);
      else if (kind === "ack") this.#ackTo(message.stream, parseId(message.id), message.epoch);
      else if (kind === "hint") this.#link.hint();
      return;
    }
    if (kind === "leader") this.#adopt(message);
    else if (kind === "frame" && this.#isPlaced) this.#takeShared(message);
    else if (kind === "live" && this.#isPlaced) this.#live(message.stream);
    else if (kind === "state") this.#tellState({ ...message.state, error: revived(message.state.error) });
    else if (kind === "added") this.#added(message.item);
    else if (kind === "item") this.#heardOfItem(message);
    else if (kind === "answer") this.#answered(message);
    else if (kind === "acked") for (const [stream, id] of message.offsets) this.#toldAcked(stream, parseId(id));
  }

  /** Begins to follow the tab that has the connection, or goes on to with another one. */
  #adopt({ epoch, tracks, state }) {
    this.#keeps = false;
    this.#tellState({ ...state, error: revived(state.error) });
    const marks = tracks.filter(({ taken }) => taken).map(({ stream, taken }) => [stream, taken]);
    if (!this.#isPlaced) this.#tracks = new Tracks(epoch, marks);
    this.#tracks.follow(epoch);
    for (const [stream, taken] of marks) {
      const track = this.#tracks.of(stream);
      if (!track.handed) {
        track.handed = track.at = taken.id;
        track.taken = taken;
      } else if (track.taken?.epoch === taken.epoch && compare(taken.id, track.handed) > 0) {
        this.#catchUp();
        return;
      }
    }
    const isNew = !this.#isPlaced;
    this.#isPlaced = true;
    for (const { stream, queue } of tracks) for (const item of queue) this.#takeShared({ stream, ...item });
    if (isNew && state.state === "live") this.#live();
    for (const { id, method, args } of this.#calls.values())
      this.#tabs.post({ kind: "call", call: { id, method, args } });
    this.#look();
  }

  /** Something did not reach this tab: it takes the connection, and has it sent from where it is. */
  #catchUp() {
    this.#tabs?.steal();
  }

  /** Compares with what is kept: what is there no more was stored. */
  async #look() {
    const mine = [...this.#items.values()].filter((item) => item.isKept);
    try {
      this.#merge(await this.#kept.loadItems(), mine);
    } catch (error) {
      this.#report(error);
    }
  }

  // -- what comes: called by `Link` -----------------------------------------------------------------------------------

  #hello() {
    return { device: this.#device, ...this.#tracks.brought() };
  }

  #opened(welcome, starts, transport) {
    if (welcome.user !== this.#service.user) {
      this.#link.stop();
      const error = new WaypostError("wrong_user", `it is for ${welcome.user}`);
      this.#tellState({ state: "stopped", error });
      return;
    }
    const isNew = this.#tracks.epoch !== welcome.epoch;
    for (const stream of this.#tracks.opened(welcome.epoch, starts)) this.#kept.forgetOffset(stream);
    if (isNew) this.#kept.saveEpoch(welcome.epoch);
    this.#operations.opened(this.#link.limits);
    this.#tellState({ state: "catching-up", transport, node: welcome.node });
    for (const call of this.#asking.splice(0)) this.#ask(call);
    this.#flush();
    this.#ackSoon();
  }

  #lost() {
    this.#operations?.lost();
    this.#flight = null;
    for (const item of [...this.#items.values()]) if (item.seen) this.#stored(item, item.seen);
    for (const call of this.#asked.values()) call.fail(offlineError());
    this.#asked.clear();
    this.#goodbye?.resolve();
  }

  async #hasRoom() {
    if (this.#isFull(1)) {
      this.#room = later();
      this.#tellState({ state: "paused" });
      await this.#room.promise;
      this.#room = null;
    }
  }

  #isFull(part) {
    return this.#waiting > WAITING_MOST * part || this.#waitingBytes > WAITING_BYTES_MOST * part;
  }

  /** An object that the server said on an open connection. */
  #take(frame, { size = 0, isAside = false } = {}) {
    switch (frame.type) {
      case "error":
        this.#refused(frame.ref, WaypostError.of(frame));
        break;
      case "history":
        this.#takeHistory(frame);
        break;
      case "acked":
        this.#goodbye?.resolve();
        break;
      case "live":
        if (!frame.stream) this.#tellState({ ...this.#state, state: "live" });
        this.#live(frame.stream);
        this.#share({ kind: "live", stream: frame.stream });
        this.#flush();
        break;
      case "gap":
        this.#takeGap(frame, size);
        break;
      case "rewind":
        this.#tracks.of(frame.stream).at = parseId(frame.to);
        break;
      case "sent":
        this.#takeSent(frame, size, isAside);
        break;
      default:
        if (typeof frame.stream === "string" && (isAside || typeof frame.id === "string"))
          this.#takeAny(frame, size, isAside);
    }
    if (this.#isFull(1)) this.#link?.again();
  }

  #takeAny({ ref, ...event }, size, isAside) {
    const operation = ref === undefined ? undefined : this.#operations.answered(ref);
    operation?.call?.done(event.type === "left" ? undefined : event);
    if (!isAside) {
      const isMine = event.type === "message" && event.from === this.user;
      const gate = isMine ? this.#sawOwn(event) : null;
      this.#takeEntry(event, { isAnswer: ref !== undefined, gate, size });
    }
    if (operation) this.#flush();
  }

  #takeSent({ ref, stream, id, mid, duplicate, durability }, size, isAside) {
    const operation = this.#operations.answered(ref);
    const item = operation?.item;
    const gate = item ? this.#stored(item, { stream, id, mid, duplicate, durability }) : null;
    if (!isAside) {
      if (!item) throw new Hole("an answer to something that was not asked");
      const event = { type: "message", stream, id, mid, from: this.user, to: item.to, body: JSON.parse(item.text) };
      this.#takeEntry(event, { isAnswer: true, gate, size });
    }
    this.#flush();
  }

  #takeEntry(event, { isAnswer = false, gate = null, size = 0 }) {
    const { stream } = event;
    const id = parseId(event.id);
    const isOwn = event.user === this.user && stream === `group:${event.group}`;
    const begins = isOwn && event.type === "joined";
    let fate = this.#tracks.entry(stream, id, { begins, isAnswer });
    if (fate === HOLE) {
      const n = Math.max(id.n - 1, 0);
      this.#bridge(stream, { ms: id.ms, n, text: `${id.ms}-${n}` }, event.id);
      fate = this.#tracks.entry(stream, id);
    }
    if (fate === HAD) return;
    const isLast = isOwn && event.type === "left";
    if (isLast) this.#tracks.of(stream).isFollowed = false;
    this.#queue(stream, fate, event, { id, epoch: this.#tracks.epoch, gate, size, isLast });
  }

  #takeGap(gap, size) {
    const { stream } = gap;
    const [after, to] = [parseId(gap.after), parseId(gap.to)];
    const restarts = gap.missed === null;
    let { fate, start } = this.#tracks.gap(stream, after, to, restarts);
    if (fate === HOLE) {
      this.#bridge(stream, after, gap.to);
      ({ fate, start } = this.#tracks.gap(stream, after, to, restarts));
    }
    if (fate === HAD) return;
    this.#doubtTried(stream);
    this.#queue(stream, fate, since(gap, start), { id: to, epoch: this.#tracks.epoch, restarts, size });
  }

  /** Something up to `upto` is missing. The second time it stays missing, so the handlers are told of a gap. */
  #bridge(stream, upto, next) {
    const begin = this.#tracks.hole(stream, upto);
    if (!begin) throw new Hole(`entries of ${stream} are missing before ${next}`);
    const isEpoch = upto.n <= begin.n; // numbers that go back are of another history
    const { fate, start } = this.#tracks.gap(stream, begin, upto, isEpoch);
    if (fate !== NEW) return;
    const cause = { kind: isEpoch ? "epoch" : "lost" };
    const missed = isEpoch ? null : upto.n - begin.n;
    const gap = { type: "gap", stream, after: begin.text, to: upto.text, missed, cause, next };
    this.#doubtTried(stream);
    this.#queue(stream, NEW, since(gap, start), {}); // without a place: nobody knows the id of what is not there
  }

  /** What the tab with the connection has heard. */
  #takeShared({ stream, event, id, epoch, restarts, isLast, size = 0 }) {
    if (epoch && epoch !== this.#tracks.epoch) this.#tracks.follow(epoch);
    const isGap = event.type === "gap";
    const begins = event.type === "joined" && event.user === this.user && stream === `group:${event.group}`;
    if (this.#isFull(1)) {
      this.#isLacking = true; // taken up again once the handlers have caught up
      return;
    }
    const fate = isGap
      ? this.#tracks.gap(stream, parseId(event.after), parseId(event.to), event.missed === null).fate
      : this.#tracks.entry(stream, id, { begins });
    if (fate === HOLE) this.#catchUp();
    if (fate === HOLE || fate === HAD) return;
    if (isLast) this.#tracks.of(stream).isFollowed = false;
    if (event.type === "message" && event.from === this.user) this.#heardOfOwn(event);
    this.#queue(stream, fate, event, { id, epoch, restarts, isLast, size });
  }

  // -- handing out ----------------------------------------------------------------------------------------------------

  #queue(stream, fate, event, { id, epoch, restarts = false, gate = null, size = 0, isLast = false }) {
    this.#share({ kind: "frame", stream, event, id, epoch, restarts, isLast, size });
    const track = this.#tracks.of(stream);
    const item = {
      event: fate === NEW ? event : null,
      told: event,
      id,
      epoch,
      restarts,
      gate,
      size,
      isLast,
      have: new Set(),
    };
    if (this.#options.ack === "manual") this.#epochs.set(event, epoch);
    const last = track.queue.at(-1);
    if (!item.event && last && !last.event && !last.then && !last.gate && !gate && last !== track.queue[0]) {
      this.#waitingBytes -= track.queue.pop().size; // a replay of what was handed out takes one place, not thousands
    } else {
      this.#waiting += 1;
    }
    this.#waitingBytes += size;
    track.queue.push(item);
    this.#pump(stream, track);
  }

  #pumpAll() {
    for (const [stream, track] of this.#tracks) this.#pump(stream, track);
  }

  get #mayHand() {
    return !this.#isClosed && (this.#options.listen === false || this.#hub.isHeard);
  }

  /** Hands out what waits, one after the other. Runs once for each stream; what comes meanwhile is in the queue. */
  async #pump(stream, track) {
    if (track.isPumping) return;
    track.isPumping = true;
    const backoff = new Backoff();
    try {
      while (track.queue.length && this.#mayHand) {
        const [item] = track.queue;
        try {
          if (item.gate) await item.gate;
        } catch {
          break; // the client was closed, and no progress may be kept beyond this
        }
        if (!this.#mayHand) break;
        try {
          const waiting = item.event && this.#options.listen !== false ? this.#hub.hand(item.event, item.have) : null;
          if (waiting) await waiting;
        } catch (cause) {
          if (cause === Withdrawn) continue;
          this.#report(
            new WaypostError("handler_failed", `a handler for ${item.event.type} threw`, { retry: true, cause }),
          );
          await sleep(backoff.pause());
          continue;
        }
        backoff.reset();
        track.queue.shift();
        item.then?.();
        if (item.id && this.#options.ack !== "manual") this.#took(stream, track, item);
        if (item.isLast && !track.isFollowed) this.#forget(stream, track);
        this.#waiting -= item.then ? 0 : 1;
        this.#waitingBytes -= item.size;
        if (!this.#isFull(0.5)) this.#hasRoomAgain();
      }
    } finally {
      track.isPumping = false;
    }
  }

  /** The own `left` was taken: nothing more comes of this group, and nothing of it is to be acknowledged. */
  #forget(stream, track) {
    if (!this.#tracks.has(stream, track)) return;
    this.#tracks.forget(stream);
    if (this.#keeps) this.#kept.forgetOffset(stream);
    this.#tellProgress(stream);
  }

  #hasRoomAgain() {
    this.#room?.resolve();
    if (!this.#isLacking) return;
    this.#isLacking = false;
    this.#catchUp();
  }

  #took(stream, track, item) {
    if (!this.#tracks.took(track, item) || !this.#tracks.has(stream, track)) return;
    if (this.#keeps) {
      this.#kept.saveOffset(stream, track.taken, item.restarts);
      this.#ackSoon();
    }
    this.#tellProgress(stream);
  }

  /** Tells that everything has been handed out, behind all that waits for that. */
  #live(stream) {
    const tracks = stream ? [this.#tracks.of(stream)] : [...this.#tracks].map(([, track]) => track);
    const behind = tracks.filter((track) => track.queue.length);
    let left = behind.length;
    const tell = () => {
      const event = stream ? { type: "live", stream } : { type: "live" };
      try {
        this.#hub.hand(event, new Set())?.catch(ignore);
      } catch (cause) {
        this.#report(new WaypostError("handler_failed", "a handler for live threw", { cause }));
      }
    };
    if (!left) tell();
    const then = () => (left -= 1) || tell();
    for (const track of behind) track.queue.push({ event: null, then, size: 0 });
  }

  [Symbol.asyncIterator]() {
    const waiting = [];
    let current = null;
    let wake = ignore;
    let isOver = false;
    const stop = this.#hub.iterate((event) => {
      const { promise, resolve, reject } = later();
      waiting.push({ event, resolve, reject });
      wake();
      return promise;
    });
    const end = () => {
      isOver = true;
      stop();
      for (const { reject } of [current, ...waiting.splice(0)].filter(Boolean)) reject(Withdrawn);
      wake();
      return { done: true, value: undefined };
    };
    this.#iterators.add(end);
    return {
      next: async () => {
        current?.resolve(); // asking for the next one says that this one is done with
        current = null;
        while (!waiting.length && !isOver) await new Promise((resolve) => (wake = resolve));
        if (isOver) return { done: true, value: undefined };
        current = waiting.shift();
        return { done: false, value: current.event };
      },
      return: async () => {
        this.#iterators.delete(end);
        return end();
      },
      [Symbol.asyncIterator]() {
        return this;
      },
    };
  }

  #iterators = new Set();

  // -- acknowledging --------------------------------------------------------------------------------------------------

  ack(entry) {
    const id = parseId(entry.type === "gap" ? entry.to : entry.id);
    const epoch = this.#epochs.get(entry) ?? this.#tracks.epoch;
    this.#ackTo(entry.stream, id, epoch, entry.type === "gap" && entry.missed === null);
    if (!this.#link) this.#tabs?.post({ kind: "ack", stream: entry.stream, id: id.text, epoch });
  }

  #epochs = new WeakMap(); // of events that are acknowledged by hand

  #ackTo(stream, id, epoch, restarts = false) {
    const track = this.#tracks.of(stream);
    if (track.handed && !had(id, track.handed) && !restarts) return; // nobody was handed that
    this.#took(stream, track, { id, epoch, restarts });
  }

  #ackSoon() {
    this.#ackTimer ??= setTimeout(() => this.#acknowledge(), ACK_EVERY_MS);
  }

  async #acknowledge() {
    clearTimeout(this.#ackTimer);
    this.#ackTimer = null;
    const link = this.#link;
    if (!link?.isOpen) return;
    const offsets = this.#tracks.toAcknowledge();
    if (!offsets.length) return;
    const { transport } = this.#state;
    try {
      await this.#kept.keepOffsets(offsets, this.#tracks.epoch);
    } catch (error) {
      this.#report(error); // the connection has them, and the storage may have them next time
    }
    // A frame for each stream: when one is refused (the group was just left), the others are taken.
    const parts = transport === "sse" ? [Object.fromEntries(offsets)] : offsets.map((one) => Object.fromEntries([one]));
    if (this.#link !== link) return;
    link.write(parts.map((part) => JSON.stringify({ type: "ack", offsets: part })));
    for (const [stream] of offsets) this.#tellProgress(stream);
    this.#share({ kind: "acked", offsets });
  }

  #tellProgress(stream) {
    this.#hub.tell("progress", { type: "progress", stream });
  }

  #toldAcked(stream, id) {
    this.#tracks.of(stream).acked = id;
    this.#tellProgress(stream);
  }

  progress() {
    const found = new Map();
    for (const [stream, { taken, handed, acked }] of this.#tracks) {
      if (taken)
        found.set(stream, {
          offset: taken.id.text,
          received: (handed ?? taken.id).text,
          acked: (acked ?? { text: "0-0" }).text,
        });
    }
    return found;
  }

  // -- the outbox -----------------------------------------------------------------------------------------------------

  send(to, body, { key = randomName() } = {}) {
    try {
      const text = this.#check(to, body, key);
      const known = this.#items.get(key) ?? this.#early.find((item) => item.key === key);
      if (known) return this.#sendAgain(known, to, text);
      if (this.#items.size + this.#early.length >= OUTBOX_MOST) throw new WaypostError("outbox_full");
      return this.#post({ key, to, text });
    } catch (error) {
      const refused = Promise.reject(error);
      refused.catch(ignore);
      return refused;
    }
  }

  #check(to, body, key) {
    if (this.#isClosing) throw new WaypostError("closed");
    if (!/^(all|user:.+|group:.+)$/s.test(to)) throw new WaypostError("bad_stream", "user:<id>, group:<id> or all");
    if (typeof key !== "string" || !key || key.length > 64)
      throw new WaypostError("bad_request", "key: 1 to 64 characters");
    let text;
    try {
      text = JSON.stringify(body);
    } catch (cause) {
      throw new WaypostError("bad_body", cause.message, { cause });
    }
    if (text === undefined) throw new WaypostError("bad_body");
    return text;
  }

  #sendAgain(known, to, text) {
    if (known.to !== to || known.text !== text) throw new WaypostError("key_reused", "another message has this key");
    return known.state === "failed" ? this.resend(known.key) : this.#promise(known.key).promise;
  }

  #promise(key) {
    let made = this.#promises.get(key);
    if (!made) this.#promises.set(key, (made = later()));
    return made;
  }

  #post({ key, to, text }) {
    const order = (this.#asks += 1);
    const item = { key, to, text, at: Date.now(), tried: 0, state: "queued", isKept: false, order };
    const { promise } = this.#promise(key);
    if (this.#isReady) this.#put(item);
    else this.#early.push(item);
    return promise;
  }

  /** Into the outbox: kept first, and sent after that. */
  #put(item) {
    item.place = this.#nextPlace();
    this.#settled.delete(item.key);
    this.#items.set(item.key, item);
    if (this.#link) {
      if (this.#link.isOpen && this.#operations.isEmpty) item.tried = Date.now(); // saves writing it a second time
      this.#operations.add(this.#sending(item));
    }
    const saving = this.#save(item);
    this.#posts = this.#posts
      .then(() => saving)
      .then(() => this.#tabs?.post({ kind: "added", item: bare(item) }), ignore);
    saving.then(
      () => {
        item.isKept = true;
        if (this.#items.get(item.key) === item)
          this.#tellItem(item); // not before: whoever is told may rely on it
        else this.#removeForSure(item);
        this.#flush();
      },
      (error) => {
        if (this.#items.get(item.key) !== item) return;
        this.#dropItem(item, error);
        this.#report(error);
      },
    );
  }

  /** Sorts behind everything that was put there before, also when the clock goes back. */
  #nextPlace() {
    const last = this.#place;
    const ms = Math.max(Date.now(), last.ms);
    this.#place = { ms, count: ms === last.ms ? last.count + 1 : 0 };
    const [time, count] = [String(ms).padStart(15, "0"), String(this.#place.count).padStart(6, "0")];
    return `${time}-${count}-${randomName().slice(0, 8)}`;
  }

  #inOrder() {
    return [...this.#items.values()].sort((a, b) => (a.place < b.place ? -1 : 1));
  }

  outbox() {
    return [...this.#inOrder(), ...this.#early].map(shown);
  }

  async resend(key) {
    const item = this.#items.get(key);
    if (item?.state !== "failed") throw new WaypostError("not_found", "no failed message has this key");
    // One that may have been stored keeps its key, so that it cannot be stored twice while the server knows the key.
    const sending = item.code === "uncertain" ? key : randomName();
    this.#items.delete(key);
    const sent = this.#post({ key: sending, to: item.to, text: item.text });
    const again = this.#items.get(sending);
    await again.saving.catch(ignore);
    if (!again.isKept) {
      this.#items.set(key, item); // it stays where it was
      this.#tellItem(item);
      return sent;
    }
    if (sending !== key) this.#tellItem({ ...item, state: "discarded" }, true);
    await this.#removeForSure(item);
    return sent;
  }

  async discard(key) {
    const early = this.#early.findIndex((one) => one.key === key);
    if (early >= 0) this.#dropItem(this.#early.splice(early, 1)[0], new WaypostError("discarded"));
    const item = this.#items.get(key);
    if (!item) return;
    this.#dropItem(item, new WaypostError("discarded", "it was taken out of the outbox"));
    this.#tabs?.post({ kind: "item", item: bare(item), state: "discarded" });
    if (item.isKept) await this.#removeForSure(item);
  }

  /** A message leaves the outbox: it is stored, or (with an error) it never will be by us. */
  #leaveOutbox(item, sent, error) {
    this.#items.delete(item.key);
    this.#withdraw(item);
    this.#remember(item.key, sent);
    this.#settle(item.key, sent, error);
  }

  #dropItem(item, error) {
    this.#leaveOutbox(item, null, error);
    this.#tellItem({ ...item, state: "discarded", code: error.code });
  }

  #withdraw(item) {
    const operation = this.#operations?.find((one) => one.item === item);
    if (operation) this.#operations.withdraw(operation);
  }

  #settle(key, sent, error) {
    const made = this.#promises.get(key);
    this.#promises.delete(key);
    if (error) made?.reject(error);
    else made?.resolve(sent);
  }

  #tellItem(item, isShared = false) {
    this.#hub.tell("outbox", shown(item));
    if (isShared) this.#tabs?.post({ kind: "item", item: bare(item), state: item.state, sent: item.sent });
  }

  /**
   * What is kept, compared with what this tab knows. `mine`: what it knew to be kept before that was read. Returns a
   * promise, fulfilled when nothing is kept any more that was stored.
   */
  #merge(found, mine = []) {
    const removals = [];
    const kept = new Map();
    for (const item of found) {
      const before = kept.get(item.key);
      if (before) this.#removeForSure(before); // it was sent again, and its first place was still to be removed
      kept.set(item.key, item);
    }
    for (const item of mine) {
      const now = kept.get(item.key);
      if (now && this.#items.get(item.key) === item)
        Object.assign(item, { tried: now.tried, state: now.state, code: now.code });
      else if (!now && this.#items.get(item.key) === item) this.#settledElsewhere(item);
    }
    for (const item of kept.values()) {
      const [ms, count] = item.place.split("-").map(Number);
      if (ms > this.#place.ms || (ms === this.#place.ms && count > this.#place.count)) this.#place = { ms, count };
      if (!this.#settled.has(item.key)) this.#added({ ...item, isOld: item.tried > 0 });
      else removals.push(this.#removeForSure(item)); // who was to remove it has gone before it could
    }
    return Promise.all(removals);
  }

  /** Another tab has put a message into the outbox, or another life of this one. */
  #added(item) {
    const known = this.#items.get(item.key);
    if (known && (known.place === item.place || known.state !== "failed")) return;
    const mine = { ...item, isKept: true };
    this.#items.set(mine.key, mine);
    if (this.#link && mine.state === "queued") {
      this.#operations.add(this.#sending(mine));
      this.#flush();
    }
    this.#tellItem(mine);
  }

  #heardOfItem({ item, state, sent }) {
    const mine = this.#items.get(item.key);
    if (state === "failed" && mine) {
      Object.assign(mine, { state, code: item.code });
      this.#settle(item.key, null, new WaypostError(item.code));
      this.#tellItem(mine);
      return;
    }
    if (!mine && !this.#promises.has(item.key)) return;
    const known = mine ?? item;
    if (state === "sent") this.#leaveOutbox(known, sent);
    else this.#leaveOutbox(known, null, new WaypostError("discarded"));
    this.#tellItem({ ...known, state, sent });
  }

  #settledElsewhere(item) {
    const sent = this.#settled.get(item.key) ?? { mid: item.key, duplicate: true, durability: "memory" };
    this.#leaveOutbox(item, sent);
    this.#tellItem({ ...item, state: "sent", sent });
  }

  #remember(key, sent) {
    this.#settled.set(key, sent);
    if (this.#settled.size > SETTLED_KEPT) this.#settled.delete(this.#settled.keys().next().value);
  }

  #sending(item) {
    const told = `"to":${JSON.stringify(item.to)},"key":${JSON.stringify(item.key)},"body":${item.text}`;
    return {
      item,
      line() {
        return `{"type":"send","ref":"${this.ref}",${told}}`;
      },
    };
  }

  /** A message is stored. Returns a promise, fulfilled when nothing can send it again. */
  #stored(item, sent) {
    if (this.#items.get(item.key) === item) {
      this.#leaveOutbox(item, sent);
      this.#tellItem({ ...item, state: "sent", sent }, true);
    }
    return (item.removal ??= this.#removeForSure(item));
  }

  /** An own message has come. One of the outbox is stored then: no progress is kept before it has left there. */
  #sawOwn({ stream, id, mid, to }) {
    const item = this.#items.get(mid);
    if (item?.to !== to || item.state !== "queued") return this.#removals.get(mid) ?? null;
    item.removal ??= this.#removeForSure(item);
    item.seen = { stream, id, mid, duplicate: true, durability: "memory" };
    const operation = this.#operations.find((one) => one.item === item);
    if (!operation || !this.#operations.isFlying(operation)) return this.#stored(item, item.seen); // else its answer comes
    return item.removal;
  }

  /** Writes it as it is. One that is to be removed is removed after that: a storage may do things in any order. */
  #save(item) {
    return (item.saving = this.#kept.saveItem(item));
  }

  /** Takes it from where it is kept. Fulfilled when that is so, however long it takes; till then `#removals` has it. */
  #removeForSure(item) {
    const removal = this.#remove(item);
    this.#removals.set(item.key, removal);
    const over = () => this.#removals.get(item.key) === removal && this.#removals.delete(item.key);
    removal.then(over, over);
    return removal;
  }

  /** In a tab that follows: the other one takes it out of the outbox, or this one does when it leads. */
  #heardOfOwn({ stream, id, mid, to }) {
    const item = this.#items.get(mid);
    if (item?.to !== to || item.state !== "queued") return;
    this.#remember(mid, { stream, id, mid, duplicate: true, durability: "memory" });
    this.#settledElsewhere(item);
  }

  async #remove(item) {
    const backoff = new Backoff();
    await item.saving?.catch(ignore);
    for (;;) {
      try {
        await this.#kept.removeItem(item);
        return;
      } catch (error) {
        if (this.#isClosed) throw error;
        this.#report(error);
        await sleep(backoff.pause());
      }
    }
  }

  /** What was tried long ago may lie in a stretch that nobody can see any more: only a person can decide about it. */
  #doubtTried(stream) {
    for (const item of [...this.#items.values()]) {
      const place = item.to.startsWith("user:") ? `user:${this.user}` : item.to;
      if (item.state !== "queued" || place !== stream || !item.tried) continue;
      if (item.isOld || isLongAgo(item.tried)) {
        this.#withdraw(item);
        this.#fail(item, new WaypostError("uncertain", "it may have been stored, and removed since"));
      }
    }
  }

  #fail(item, error) {
    if (this.#items.get(item.key) !== item) return;
    Object.assign(item, { state: "failed", code: error.code });
    this.#save(item).catch((problem) => this.#report(problem));
    this.#settle(item.key, null, error);
    this.#tellItem(item, true);
    const failed = this.#inOrder().filter((one) => one.state === "failed");
    for (const one of failed.slice(0, Math.max(0, failed.length - FAILED_MOST))) this.discard(one.key);
  }

  // -- what goes out --------------------------------------------------------------------------------------------------

  /** Sends the next batch. That each was tried is kept before it is. */
  async #flush() {
    const link = this.#link;
    const operations = this.#operations;
    if (!link?.isOpen || this.#flight) return;
    clearTimeout(this.#flushTimer);
    this.#flushTimer = null;
    const batch = operations.batch(link.limits, link.isLive).filter((operation) => this.#fits(operation, link.limits));
    if (!batch.length) {
      const { dueIn } = operations;
      if (dueIn !== undefined) this.#flushTimer = setTimeout(() => this.#flush(), dueIn);
      return;
    }
    const untried = batch.filter(({ item }) => item && !item.tried).map(({ item }) => item);
    if (untried.length) {
      const flight = (this.#flight = {});
      for (const item of untried) item.tried = Date.now();
      try {
        await Promise.all(untried.map((item) => this.#save(item)));
      } catch (error) {
        this.#report(error);
        for (const item of untried) item.tried = 0;
        if (this.#flight !== flight) return;
        this.#flight = null;
        operations.pause();
        operations.lost();
        this.#flush();
        return;
      }
      if (this.#flight !== flight) return; // the connection was lost meanwhile
      this.#flight = null;
    }
    for (const { isOver, ref } of batch) if (isOver) operations.answered(ref); // discarded meanwhile
    const lines = batch.filter(({ isOver }) => !isOver).map((operation) => operation.line());
    if (lines.length) link.write(lines, true);
    else this.#flush();
  }

  /** What cannot be sent at all fails at once, and lets the others pass. */
  #fits(operation, { body_bytes: body = Infinity, frame_bytes: frame = Infinity }) {
    const { item } = operation;
    if (!item || (utf8Length(item.text) <= body && utf8Length(operation.line()) <= frame)) return true;
    this.#operations.answered(operation.ref);
    this.#fail(item, new WaypostError("body_too_large", `the body is larger than ${body} bytes`));
    queueMicrotask(() => this.#flush());
    return false;
  }

  #refused(ref, error) {
    const call = this.#asked.get(ref);
    if (call) {
      this.#asked.delete(ref);
      call.fail(error);
      return;
    }
    const operation = this.#operations.refused(ref, error);
    if (operation?.item) this.#fail(operation.item, error);
    // The first try of a `leave` had its effect, and its answer was lost.
    else if (operation?.method === "leave" && error.code === "not_member" && operation.call.tries > 1)
      operation.call.done();
    else operation?.call?.fail(error);
    this.#flush();
  }

  join(group) {
    return this.#call("join", { group });
  }
  leave(group) {
    return this.#call("leave", { group });
  }

  async history(stream, query = {}) {
    const written = Object.entries(query).filter(([, value]) => value !== undefined);
    const text = (value) => (value instanceof Date ? value.toISOString() : value);
    return this.#call("history", {
      stream,
      ...Object.fromEntries(written.map(([name, value]) => [name, text(value)])),
    });
  }

  #call(method, args) {
    if (this.#isClosing) return Promise.reject(new WaypostError("closed"));
    if (!this.#isWanted && method === "history") return Promise.reject(offlineError());
    const made = later();
    const id = (this.#asks += 1);
    const over = (settle) => (value) => this.#calls.delete(id) && settle(value);
    const call = { id, method, args, done: over(made.resolve), fail: over(made.reject) };
    this.#calls.set(id, call);
    if (this.#link) this.#execute(call);
    else if (this.#isPlaced)
      this.#posts = this.#posts.then(() => this.#tabs?.post({ kind: "call", call: { id, method, args } }));
    return made.promise;
  }

  /** In the tab that has the connection; `from`: for another one. */
  #execute(call, from) {
    if (from !== undefined) {
      const answer = (told) => this.#share({ kind: "answer", to: from, id: call.id, ...told });
      call = { ...call, done: (value) => answer({ value }), fail: (error) => answer({ error: plain(error) }) };
    }
    if (call.method === "history") {
      if (this.#link.isOpen) this.#ask(call);
      else if (["connecting", "catching-up"].includes(this.#state.state)) this.#asking.push(call);
      else call.fail(offlineError());
      return;
    }
    const { method, args } = call;
    const line = function line() {
      return JSON.stringify({ type: method, ref: this.ref, ...args });
    };
    this.#operations.add({ method, call, line });
    this.#flush();
  }

  #ask(call) {
    const ref = `h${(this.#asks += 1)}`;
    this.#asked.set(ref, call);
    this.#link.write([JSON.stringify({ type: "history", ref, ...call.args })]);
  }

  #takeHistory({ type, ref, next, prev, ...page }) {
    this.#asked.get(ref)?.done(page);
    this.#asked.delete(ref);
  }

  #answered({ id, value, error }) {
    const call = this.#calls.get(id);
    if (error) call?.fail(revived(error));
    else call?.done(value);
  }

  // -- online, offline, closed ----------------------------------------------------------------------------------------

  /** Called by `Link` and by other tabs: what there is to say about the connection. */
  #tellState({ state, transport, node, error, retryAt }) {
    const isLeader = this.#link !== null || (!this.#service.shared && state !== "closed");
    const said = { type: "state", state, transport, node, isLeader, error, retryAt };
    for (const name of Object.keys(said)) if (said[name] === undefined) delete said[name];
    if (!["catching-up", "live"].includes(state)) {
      for (const call of state === "connecting" ? [] : this.#asking.splice(0)) {
        call.fail(offlineError());
      }
    }
    if (JSON.stringify(said) === JSON.stringify(this.#state)) return;
    this.#state = said;
    this.#hub.tell("state", said);
    if (this.#link) this.#share({ kind: "state", state: { ...said, error: plain(error) } });
  }

  #report(error) {
    if (!this.#isClosed) this.#hub.tell("error", error);
  }

  #hint({ type }) {
    if (type === "pagehide") {
      this.#acknowledge();
    } else if (globalThis.document?.visibilityState !== "hidden") {
      this.#link?.hint();
      this.#tabs?.look();
    } else {
      this.#acknowledge();
    }
  }

  disconnect() {
    if (this.#isClosed) return;
    this.#isWanted = false;
    this.#acknowledge();
    this.#tabs?.stop();
    this.#tabs = null;
    this.#letGo(); // what waits for the handlers is theirs still, and its progress is kept
    this.#tellState({ state: "offline" });
  }

  reconnect({ token } = {}) {
    if (this.#isClosed) throw new WaypostError("closed");
    if (token) this.#service.given = token;
    if (!this.#isWanted) {
      this.#isWanted = true;
      if (this.#isReady) this.#goOnline();
    } else if (!this.#isReady) {
      if (this.#state.state === "stopped") this.#beginning = this.#begin();
    } else if (this.#link) {
      if (this.#state.state === "stopped") this.#link.start();
      else if (token && this.#link.isOpen) this.#link.renew(token);
      else this.#link.hint();
    } else if (token) {
      this.#tabs?.steal(); // the tab with the connection has none that holds
    } else {
      this.#tabs?.post({ kind: "hint" });
    }
  }

  async close() {
    if (this.#isClosing) return this.#closing;
    this.#isClosing = true;
    return (this.#closing = this.#close());
  }

  async #close() {
    // What was sent so far stays in the outbox, so it has to get there.
    await Promise.race([this.#beginning, sleep(GREETING_MS)]);
    await Promise.race([Promise.allSettled([...this.#items.values()].map(({ saving }) => saving)), sleep(GREETING_MS)]);
    await this.#acknowledge();
    if (this.#link?.isOpen) await this.#sayGoodbye();
    this.#isClosed = true;
    this.#isWanted = false;
    for (const type of PAGE_EVENTS) globalThis.removeEventListener?.(type, this.#onHint);
    globalThis.document?.removeEventListener("visibilitychange", this.#onHint);
    this.#tabs?.stop();
    this.#tabs = null;
    this.#letGo();
    const closed = new WaypostError("closed");
    for (const key of [...this.#promises.keys()]) this.#settle(key, null, closed);
    for (const call of [...this.#calls.values()]) call.fail(closed);
    for (const end of this.#iterators) end();
    this.#room?.resolve();
    await this.#kept?.settled();
    this.#tellState({ state: "closed" });
  }

  /** Until the last acknowledgement is stored, where the server says so soon enough. */
  async #sayGoodbye() {
    this.#goodbye = later();
    const offsets = [...this.#tracks].filter(
      ([, track]) => track.isFollowed && track.taken?.epoch === this.#tracks.epoch,
    );
    const told = Object.fromEntries(offsets.map(([stream, { taken }]) => [stream, taken.id.text]));
    this.#link.write([JSON.stringify({ type: "ack", ref: "bye", offsets: told })]);
    await Promise.race([this.#goodbye.promise, sleep(GOODBYE_MS)]);
  }
}

/** The part of a gap above `start`: what was lost after we got it is not missing here. */
function since(gap, start) {
  if (gap.missed === null || gap.after === start.text) return gap;
  return { ...gap, after: start.text, missed: parseId(gap.to).n - start.n };
}

/** Errors as other tabs can be told of them. */
const plain = (error) =>
  error && { code: error.code, message: error.message, retry: error.retry, retry_after: error.retryAfter };
const revived = (told) => (told ? Object.assign(WaypostError.of(told), { message: told.message }) : undefined);

/** An item of the outbox, for other tabs and for the program. */
const bare = ({ place, key, to, text, at, tried, state, code }) => ({ place, key, to, text, at, tried, state, code });
function shown({ key, to, text, at, state, code, sent }) {
  const item = { key, to, body: JSON.parse(text), at, state };
  return { ...item, ...(code ? { code } : {}), ...(sent ? { sent } : {}) };
}

export function connect(options = {}) {
  return new WaypostClient(options);
}

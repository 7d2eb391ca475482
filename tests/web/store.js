// What the fake server keeps: streams with dense numbers, keys, memberships, and the offsets of devices.

export const ZERO = "0-0";
const BASE_MS = 1_795_451_045_000;

export const number = (id) => Number(id.slice(id.indexOf("-") + 1));
const moment = (id) => Number(id.slice(0, id.indexOf("-")));
export const above = (a, b) => number(a) > number(b) || moment(a) > moment(b);

export class Store {
  epoch = "079c5a5cf260bd7b";
  streams = new Map(); // name → {entries: Map(n → entry), head, floor}
  members = new Map(); // group → Map(user → id of joining)
  offsets = new Map(); // "user/device" → Map(stream → id)
  keys = new Map(); // "stream sender key" → {raw, answer}
  listeners = new Set();
  /** Every message that was stored, in the order of the stores: the truth that checkers compare with. */
  stored = [];
  #now = BASE_MS;

  stream(name) {
    if (!this.streams.has(name)) this.streams.set(name, { entries: new Map(), head: ZERO, floor: ZERO });
    return this.streams.get(name);
  }

  /** Adds an entry. `fields` has its type and what belongs to it; `raw` is the exact text of a body. */
  append(name, fields, raw, origin) {
    const stream = this.stream(name);
    this.#now += 7;
    const id = `${this.#now}-${number(stream.head) + 1}`;
    const entry = { fields: { type: fields.type, stream: name, id, ...fields }, raw, origin };
    stream.entries.set(number(id), entry);
    stream.head = id;
    return id;
  }

  /** Tells everybody who listens that there is something new. */
  tell() {
    for (const listener of [...this.listeners]) listener();
  }

  /** Stores a message as the service does. Answers `{stream, id, mid, duplicate}`, or throws `{code}`. */
  send(from, to, raw, key, origin) {
    if (to.startsWith("group:") && !this.members.get(to.slice(6))?.has(from)) throw { code: "not_member" };
    if (Buffer.byteLength(raw) > 65_536) throw { code: "body_too_large" };
    const name = `${to} ${from} ${key}`;
    const known = key === undefined ? undefined : this.keys.get(name);
    if (known) {
      if (known.raw !== raw) throw { code: "key_reused" };
      return { ...known.answer, duplicate: true };
    }
    const mid = key ?? `made.${this.stored.length}`;
    const fields = { type: "message", mid, from, to };
    let id = this.append(to, fields, raw, to === `user:${from}` || !to.startsWith("user:") ? origin : undefined);
    let stream = to;
    if (to.startsWith("user:") && to !== `user:${from}`) {
      stream = `user:${from}`;
      id = this.append(stream, fields, raw, origin);
    }
    const answer = { stream, id, mid, duplicate: false, durability: "fsynced" };
    this.keys.set(name, { raw, answer });
    this.stored.push({ from, to, mid, raw, stream, id });
    return answer;
  }

  /** How often a message with this key was stored. */
  times(key) {
    return this.stored.filter((one) => one.mid === key).length;
  }

  /** A message of somebody else. */
  say(from, to, body, key) {
    const answer = this.send(from, to, JSON.stringify(body), key);
    this.tell();
    return answer;
  }

  join(user, group, origin) {
    if (!this.members.has(group)) this.members.set(group, new Map());
    const members = this.members.get(group);
    if (members.has(user)) return { id: members.get(user), fresh: false };
    const id = this.append(`group:${group}`, { type: "joined", user, group }, undefined, origin);
    members.set(user, id);
    this.append(`user:${user}`, { type: "joined", user, group });
    return { id, fresh: true };
  }

  leave(user, group, origin) {
    if (!this.members.get(group)?.has(user)) throw { code: "not_member" };
    const id = this.append(`group:${group}`, { type: "left", user, group }, undefined, origin);
    this.members.get(group).delete(user);
    this.append(`user:${user}`, { type: "left", user, group });
    return { id };
  }

  /** The place before the user's joining of a group: where another device begins. */
  before(name, user) {
    const id = this.members.get(name.slice(6)).get(user);
    return number(id) === 1 ? ZERO : `${moment(id)}-${number(id) - 1}`;
  }

  groups(user) {
    return [...this.members].filter(([, members]) => members.has(user)).map(([group]) => `group:${group}`);
  }

  device(user, device) {
    const name = `${user}/${device}`;
    if (!this.offsets.has(name)) {
      const offsets = new Map([
        [`user:${user}`, this.stream(`user:${user}`).floor],
        ["all", this.stream("all").head],
      ]);
      this.offsets.set(name, offsets);
    }
    const offsets = this.offsets.get(name);
    for (const group of this.groups(user)) {
      if (!offsets.has(group)) offsets.set(group, this.members.get(group.slice(6)).get(user));
    }
    return offsets;
  }

  /** Removes everything up to number `n`. */
  trim(name, n) {
    const stream = this.stream(name);
    for (const at of [...stream.entries.keys()]) {
      if (at > n) continue;
      if (at === n) stream.floor = stream.entries.get(at).fields.id;
      stream.entries.delete(at);
    }
  }

  /** Loses the numbers from `first` to `last`, in the middle of a stream. */
  lose(name, first, last) {
    const { entries } = this.stream(name);
    for (let n = first; n <= last; n += 1) entries.get(n).lost = true;
  }

  /** Forgets everything, as a store that was reset. */
  reset(epoch) {
    this.epoch = epoch;
    this.streams.clear();
    this.offsets.clear();
    this.keys.clear();
  }

  /** What comes after `at` in a stream: `{kind: "entry" | "gap", …}`, or undefined. */
  after(name, at) {
    const stream = this.stream(name);
    if (number(at) >= number(stream.head)) return undefined;
    if (number(at) < number(stream.floor)) {
      const cause = { kind: "trimmed", policy: "inbox", limit: "max_entries=4", at: "2026-11-23T16:24:16.633Z" };
      return gap(stream, name, at, stream.floor, cause);
    }
    let n = number(at) + 1;
    const entry = stream.entries.get(n);
    if (!entry.lost) return { id: entry.fields.id, entry };
    while (stream.entries.get(n + 1)?.lost) n += 1;
    return gap(stream, name, at, stream.entries.get(n).fields.id, { kind: "lost" });
  }
}

function gap(stream, name, after, to, cause) {
  const fields = { type: "gap", stream: name, after, to, missed: number(to) - number(after), cause };
  const next = stream.entries.get(number(to) + 1)?.fields.id;
  return { id: to, frame: next ? { ...fields, next } : fields };
}

/** An entry as text: its body to the byte as it was sent. */
export function text(entry, extra) {
  const fields = JSON.stringify({ ...entry.fields, ...extra });
  return entry.raw === undefined ? fields : `${fields.slice(0, -1)},"body":${entry.raw}}`;
}

/** The text of a field of a JSON object, to the byte; undefined when it is not there. */
export function rawField(object, wanted) {
  let depth = 0;
  let inString = false;
  let start = -1;
  let name;
  let nameStart = -1;
  for (let i = 0; i < object.length; i += 1) {
    const c = object[i];
    if (inString) {
      if (c === "\\") i += 1;
      else if (c === '"') {
        inString = false;
        if (depth === 1 && start < 0) name = object.slice(nameStart, i + 1);
      }
    } else if (c === '"') {
      inString = true;
      nameStart = i;
    } else if (c === "{" || c === "[") depth += 1;
    else if (depth === 1 && c === ":" && start < 0) start = i + 1;
    else if (depth === 1 && (c === "," || c === "}")) {
      if (start >= 0 && JSON.parse(name) === wanted) return object.slice(start, i).trim();
      start = -1;
      if (c === "}") depth -= 1;
    } else if (c === "}" || c === "]") depth -= 1;
  }
  return undefined;
}

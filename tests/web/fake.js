// A server that speaks `waypost.v1` over WebSockets and over HTTP as docs/protocol.md and docs/http.md say, and
// misbehaves when it is told to. All its steps pass `at`, where a test may cut, drop, delay or say something else.

import http from "node:http";
import { WebSocketServer } from "ws";
import { Store, ZERO, above, number, rawField, text } from "./store.js";

const RETRY = new Set(["slow", "draining", "rate_limited", "storage_full", "unavailable", "internal"]);
const CLOSES = {
  slow: 4001,
  draining: 4002,
  rate_limited: 4003,
  unauthorised: 4101,
  expired: 4102,
  bad_frame: 4103,
  too_large: 4104,
  forbidden: 4105,
  hello_timeout: 4106,
  too_many_connections: 4107,
};
const STATUS = {
  unauthorised: 401,
  expired: 401,
  not_member: 403,
  not_allowed: 403,
  forbidden: 403,
  rate_limited: 429,
  ack_beyond: 409,
  key_reused: 409,
  too_many_devices: 409,
  body_too_large: 413,
  unavailable: 503,
  uncertain: 503,
  draining: 503,
};

/** A token of the shape of a JWT; the fake server believes it. */
export function token(claims) {
  const part = (value) => Buffer.from(JSON.stringify(value)).toString("base64url");
  return `${part({ alg: "HS256", typ: "JWT" })}.${part(claims)}.${Buffer.from("signed").toString("base64url")}`;
}

/** One client's connection, WebSocket or stream of events. */
class Connection {
  live = false;
  over = false;
  held = new Set(); // streams that are behind until `release`
  subscribed = new Map(); // stream → id of what has passed
  frames = []; // what the client said
  refs = new Map(); // "stream n" → ref, of own entries
  #pumping = false;
  #again = false;
  #chain = Promise.resolve();

  constructor(fake, write, cut, kind) {
    Object.assign(this, { fake, write, cut, kind });
    this.onNews = () => this.pump();
  }

  /** Sends frames: objects or texts, all in one message. */
  out(...frames) {
    if (this.over) return;
    this.write(frames.map((one) => (typeof one === "string" ? one : JSON.stringify(one))).join("\n"), this);
  }

  end() {
    if (this.over) return;
    this.over = true;
    this.fake.store.listeners.delete(this.onNews);
    this.fake.open.delete(this);
  }

  /** Cuts the line without a word. */
  drop() {
    this.end();
    this.cut();
  }

  error(code, extra = {}) {
    this.out({ type: "error", code, message: `because ${code}`, retry: RETRY.has(code), ...extra });
  }

  /** Says an error that ends the connection, and closes with its code. */
  refuse(code, extra = {}) {
    this.error(code, extra);
    this.close(CLOSES[code]);
  }

  close(code, reason) {
    this.end();
    this.cut(code, reason);
  }

  async at(step, detail) {
    if (this.over) return "over";
    const answer = await this.fake.script?.(step, this, detail);
    if (answer === "cut") this.drop();
    return this.over ? "over" : answer;
  }

  /** A frame of the client; `batch` is shared by those of one message: one call to the store, which fails as a whole. */
  take(frame, raw, batch) {
    this.frames.push(frame);
    this.fake.heard.push(frame);
    this.#chain = this.#chain.then(() => (this.over ? undefined : this.#answer(frame, raw, batch)));
  }

  async #answer(frame, raw, batch) {
    const ref = "ref" in frame ? { ref: frame.ref } : {};
    try {
      if (batch.failed && frame.type === "send") throw { code: "unavailable" };
      const answer = await this.at(frame.type, frame);
      if (answer === "over" || answer === "drop") return;
      if (frame.type === "ping") this.out({ type: "pong", ...ref });
      else if (frame.type === "hello") await this.hello(frame);
      else if (frame.type === "offsets") await this.offsets(frame);
      else if (frame.type === "send") await this.send(frame, raw, ref);
      else if (frame.type === "ack") this.ack(frame, ref);
      else if (frame.type === "join" || frame.type === "leave") await this[frame.type](frame, ref);
      else if (frame.type === "auth") this.auth(frame, ref);
      else if (frame.type === "history") this.out({ ...this.fake.history(frame), ...ref });
      else this.error("unknown_type", ref);
    } catch (error) {
      if (!error.code) throw error;
      batch.failed ||= frame.type === "send" && (error.extra?.retry ?? RETRY.has(error.code));
      if (CLOSES[error.code]) this.refuse(error.code, { ...ref, ...error.extra });
      else this.error(error.code, { ...ref, ...error.extra });
    }
  }

  async hello(frame) {
    if (!this.user) {
      const claims = this.fake.look(frame.token);
      Object.assign(this, { user: claims.sub, claims });
    }
    this.device = frame.device ?? "default";
    this.said = frame;
    this.brought = { ...frame.offsets };
    if (!frame.more) await this.welcome();
  }

  async offsets(frame) {
    Object.assign(this.brought, frame.offsets);
    if (!frame.more) await this.welcome();
  }

  async welcome() {
    const { store } = this.fake;
    if ((await this.at("welcome")) === "over") return;
    const kept = store.device(this.user, this.device);
    const gaps = [];
    const names = [`user:${this.user}`, ...store.groups(this.user), "all"];
    for (const name of names) {
      const stream = store.stream(name);
      const brought = this.brought[name];
      let start = kept.get(name) ?? ZERO;
      if (brought) {
        const strange = (this.said.epoch ?? store.epoch) !== store.epoch || number(brought) > number(stream.head);
        if (strange)
          gaps.push({ type: "gap", stream: name, after: brought, to: start, missed: null, cause: { kind: "epoch" } });
        else {
          if (above(brought, start)) kept.set(name, brought);
          start = brought;
        }
      }
      this.subscribed.set(name, start);
    }
    const states = [...this.subscribed].map(([name, offset]) => {
      const { head, floor } = store.stream(name);
      return [name, { offset, head, floor, missed: number(head) - number(offset) }];
    });
    const size = this.fake.welcomeStreams;
    const first = {
      type: "welcome",
      user: this.user,
      device: this.device,
      node: this.fake.node,
      epoch: store.epoch,
      ping: this.fake.ping,
      limits: this.fake.limits,
      streams: Object.fromEntries(states.slice(0, size)),
      ...this.fake.expiry(this.claims),
      novel: { field: 1 },
    };
    if (states.length > size) first.more = true;
    this.out(first);
    for (let from = size; from < states.length; from += size) {
      const more = from + size < states.length ? { more: true } : {};
      this.out({ type: "streams", streams: Object.fromEntries(states.slice(from, from + size)), ...more });
    }
    this.welcomed = true;
    for (const one of gaps) this.out(one);
    store.listeners.add(this.onNews);
    await this.pump();
  }

  /** Pushes what has not passed yet: the replay, and then whatever comes. */
  async pump() {
    if (this.#pumping) {
      this.#again = true;
      return;
    }
    this.#pumping = true;
    do {
      this.#again = false;
      for (const name of this.fake.store.groups(this.user)) {
        if (!this.subscribed.has(name)) this.subscribed.set(name, this.fake.store.before(name, this.user));
      }
      for (const name of [...this.subscribed.keys()]) await this.#catchUp(name);
      if (!this.#again && !this.live && !this.over) {
        if ((await this.at("live")) === "over") return;
        this.live = true;
        this.out({ type: "live" });
      }
    } while (this.#again && !this.over);
    this.#pumping = false;
  }

  async #catchUp(name) {
    while (!this.over && !this.held.has(name) && this.subscribed.has(name)) {
      const next = this.fake.store.after(name, this.subscribed.get(name));
      if (!next) return;
      const answer = await this.at("entry", { stream: name, id: next.id, next });
      if (answer === "over" || !this.subscribed.has(name)) return;
      this.subscribed.set(name, next.id);
      if (answer === "drop") continue;
      const frames = next.frame ? [JSON.stringify(next.frame)] : this.#pushed(next.entry);
      if (answer === "twice") frames.push(...frames);
      this.bookmark = true;
      this.out(...frames);
      this.bookmark = false;
      const { fields } = next.entry ?? { fields: {} };
      if (fields.type === "left" && fields.user === this.user && name.startsWith("group:"))
        this.subscribed.delete(name);
    }
  }

  #pushed(entry) {
    const { stream, id, mid, type } = entry.fields;
    const place = `${stream} ${id}`;
    if (!this.refs.has(place)) return [text(entry)];
    const { ref, answered } = this.refs.get(place);
    this.refs.delete(place);
    if (answered) return [text(entry)];
    if (type !== "message") return [text(entry, { ref })];
    return [JSON.stringify({ type: "sent", stream, id, mid, duplicate: false, durability: "fsynced", ref })];
  }

  /** The answer to an own entry: in its place where the stream is live, else at once. */
  #own(answer, ref, overtaking) {
    const behind = !this.live || this.held.has(answer.stream);
    const fresh = answer.duplicate !== true;
    if (fresh) this.refs.set(`${answer.stream} ${answer.id}`, { ...ref, answered: behind || ref.ref === undefined });
    if (behind || !fresh) this.out(overtaking);
  }

  async send(frame, raw, ref) {
    if (!this.welcomed) throw { code: "hello_expected" };
    const answer = this.fake.store.send(this.user, frame.to, rawField(raw, "body"), frame.key, this);
    if ((await this.at("stored", { frame, answer })) === "over") return this.fake.store.tell();
    this.#own(answer, ref, { type: "sent", ...answer, ...ref });
    this.fake.store.tell();
    return undefined;
  }

  async join(frame, ref) {
    const { store } = this.fake;
    const stream = `group:${frame.group}`;
    const { id, fresh } = store.join(this.user, frame.group, this);
    if ((await this.at("joined", frame)) === "over") return store.tell();
    const fields = { type: "joined", stream, id, user: this.user, group: frame.group, ...ref };
    store.device(this.user, this.device);
    if (fresh) this.subscribed.set(stream, id);
    this.out(fields);
    store.tell();
    return undefined;
  }

  async leave(frame, ref) {
    const { store } = this.fake;
    const stream = `group:${frame.group}`;
    const { id } = store.leave(this.user, frame.group, this);
    if ((await this.at("left", frame)) === "over") return store.tell();
    this.#own({ stream, id }, ref, { type: "left", stream, id, user: this.user, group: frame.group, ...ref });
    store.tell();
    return undefined;
  }

  ack(frame, ref) {
    const kept = this.fake.store.device(this.user, this.device);
    for (const [stream, id] of Object.entries(frame.offsets)) {
      const passed = this.subscribed.get(stream) ?? ZERO;
      if (above(id, passed) && above(id, kept.get(stream) ?? ZERO)) throw { code: "ack_beyond" };
    }
    for (const [stream, id] of Object.entries(frame.offsets))
      if (above(id, kept.get(stream) ?? ZERO)) kept.set(stream, id);
    this.fake.acks.push({ ...frame.offsets });
    if ("ref" in ref) this.out({ type: "acked", ...ref });
  }

  auth(frame, ref) {
    this.claims = this.fake.look(frame.token);
    this.out({ type: "authorised", user: this.user, ...this.fake.expiry(this.claims), ...ref });
  }

  /** Puts a stream behind: what is sent there is answered at once, and comes in its place after `release`. */
  hold(stream) {
    this.held.add(stream);
  }

  async release(stream) {
    this.held.delete(stream);
    await this.pump();
    this.out({ type: "live", stream });
  }
}

export class Fake {
  store = new Store();
  open = new Set();
  connections = []; // all there ever were
  heard = []; // every frame of every client
  acks = [];
  requests = []; // {method, path, body} over HTTP
  upgrades = 0;
  node = "n1";
  ping = 25;
  welcomeStreams = 500;
  limits = {
    body_bytes: 65_536,
    body_depth: 128,
    frame_bytes: 131_072,
    streams_per_user: 1000,
    unanswered_sends: 64,
    unanswered_bytes: 262_144,
    welcome_streams: 500,
    connection_sends_per_s: 50,
    connection_sends_burst: 500,
  };
  /** async (step, connection, detail) → "cut", "drop", "twice" or undefined; may throw `{code, extra}`. */
  script;
  /** A status: WebSockets are refused with it. */
  refusal;
  /** (token) → claims; may throw `{code}`. */
  believe = (claims) => claims;
  now = () => Date.now() / 1000;

  static async start() {
    const fake = new Fake();
    fake.server = http.createServer((request, response) => fake.#request(request, response));
    fake.sockets = new WebSocketServer({
      noServer: true,
      handleProtocols: (names) => (names.has("waypost.v1") ? "waypost.v1" : false),
    });
    fake.server.on("upgrade", (request, socket, head) => fake.#upgrade(request, socket, head));
    fake.server.keepAliveTimeout = 100;
    await new Promise((resolve) => fake.server.listen(0, "127.0.0.1", resolve));
    fake.url = `http://127.0.0.1:${fake.server.address().port}`;
    return fake;
  }

  async stop() {
    for (const one of this.open) one.drop();
    this.server.closeAllConnections();
    for (const socket of this.sockets.clients) socket.terminate();
    await new Promise((resolve) => this.server.close(resolve));
  }

  /** The connection that is open, of `user` where there are several. */
  get connection() {
    return [...this.open].at(-1);
  }

  of(type) {
    return this.heard.filter((frame) => frame.type === type);
  }

  look(shown) {
    if (!shown) throw { code: "unauthorised" };
    const claims = JSON.parse(Buffer.from(shown.split(".")[1], "base64url"));
    if (claims.exp !== undefined && claims.exp <= this.now()) throw { code: "expired" };
    return this.believe(claims, shown);
  }

  expiry(claims) {
    return claims?.exp === undefined ? {} : { expires_in: claims.exp - this.now() };
  }

  history(question) {
    const { entries, head, floor } = this.store.stream(question.stream);
    const all = [...entries.values()].map((one) => JSON.parse(text(one)));
    const limit = question.limit ?? 50;
    const before = typeof question.before === "string" ? number(question.before) : (question.before ?? Infinity);
    const messages = all.filter((one) => number(one.id) < before).slice(-limit);
    const ends = messages.length ? { first: messages[0].id, last: messages.at(-1).id } : {};
    return {
      type: "history",
      stream: question.stream,
      messages,
      floor,
      head,
      found_oldest: messages[0] === all[0],
      found_newest: messages.at(-1) === all.at(-1),
      gaps: [],
      looked_at: messages.length,
      ...ends,
    };
  }

  async #upgrade(request, socket, head) {
    this.upgrades += 1;
    const answer = await this.script?.("upgrade", undefined, request);
    const refusal = answer === "cut" ? 0 : this.refusal;
    if (refusal === 0) return socket.destroy();
    if (refusal) return socket.end(`HTTP/1.1 ${refusal} No\r\nConnection: close\r\nContent-Length: 0\r\n\r\n`);
    return this.sockets.handleUpgrade(request, socket, head, (ws) => this.#opened(ws, request));
  }

  #opened(ws, request) {
    const cut = (code, reason) => (code === undefined ? ws.terminate() : ws.close(code, reason));
    const connection = new Connection(this, (words) => ws.send(words), cut, "websocket");
    const query = new URL(request.url, this.url).searchParams;
    this.open.add(connection);
    this.connections.push(connection);
    connection.query = query;
    try {
      if (query.has("token")) connection.claims = this.look(query.get("token"));
      connection.user = connection.claims?.sub ?? query.get("user") ?? undefined;
    } catch (error) {
      connection.refuse(error.code);
      return;
    }
    ws.on("error", () => connection.end());
    ws.on("close", () => connection.end());
    ws.on("message", (data) => {
      const batch = { failed: false };
      for (const line of data.toString().split("\n")) if (line.trim()) connection.take(JSON.parse(line), line, batch);
    });
  }

  async #request(request, response) {
    const chunks = [];
    for await (const chunk of request) chunks.push(chunk);
    const raw = Buffer.concat(chunks).toString();
    const url = new URL(request.url, this.url);
    const path = decodeURIComponent(url.pathname);
    const one = {
      method: request.method,
      path,
      body: raw ? JSON.parse(raw) : undefined,
      query: url.searchParams,
      headers: request.headers,
    };
    this.requests.push(one);
    const json = (status, value) => {
      const headers = value?.retry_after === undefined ? {} : { "retry-after": Math.ceil(value.retry_after) };
      response.writeHead(status, {
        "content-type": status < 400 ? "application/json" : "application/problem+json",
        ...headers,
      });
      response.end(value === undefined ? "" : JSON.stringify(value));
    };
    try {
      if ((await this.script?.("request", undefined, one)) === "cut") return request.socket.destroy();
      const shown =
        request.headers.authorization?.replace(/^Bearer /i, "") ?? url.searchParams.get("token") ?? undefined;
      const claims = shown ? this.look(shown) : { sub: url.searchParams.get("user") ?? undefined };
      if (!claims.sub) throw { code: "unauthorised" };
      const done = await this.#route(one, raw, claims, response, json);
      if (done === "cut") request.socket.destroy();
    } catch (error) {
      if (!error.code) throw error;
      const retry = error.extra?.retry ?? RETRY.has(error.code);
      json(STATUS[error.code] ?? 400, {
        code: error.code,
        title: "no",
        status: STATUS[error.code] ?? 400,
        detail: "no",
        retry,
        ...error.extra,
      });
    }
    return undefined;
  }

  async #route(one, raw, claims, response, json) {
    const { method, path, body, query } = one;
    const user = claims.sub;
    const { store } = this;
    if (path === "/v1/events") return this.#events(claims, one, response);
    if (path === "/v1/messages" && method === "POST") {
      const answer = store.send(user, body.to, rawField(raw, "body"), body.key);
      if ((await this.script?.("stored", undefined, { frame: body, answer })) === "cut") return "cut";
      store.tell();
      const { duplicate, ...fields } = answer;
      return json(duplicate ? 200 : 201, duplicate ? { ...fields, duplicate } : fields);
    }
    if (path === "/v1/streams" && method === "GET") {
      const kept = store.device(user, query.get("device") ?? "default");
      const streams = [...kept].map(([stream, offset]) => ({ stream, offset }));
      return json(200, { streams, next: null });
    }
    const offsets = /^\/v1\/devices\/([^/]+)\/offsets$/.exec(path);
    if (offsets && method === "PUT") {
      const kept = store.device(user, offsets[1]);
      for (const [stream, id] of Object.entries(body.offsets))
        if (above(id, store.stream(stream).head)) throw { code: "ack_beyond" };
      for (const [stream, id] of Object.entries(body.offsets))
        if (above(id, kept.get(stream) ?? ZERO)) kept.set(stream, id);
      this.acks.push({ ...body.offsets });
      return json(200, {
        offsets: Object.fromEntries(Object.keys(body.offsets).map((stream) => [stream, kept.get(stream)])),
      });
    }
    const member = /^\/v1\/groups\/([^/]+)\/members\/([^/]+)$/.exec(path);
    if (member && method === "PUT") {
      const { id, fresh } = store.join(user, member[1]);
      store.tell();
      return json(fresh ? 201 : 200, { user, role: "member", since: id });
    }
    if (member && method === "DELETE") {
      store.leave(user, member[1]);
      store.tell();
      response.writeHead(204);
      return response.end();
    }
    const history = /^\/v1\/streams\/([^/]+)\/messages$/.exec(path);
    if (history && method === "GET") {
      const { type, ...page } = this.history({
        stream: history[1],
        limit: query.has("limit") ? Number(query.get("limit")) : undefined,
      });
      return json(200, { ...page, next: null, prev: null });
    }
    return json(404, { code: "no_path", title: "nothing", status: 404, retry: false });
  }

  #events(claims, { query, headers }, response) {
    const write = (words, connection) => {
      for (const line of words.split("\n")) {
        const marks = Object.fromEntries(connection.subscribed);
        const mark = connection.bookmark ? `id: ${Buffer.from(JSON.stringify(marks)).toString("base64url")}\n` : "";
        response.write(`${mark}data: ${line}\n\n`);
      }
    };
    const connection = new Connection(
      this,
      write,
      (code) => (code === undefined ? response.socket?.destroy() : response.end()),
      "sse",
    );
    Object.assign(connection, {
      user: claims.sub,
      claims,
      query,
      response,
      comment: (words = "") => response.write(`:${words}\n\n`),
    });
    this.open.add(connection);
    this.connections.push(connection);
    response.on("close", () => connection.end());
    response.writeHead(200, { "content-type": "text/event-stream", "cache-control": "no-store" });
    response.write("retry: 100\n\n");
    const mark = headers["last-event-id"] ?? query.get("last_event_id");
    const offsets = mark ? JSON.parse(Buffer.from(mark, "base64url")) : {};
    return connection.hello({ device: query.get("device") ?? undefined, offsets });
  }
}

/**
 * The Waypost client. Entries, ids and fields are those of the wire, `waypost.v1`.
 *
 *     const client = connect({ url: "wss://chat.example.org", getToken: fetchToken });
 *     client.on("message", (message) => show(message));     // acknowledged once this has returned
 *     await client.send("user:bob", { text: "hi" });        // resolves when stored; waits while offline
 */

/** `user:<id>`, `group:<id>` or `all`. */
export type Stream = string;
/** `<ms>-<n>`: compare with `compareIds`, not as text. */
export type EntryId = string;
/** Whatever has a JSON form. */
export type Json = unknown;

export interface Options {
  /** Of the service, `http(s)://` or `ws(s)://`. Default: where the page is from. */
  url?: string | URL;
  /** A token (JWT). One that cannot be renewed ends the client with `expired`. */
  token?: string;
  /** Gives a fresh token: before each connection and before the last one expires. May reject: it is asked again. */
  getToken?: () => string | Promise<string>;
  /**
   * Who signs in. Read from the token where there is one; in dev mode it is believed. What is kept on this device is
   * kept for this user.
   */
  user?: string;
  /**
   * The name of this installation. Default: one is made and kept; where nothing can be kept, `default`. Tabs of one
   * device share a connection; two clients of one device that do not share each get everything.
   */
  device?: string;
  /** Where the outbox and the offsets are kept. Default in browsers: IndexedDB and localStorage; else: in memory. */
  storage?: KeyValueStorage;
  /** Instead of the global one: Node 20 has none (`import WebSocket from "ws"`). */
  WebSocket?: new (url: string, protocols: string[]) => unknown;
  /** Instead of the global one. */
  fetch?: typeof fetch;
  /** `auto` (default): WebSocket, and Server-Sent Events with POST where WebSockets are blocked. */
  transport?: "auto" | "websocket" | "sse";
  /** Tabs of the same user and device share one connection. Default: where Web Locks and BroadcastChannel exist. */
  shared?: boolean;
  /** `auto` (default): an entry is acknowledged once its handlers have returned. `manual`: by `client.ack`. */
  ack?: "auto" | "manual";
  /** false: this client only sends. Entries count as taken when they come: give it a device of its own. Default true. */
  listen?: boolean;
}

/** What `localStorage` and React Native's `AsyncStorage` have. Each may answer with a promise. */
export interface KeyValueStorage {
  getItem(key: string): string | null | undefined | Promise<string | null | undefined>;
  setItem(key: string, value: string): unknown;
  removeItem(key: string): unknown;
  /** `localStorage` has `length` and `key(n)` instead, which is as good. */
  getAllKeys?(): readonly string[] | Promise<readonly string[]>;
}

// -- what comes -------------------------------------------------------------------------------------------------------

export interface Entry {
  readonly stream: Stream;
  readonly id: EntryId;
}
/** A message of whomever, this client's own included. */
export interface Message extends Entry {
  readonly type: "message";
  /** The sender's key where one was given: an own message is known by it. */
  readonly mid: string;
  readonly from: string;
  readonly to: Stream;
  /** Absent when redacted. */
  readonly body?: any;
  readonly redacted?: boolean;
}
/** Somebody became a member of a group, or stopped being one. In an inbox: one of the user's devices has. */
export interface Membership extends Entry {
  readonly type: "joined" | "left";
  readonly user: string;
  readonly group: string;
}
/** The body of `target`, an earlier message of this stream, was taken away: forget it. */
export interface Redacted extends Entry {
  readonly type: "redacted";
  readonly target: EntryId;
  readonly by: string;
}
/** A stretch that this device missed and that no longer exists. */
export interface Gap {
  readonly type: "gap";
  readonly stream: Stream;
  readonly after: EntryId;
  readonly to: EntryId;
  /** How many numbers, null for cause `epoch`. */
  readonly missed: number | null;
  readonly cause: Cause;
  readonly causes?: readonly Cause[];
  readonly next?: EntryId;
}
export interface Cause {
  /** `trimmed`, `lost` or `epoch`. */
  readonly kind: string;
  readonly policy?: string;
  readonly limit?: string;
  /** RFC 3339. */
  readonly at?: string;
}
/** Everything that was missed has been handed to this client; with `stream`: of that one, which had fallen behind. */
export interface Live {
  readonly type: "live";
  readonly stream?: Stream;
}

/**
 * `connecting` → `catching-up` (open, what was missed is coming) → `live`. `waiting`: for the next try, see `retryAt`.
 * `paused`: the handlers have too much to do; it goes on by itself. `offline`: by `disconnect()`. `stopped`: it will not
 * come back as it is, see `error`; `reconnect()` tries again. `closed`: by `close()`.
 */
export interface State {
  readonly type: "state";
  readonly state: "connecting" | "catching-up" | "live" | "waiting" | "paused" | "offline" | "stopped" | "closed";
  /** What carries the connection, and which node it leads to; absent when there is none. */
  readonly transport?: "websocket" | "sse";
  readonly node?: string;
  /** Whether this tab has the connection, or another one of this device. */
  readonly isLeader: boolean;
  /** Why there is no connection. */
  readonly error?: WaypostError;
  /** When the next try is made, in milliseconds of `Date.now()`. */
  readonly retryAt?: number;
}

/** How far one stream has come. */
export interface Progress {
  /** Everything up to here has been taken by the handlers, and is kept on this device. Brought in `hello`. */
  readonly offset: EntryId;
  /** Everything up to here has arrived. */
  readonly received: EntryId;
  /** Up to here the server was told. */
  readonly acked: EntryId;
}

// -- what is sent -----------------------------------------------------------------------------------------------------

/** A message is stored. */
export interface Sent {
  /** Where the sender finds it; absent where another tab was told, and is gone. */
  readonly stream?: Stream;
  readonly id?: EntryId;
  readonly mid: string;
  readonly duplicate: boolean;
  /** `memory`, `fsynced` or `replicated`; where only the replay has shown that it is stored: `memory`. */
  readonly durability: string;
}

/** One message of the outbox. That it was sent, or discarded, is told once; then it is gone from there. */
export interface OutboxItem {
  readonly key: string;
  readonly to: Stream;
  readonly body: any;
  /** When it was put there, in milliseconds of `Date.now()`. */
  readonly at: number;
  readonly state: "queued" | "sent" | "failed" | "discarded";
  /** Of a failed one: see docs/errors.md, and `uncertain`, `outbox_full`. */
  readonly code?: string;
  readonly sent?: Sent;
}

export interface HistoryQuery {
  /** An id, a number, or a time (RFC 3339, or a Date). At most one of the three; none: the newest. */
  after?: EntryId | number | Date;
  before?: EntryId | number | Date;
  around?: EntryId | number | Date;
  /** 1 to 200, default 50. */
  limit?: number;
  /** In the own inbox: only the messages with this user. */
  with?: string;
}
/** As on the wire. Go on with `before: page.first` unless `found_oldest`, `after: page.last` unless `found_newest`. */
export interface HistoryPage {
  readonly stream: Stream;
  /** Oldest first. */
  readonly messages: readonly (Message | Membership | Redacted)[];
  readonly floor: EntryId;
  readonly head: EntryId;
  readonly found_oldest: boolean;
  readonly found_newest: boolean;
  readonly gaps: readonly Gap[];
  readonly looked_at: number;
  readonly first?: EntryId;
  readonly last?: EntryId;
}

/** A refusal, or why something cannot be done. `code` is one of docs/errors.md or of `CLIENT_ERRORS`. */
export class WaypostError extends Error {
  readonly code: string;
  /** The same thing may work later. */
  readonly retry: boolean;
  /** Seconds, where known. */
  readonly retryAfter?: number;
}

/** The codes that this client adds to those of the service, and what they mean. */
export const CLIENT_ERRORS: Readonly<Record<string, string>>;

// -- the client -------------------------------------------------------------------------------------------------------

export interface Events {
  message: Message;
  joined: Membership;
  left: Membership;
  redacted: Redacted;
  /** An entry of a type that this client does not know. */
  entry: Entry & { readonly type: string };
  gap: Gap;
  live: Live;
  state: State;
  /** A message of the outbox was put there, was sent, or has failed. */
  outbox: OutboxItem;
  /** Offsets have moved: see `progress`. */
  progress: { readonly type: "progress"; readonly stream: Stream };
  /** What went wrong and is nobody's answer: of the connection, of a handler, of the storage. */
  error: WaypostError;
}

/**
 * Iterating gives what handlers are given. An event counts as taken when the next one is asked for; one that a loop was
 * left with (`break`, or by throwing) is not, and comes again to whoever listens next.
 */
export interface Client extends AsyncIterable<Message | Membership | Redacted | Gap | Live> {
  /** Empty until known. */
  readonly user: string;
  readonly device: string;
  readonly state: State;

  /**
   * Calls `handler` for each event, until the returned function is called. Entries and gaps of one stream come in
   * order, one at a time: the next when every handler of the one before has returned, or its promise is fulfilled. One
   * that throws is told as `error` (`handler_failed`), and the same event comes again after a pause. Entries wait
   * until there is a handler for `message`, or somebody iterates.
   */
  on<K extends keyof Events>(type: K, handler: (event: Events[K]) => unknown): () => void;
  off<K extends keyof Events>(type: K, handler: (event: Events[K]) => unknown): void;

  /**
   * Keeps the message in the outbox; resolves once it is stored. While there is no connection it waits, also across a
   * reload; messages go out in the order they were sent, and each is stored once. Rejects when it is refused for good,
   * and when it cannot be kept (`outbox_full`, `storage_failed`, `bad_body`).
   */
  send(to: Stream, body: Json, options?: { key?: string }): Promise<Sent>;
  /** The messages that are not stored, oldest first: queued ones and failed ones. */
  outbox(): OutboxItem[];
  /** A failed message goes to the end of the outbox, with a new key unless its state was not certain. */
  resend(key: string): Promise<Sent>;
  /** Takes a message out of the outbox. One that is on its way may be stored all the same. */
  discard(key: string): Promise<void>;

  /** Repeated until there is an answer. After the sends before it, and before those after it. Not kept across a reload. */
  join(group: string): Promise<Membership>;
  leave(group: string): Promise<void>;
  /** Rejects with `offline` when there is no connection. */
  history(stream: Stream, query?: HistoryQuery): Promise<HistoryPage>;

  /** This device has everything up to this entry or gap. Needed with `ack: "manual"` only. */
  ack(entry: Entry | Gap): void;
  /** How far each stream has come, on this device. */
  progress(): ReadonlyMap<Stream, Progress>;

  /** Goes offline until `reconnect`. What is sent meanwhile waits. */
  disconnect(): void;
  /** Tries at once: after `disconnect`, in a pause, or when stopped; with another `token` where one is given. */
  reconnect(options?: { token?: string }): void;
  /** The end: acknowledges, and leaves. What is not sent stays in the outbox, and its promises reject with `closed`. */
  close(): Promise<void>;
}

/** Begins to connect at once. Throws `WaypostError` (`bad_option`) for options that cannot be. */
export function connect(options?: Options): Client;

/** Negative, 0 or positive. */
export function compareIds(a: EntryId, b: EntryId): number;

// What this page knows of each conversation. No markup here: the other modules show it.
//
// It lives as long as the page. The service has everything: what was there before comes by `client.history`, what is
// new is pushed. The two meet here, and an entry that comes both ways is kept once, by its stream and id. How far
// somebody has read is known to this page alone, too: a reload has nothing unread but what comes after it.

import { compareIds } from "/client/waypost.js";

export const idOf = (entry) => (entry.type === "gap" ? entry.to : entry.id);

/**
 * Where a line stands: by id. Of a reset of the service's memory nobody knows how far it went: it stands behind what
 * was there before.
 */
function inOrder(a, b) {
  const [left, right] = [a, b].map((one) => (one.type === "gap" && one.missed === null ? one.after : idOf(one)));
  return compareIds(left, right) || (a.type === "gap") - (b.type === "gap");
}

class Conversation {
  /** Messages, and who came and went, by stream and id. */
  entries = new Map();
  gaps = new Map();
  unread = new Set();
  /** History has been asked for down to this id; undefined: not yet. */
  oldest;
  hasAll = false;
  /** The id of the newest entry that is known. */
  newest = "0-0";
  /** What is written here and not sent. */
  draft = "";

  constructor(key) {
    this.key = key; // `user:<the other>`, `group:<id>` or `all`: what a message to it is sent to
    this.kind = key.split(":", 1)[0];
    this.name = key === "all" ? "Everybody" : key.slice(this.kind.length + 1);
  }
}

export class Conversations {
  #all = new Map([["all", new Conversation("all")]]);
  #changed;
  /** Gaps in the inbox. They are of no one conversation: each person's shows them. */
  #inboxGaps = new Map();

  /** `changed` is called whenever there is something else to show. */
  constructor(me, changed) {
    this.me = me;
    this.inbox = `user:${me}`;
    this.#changed = changed;
  }

  /** A conversation, which begins now where there was none. */
  open(key) {
    if (!this.#all.has(key)) {
      this.#all.set(key, new Conversation(key));
      this.#changed();
    }
    return this.#all.get(key);
  }

  forget(key) {
    if (this.#all.delete(key)) this.#changed();
  }

  get(key) {
    return this.#all.get(key);
  }

  /** All of them; where something was said last comes first. */
  list() {
    return [...this.#all.values()].sort((a, b) => compareIds(b.newest, a.newest) || a.name.localeCompare(b.name));
  }

  /** The lines of one, oldest first: entries, and gaps in its stream or in the inbox. */
  lines(conversation) {
    const gaps = conversation.kind === "user" ? this.#inboxGaps : conversation.gaps;
    return [...conversation.entries.values(), ...gaps.values()].sort(inOrder);
  }

  /** The stream that a conversation lies in: one with a person is part of the own inbox. */
  streamOf(conversation) {
    return conversation.kind === "user" ? this.inbox : conversation.key;
  }

  /** Which conversation a message belongs to. In the inbox it is that with the other person, whoever of us said it. */
  keyOf(message) {
    if (message.stream !== this.inbox) return message.stream;
    return message.from === this.me ? message.to : `user:${message.from}`;
  }

  /** Something that was pushed, or is in a page of history. Returns its conversation, if it is of one. */
  take(entry) {
    switch (entry.type) {
      case "message":
        return this.#keep(this.open(this.keyOf(entry)), entry);
      case "joined":
      case "left":
        return this.#takeMembership(entry);
      case "redacted":
        return this.#takeAway(entry);
      case "gap":
        return this.#takeGap(entry);
      default:
        return undefined;
    }
  }

  /** A message that was pushed and that nobody looks at. */
  markUnread(conversation, message) {
    if (message.from !== this.me) conversation.unread.add(message.id);
    this.#changed();
  }

  markRead(conversation) {
    if (conversation.unread.size) this.#changed();
    conversation.unread.clear();
  }

  get unread() {
    return this.list().reduce((sum, one) => sum + one.unread.size, 0);
  }

  #keep(conversation, entry) {
    const key = `${entry.stream} ${entry.id}`;
    const known = conversation.entries.get(key);
    // A page of history may have been read just before a message was taken away: what is gone stays gone.
    conversation.entries.set(key, known?.redacted ? known : { ...known, ...entry });
    if (compareIds(entry.id, conversation.newest) > 0) conversation.newest = entry.id;
    this.#changed();
    return conversation;
  }

  #takeMembership(entry) {
    const key = `group:${entry.group}`;
    if (entry.stream !== this.inbox) return this.#keep(this.open(key), entry);
    // In the inbox it is a hint that another device of ours has joined; what is said in the group comes by itself.
    if (entry.type === "joined") this.open(key);
    return undefined;
  }

  #takeAway({ stream, target }) {
    for (const conversation of this.#all.values()) {
      const message = conversation.entries.get(`${stream} ${target}`);
      if (!message) continue;
      const { body, ...rest } = message;
      conversation.entries.set(`${stream} ${target}`, { ...rest, redacted: true });
      this.#changed();
      return conversation;
    }
    return undefined; // not shown yet: history will bring it without its body
  }

  #takeGap(gap) {
    const conversation = gap.stream === this.inbox ? undefined : this.open(gap.stream);
    const gaps = conversation ? conversation.gaps : this.#inboxGaps;
    const key = gap.missed === null ? `reset ${gap.after}` : gap.to;
    const known = gaps.get(key);
    // The same hole seen from two places: one line, for the larger of the two.
    if (!known || compareIds(gap.after, known.after) < 0) gaps.set(key, gap);
    if (gap.missed === null) this.#beginAnew(gap.stream);
    this.#changed();
    return conversation;
  }

  /** Ids of before a reset are no anchors any more: history is looked at from its new end. */
  #beginAnew(stream) {
    for (const conversation of this.#all.values()) {
      if (this.streamOf(conversation) === stream) Object.assign(conversation, { oldest: undefined, hasAll: false });
    }
  }
}

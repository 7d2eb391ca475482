// What was said before: pages of history, from the newest backwards, as far as somebody scrolls.

import { $ } from "./dom.js";

const PAGE = 50;
// Of a conversation with one person a page may hold little: the service looks at so many entries of the inbox, and says
// how far it has come. So many pages are asked for by themselves before somebody has to press the button.
const PAGES_AT_ONCE = 5;

export class Earlier {
  #client;
  #conversations;
  #loading = new Set();

  constructor(client, conversations) {
    this.#client = client;
    this.#conversations = conversations;
  }

  /** Loads until `isEnough()`, or the beginning. `changed` is called before and after each page. */
  async load(conversation, isEnough, changed) {
    if (this.#loading.has(conversation)) return;
    this.#loading.add(conversation);
    this.#say("Loading …");
    try {
      for (let pages = 0; pages < PAGES_AT_ONCE && !conversation.hasAll; pages++) {
        await this.#page(conversation);
        await changed();
        if (isEnough()) break;
      }
      this.#say(conversation.hasAll ? "This is the beginning." : "");
    } catch (error) {
      this.#say(error.code === "offline" ? "Earlier messages need a connection." : error.message);
    } finally {
      this.#loading.delete(conversation);
      await changed();
    }
  }

  async #page(conversation) {
    const query = { limit: PAGE };
    if (conversation.oldest) query.before = conversation.oldest;
    if (conversation.kind === "user") query.with = conversation.name;
    const page = await this.#client.history(this.#conversations.streamOf(conversation), query);
    for (const entry of [...page.gaps, ...page.messages]) this.#conversations.take(entry);
    conversation.oldest = page.first ?? conversation.oldest;
    conversation.hasAll = page.found_oldest || page.first === undefined;
  }

  #say(text) {
    $("earlier").querySelector("span").textContent = text;
  }
}

/** Who has written of late, for the list of conversations: a page of the whole inbox, as this page begins. */
export async function recentPeople(client, conversations) {
  const page = await client.history(conversations.inbox, { limit: 200 });
  for (const entry of page.messages) conversations.take(entry);
}

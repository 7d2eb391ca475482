// The list of conversations, and the form that begins one. Which one is open stands in the address, after `#`: so a
// reload stays in it, and "back" leaves it.

import { $, make, show, soon } from "./dom.js";

export function openKey() {
  try {
    return decodeURIComponent(location.hash.slice(1));
  } catch {
    return ""; // somebody has mangled the address
  }
}
export const hashOf = (key) => `#${encodeURIComponent(key)}`;

const KINDS = { user: "a person", group: "a group", all: "everybody" };

export function showPlaces(client, conversations) {
  const row = (conversation) => {
    const count = conversation.unread.size;
    const isOpen = conversation.key === openKey();
    return {
      key: conversation.key,
      version: `${count} ${isOpen}`,
      draw: () =>
        make(
          "li",
          { "data-kind": conversation.kind },
          make(
            "a",
            { href: hashOf(conversation.key), "aria-current": isOpen && "page" },
            make(
              "span",
              { class: "mark", "aria-hidden": "true" },
              conversation.kind === "user"
                ? conversation.name[0].toUpperCase()
                : conversation.kind === "all"
                  ? "∗"
                  : "#",
            ),
            make("span", { class: "name" }, conversation.name),
            make("span", { class: "unseen" }, `, ${KINDS[conversation.kind]}`),
            count
              ? make("span", { class: "unread" }, String(count), make("span", { class: "unseen" }, " unread"))
              : null,
          ),
        ),
    };
  };
  const draw = soon(() => {
    const focused = document.activeElement?.closest("#conversations li")?.dataset.key;
    show($("conversations"), conversations.list().map(row));
    // A row that was drawn anew has lost the focus to nothing.
    if (focused && !document.activeElement?.closest("#conversations")) {
      [...$("conversations").children]
        .find((one) => one.dataset.key === focused)
        ?.querySelector("a")
        .focus();
    }
    const { unread } = conversations;
    document.title = `${unread ? `(${unread}) ` : ""}${conversations.me} – Waypost`;
  });

  $("start").onsubmit = async (event) => {
    event.preventDefault();
    const form = event.currentTarget;
    const kind = event.submitter?.value ?? "user";
    const name = form.elements.name.value.trim();
    const answer = $("start-answer");
    answer.textContent = "";
    if (kind === "group") {
      if (client.state.state !== "live") answer.textContent = "This is done as soon as there is a connection.";
      try {
        await client.join(name); // repeated until there is an answer
      } catch (error) {
        answer.textContent = `${name}: ${error.message}`;
        return;
      }
    }
    answer.textContent = "";
    form.reset();
    conversations.open(`${kind}:${name}`);
    location.hash = hashOf(`${kind}:${name}`);
  };
  return draw;
}

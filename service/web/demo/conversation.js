// The conversation that is open: its lines, scrolling, and writing.

import { $, soon } from "./dom.js";
import { Earlier } from "./history.js";
import { showLog, showOutbox } from "./log.js";
import { openKey } from "./places.js";

const NEAR = 80; // pixels: as good as at the end, or at the beginning
// With these a message was not put into the outbox: the text stays where it was typed.
const NOT_KEPT = new Set(["outbox_full", "storage_failed", "bad_body"]);

export function showConversation(client, conversations) {
  const scroll = $("scroll");
  const text = $("text");
  const earlier = new Earlier(client, conversations);
  let shown; // the conversation whose lines are on the page
  let hushed;

  const grow = () => {
    text.style.height = "auto";
    text.style.height = `${text.scrollHeight + 2}px`;
  };

  /** Whether somebody can see what comes. */
  const isSeen = (conversation) => conversation.key === openKey() && !document.hidden;

  const takeAway = async ({ stream, id }) => {
    // Over HTTP: the client's wire has no frame for it. All devices hear of it by an entry `redacted`, this one too.
    const path = `/v1/streams/${encodeURIComponent(stream)}/messages/${id}?${new URLSearchParams({ user: client.user })}`;
    const answer = await fetch(path, { method: "DELETE" }).catch(() => undefined);
    if (!answer?.ok) $("compose-answer").textContent = "It could not be taken away. Try again.";
  };
  const resend = (key) => client.resend(key).catch((error) => tell(error));
  const discard = (key) => client.discard(key).then(draw, (error) => tell(error));

  /** What was refused stands in the outbox, too, with its code; what was not kept stands here alone. */
  function tell(error, to = openKey()) {
    const isNews = error.code !== "discarded" && error.code !== "closed" && to === openKey();
    if (isNews) $("compose-answer").textContent = `Not sent: ${error.message}`;
    draw();
  }

  /** Draws without moving what is being read: the end stays the end, and otherwise the first line in sight stays. */
  function drawNow() {
    const conversation = conversations.get(openKey());
    const isOther = conversation !== shown;
    if (isOther && shown) shown.draft = text.value;
    shown = conversation;
    document.body.classList.toggle("has-open", Boolean(conversation));
    $("conversation").hidden = !conversation;
    $("nothing-open").hidden = Boolean(conversation);
    if (!conversation) return;
    $("title").textContent = conversation.name;
    $("leave").hidden = conversation.kind !== "group";
    $("load-earlier").hidden = conversation.hasAll;
    if (isSeen(conversation)) conversations.markRead(conversation);
    if (isOther) {
      hush();
      text.value = conversation.draft;
      grow();
      $("earlier").querySelector("span").textContent = "";
    }

    const isAtEnd = isOther || scroll.scrollHeight - scroll.scrollTop - scroll.clientHeight < NEAR;
    const first = [...$("log").children].find((one) => one.offsetTop + one.offsetHeight > scroll.scrollTop);
    const before = first?.offsetTop;
    showLog(conversations.lines(conversation), { me: client.user, inbox: conversations.inbox, takeAway });
    showOutbox(
      client.outbox().filter((item) => item.to === conversation.key && item.state !== "sent"),
      { resend, discard },
    );
    if (isAtEnd) scroll.scrollTop = scroll.scrollHeight;
    else if (first?.isConnected) scroll.scrollTop += first.offsetTop - before;
    if (isOther) loadFirst();
  }
  const draw = soon(drawNow);

  /** What was said before is not news: a screen reader is not to read out fifty old messages. */
  function hush() {
    clearTimeout(hushed);
    $("news").setAttribute("aria-live", "off");
    hushed = setTimeout(() => $("news").setAttribute("aria-live", "polite"), 500);
  }

  async function loadEarlier() {
    const conversation = conversations.get(openKey());
    if (!conversation) return;
    const count = conversation.entries.size;
    const isEnough = () =>
      openKey() !== conversation.key ||
      (conversation.entries.size > count && scroll.scrollHeight > scroll.clientHeight);
    await earlier.load(conversation, isEnough, () => {
      hush();
      drawNow();
    });
  }

  function loadFirst() {
    if (shown && !shown.oldest && !shown.hasAll) loadEarlier();
  }

  const open = () => {
    const key = openKey();
    // An address may name what this page has not heard of: who says it is somebody, is.
    if (/^user:./.test(key)) conversations.open(key);
    $("compose-answer").textContent = "";
    drawNow();
    if (shown) $(matchMedia("(pointer: fine)").matches ? "text" : "title").focus();
  };

  addEventListener("hashchange", open);
  document.addEventListener("visibilitychange", draw);
  scroll.addEventListener("scroll", () => {
    if (scroll.scrollTop < NEAR && shown?.oldest && !shown.hasAll) loadEarlier();
  });
  $("load-earlier").onclick = loadEarlier;
  // The first page could not be had while there was no connection.
  client.on("live", loadFirst);

  $("leave").onclick = async () => {
    const { key, name } = shown;
    try {
      await client.leave(name);
    } catch (error) {
      $("compose-answer").textContent = error.message;
      return;
    }
    conversations.forget(key);
    if (openKey() === key) location.hash = "";
  };

  text.oninput = grow;
  text.onkeydown = (event) => {
    // While a character is being composed (Japanese, accents), Enter belongs to that.
    if (event.key !== "Enter" || event.shiftKey || event.isComposing) return;
    event.preventDefault();
    $("compose").requestSubmit();
  };
  $("compose").onsubmit = (event) => {
    event.preventDefault();
    if (!text.value.trim() || !shown) return;
    const written = text.value;
    $("compose-answer").textContent = "";
    scroll.scrollTop = scroll.scrollHeight; // who writes wants to see it
    const { key } = shown;
    client.send(key, { text: written }).catch((error) => {
      if (NOT_KEPT.has(error.code) && key === openKey() && !text.value) text.value = written;
      tell(error, key);
    });
    text.value = "";
    grow();
  };
  addEventListener("keydown", (event) => {
    if (event.key !== "Escape" || !shown || event.isComposing) return;
    const { key } = shown;
    location.hash = "";
    $("conversations")
      .querySelector(`[data-key="${CSS.escape(key)}"] a`)
      ?.focus();
  });
  return { draw, open, isSeen };
}

// How the connection stands, the switch that takes it away, and the second device.

import { $, make } from "./dom.js";

const WORDS = {
  connecting: "connecting",
  "catching-up": "catching up",
  live: "live",
  waiting: "no connection",
  paused: "live, a moment behind",
  offline: "offline",
  stopped: "stopped",
  closed: "closed",
};

export function showConnection(client) {
  const isOffline = () => client.state.state === "offline";

  const draw = () => {
    const { state, error, transport, node, isLeader } = client.state;
    const status = `${WORDS[state] ?? state}${state === "stopped" && error ? `: ${error.code}` : ""}`;
    // Written only where it is new, for a screen reader reads it out each time.
    if ($("status").textContent !== status) $("status").textContent = status;
    $("status").dataset.state = state;
    $("status").title = error ? error.message : "";
    $("retry").hidden = state !== "waiting" && state !== "stopped";
    $("route").textContent = [
      node && `${transport === "sse" ? "Server-Sent Events" : "WebSocket"} to ${node}`,
      node && !isLeader && "by another tab",
    ]
      .filter(Boolean)
      .join(", ");
    $("offline").setAttribute("aria-checked", String(isOffline()));
    count();
  };

  const count = () => {
    const { state, retryAt } = client.state;
    const seconds = state === "waiting" && retryAt ? Math.max(0, Math.ceil((retryAt - Date.now()) / 1000)) : 0;
    $("countdown").textContent = seconds ? `next try in ${seconds} s` : "";
  };

  client.on("state", draw);
  setInterval(count, 250);
  draw();

  // What is sent while offline waits in the outbox, and goes out in order afterwards.
  $("offline").onclick = () => (isOffline() ? client.reconnect() : client.disconnect());
  $("retry").onclick = () => client.reconnect();
}

/** The same page as another device of this user: beside this one, or in a tab where there is no room for that. */
export function offerSecondDevice(client) {
  const button = $("second");
  const aside = $("beside");
  const isRoomy = matchMedia("(min-width: 64rem)");
  if (window !== window.parent) {
    button.hidden = $("sign-out").hidden = true; // this is the second device
    return;
  }
  button.onclick = () => {
    const query = new URLSearchParams({ user: client.user, device: `${client.device || "device"}-2` });
    if (!isRoomy.matches && aside.hidden) {
      window.open(`/?${query}`, "_blank", "noopener");
      return;
    }
    aside.hidden = !aside.hidden;
    button.setAttribute("aria-expanded", String(!aside.hidden));
    // A frame that is taken out ends its client: the device is away, and misses nothing for it.
    aside.replaceChildren(...(aside.hidden ? [] : [make("iframe", { src: `/?${query}`, title: "A second device" })]));
  };
}

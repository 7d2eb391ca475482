// The panel in which offsets move. A message that comes moves `received`; once the page's handlers have taken it, and
// that is kept on this device, `offset`; and once the server was told, `acked`.

import { $, make, show, soon } from "./dom.js";

const COLUMNS = ["received", "offset", "acked"];

/** Entry ids are `<ms>-<n>`: the number alone is what a person can compare. */
const numberOf = (id) => id.split("-")[1];

export function showOffsets(client) {
  const body = $("offsets").querySelector("tbody");
  const draw = soon(() => {
    if (!$("offsets").open) return;
    const rows = [...client.progress()]
      .sort(([a], [b]) => a.localeCompare(b))
      .map(([stream, progress]) => {
        const numbers = COLUMNS.map((name) => progress[name] ?? "0-0");
        return {
          key: stream,
          version: numbers.join(" "),
          draw: () => {
            const old = [...body.children].find((row) => row.dataset.key === stream);
            return make(
              "tr",
              {},
              make("th", { scope: "row" }, stream),
              numbers.map((id, at) => {
                const hasMoved = old && old.children[at + 1].title !== id;
                return make("td", { title: id, class: hasMoved && "moved", "data-column": COLUMNS[at] }, numberOf(id));
              }),
            );
          },
        };
      });
    show(body, rows);
  });
  client.on("progress", draw);
  $("offsets").ontoggle = draw;
  client.on("error", (error) => {
    $("last-error").textContent = `Last complaint: ${error.message}`;
  });
}

// What is gone, in words. A gap is never passed over: it says how much, and why.

const UNITS = { s: "second", m: "minute", h: "hour", d: "day" };

/** `max_age=7d` → `the 7-day policy`. The limits are those of docs/operations.md. */
function policyOf(limit = "") {
  const [name, value = ""] = limit.split("=");
  if (name === "max_age") return `the ${value.slice(0, -1)}-${UNITS[value.slice(-1)] ?? value.slice(-1)} policy`;
  if (name === "max_entries") return `the policy that keeps ${value} messages`;
  if (name === "max_bytes") return `the policy that keeps ${value}`;
  return "a policy";
}

function why(cause) {
  if (cause.kind === "trimmed") return cause.limit ? `removed by ${policyOf(cause.limit)}` : "removed";
  return cause.kind === "lost" ? "lost by the service's store" : `lost (${cause.kind})`;
}

/** `12 messages were removed by the 7-day policy`. `isInbox`: the gap may be of other conversations too. */
export function gapText(gap, isInbox) {
  if (gap.missed === null) return "The service's memory was reset: nobody can know what is missing here";
  const reasons = [...new Set((gap.causes ?? [gap.cause]).map(why))].join(" and ");
  const what = `${gap.missed} ${gap.missed === 1 ? "message" : "messages"}`;
  const were = gap.missed === 1 ? "was" : "were";
  if (!isInbox) return `${what} ${were} ${reasons}`;
  return `${what} of your inbox ${were} ${reasons}; ${gap.missed === 1 ? "it" : "some"} may belong here`;
}

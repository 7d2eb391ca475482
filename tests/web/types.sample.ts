// How a user writes it: compiled under `strict` by types.test.js, and never run.

import { CLIENT_ERRORS, WaypostError, compareIds, connect } from "waypost";
import type {
  Client,
  Gap,
  HistoryPage,
  KeyValueStorage,
  Message,
  Options,
  OutboxItem,
  Progress,
  Sent,
  State,
} from "waypost";

const memory = new Map<string, string>();
const storage: KeyValueStorage = {
  getItem: async (key) => memory.get(key) ?? null,
  setItem: (key, value) => void memory.set(key, value),
  removeItem: async (key) => void memory.delete(key),
  getAllKeys: () => [...memory.keys()],
};

const options: Options = {
  url: new URL("wss://chat.example.org"),
  getToken: async () => "token",
  storage,
  transport: "auto",
  ack: "manual",
};
const client: Client = connect(options);
connect({ storage: localStorage, WebSocket, fetch });

const stop: () => void = client.on("message", (message: Message) => {
  const text: string = message.body.text;
  client.ack(message);
  return text;
});
client.on("gap", ({ missed, cause }: Gap) => (missed ?? 0) + cause.kind.length);
client.on("state", (state: State) => {
  switch (state.state) {
    case "connecting":
    case "catching-up":
    case "live":
    case "waiting":
    case "paused":
    case "offline":
    case "stopped":
    case "closed":
      return state.error?.code;
    default: {
      const never: never = state.state;
      return never;
    }
  }
});
client.on("error", (error) => error.retryAfter?.toFixed(1));
client.on("outbox", (item: OutboxItem) => item.sent?.duplicate);
stop();

export async function use(): Promise<string> {
  const sent: Sent = await client.send("user:bob", { text: "hi" }, { key: "k" });
  const page: HistoryPage = await client.history("group:g", { before: new Date(), limit: 20 });
  for await (const event of client) {
    if (event.type === "message") client.ack(event);
    else if (event.type === "live") break;
  }
  const progress: ReadonlyMap<string, Progress> = client.progress();
  try {
    await client.join("g");
  } catch (error) {
    if (error instanceof WaypostError && error.retry) return CLIENT_ERRORS[error.code] ?? error.code;
  }
  client.reconnect({ token: "another" });
  await client.close();
  return `${sent.mid} ${page.messages.length} ${progress.size} ${compareIds("1-1", "2-2")}`;
}

// @ts-expect-error: there is no such event
client.on("nothing", () => {});
// @ts-expect-error: nor such an option
connect({ uri: "x" });
// @ts-expect-error: what is read is not to be changed
client.state.state = "live";
// @ts-expect-error: a number is no body's place
client.send(5, "body");

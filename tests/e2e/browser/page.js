// A client and nothing else. Whatever it is told is written down in localStorage before the handler returns: there it
// stays when the tab dies, and the test counts there, over all the lives of a tab.
import { connect } from "/client/waypost.js";

const asked = JSON.parse(new URLSearchParams(location.search).get("asked"));
const prefix = `heard:${asked.tab}:`;
let at = 0;
while (localStorage.getItem(prefix + at) !== null) at += 1;

function note(what) {
  localStorage.setItem(prefix + at, JSON.stringify(what));
  at += 1;
}

const plain = (error) => ({ type: "error", name: error.name, code: error.code, message: error.message });

/** Fails, or takes its time, as often as it was asked to for messages with this body. */
function take(message) {
  if (asked.fails?.[message.body] > 0) {
    asked.fails[message.body] -= 1;
    note({ ...message, type: "threw" });
    throw new Error("not now");
  }
  if (asked.pauses?.[message.body] > 0) {
    const pause = asked.pauses[message.body];
    delete asked.pauses[message.body];
    note({ ...message, type: "begun" });
    return new Promise((done) => setTimeout(done, pause)).then(() => note(message));
  }
  note(message);
}

const options = { ...asked.options };
if (asked.tokens) options.getToken = async () => (await fetch("/test/token")).text();
note({ type: "opened" });
const client = connect(options);
window.client = client;
for (const type of ["joined", "left", "redacted", "entry", "gap", "live"]) client.on(type, note);
client.on("message", take);
client.on("state", (state) => note({ ...state, error: state.error && plain(state.error) }));
client.on("outbox", (item) => note({ ...item, type: "outbox" }));
client.on("error", (error) => note(plain(error)));

window.say = (to, body, given) => {
  client.send(to, body, given).then(
    (sent) => note({ type: "answer", body, sent }),
    (error) => note({ ...plain(error), type: "refused", body }),
  );
};
window.chat = (to, bodies, every) => {
  bodies.forEach((body, nth) => setTimeout(() => window.say(to, body), nth * every));
};
window.state = () => client.state;
window.progress = () => Object.fromEntries(client.progress());

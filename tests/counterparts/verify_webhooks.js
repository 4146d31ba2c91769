// Verifies webhooks with the official library for JavaScript, and parses events with the SDK of CloudEvents.
//
// As verify_webhooks.py: a line of JSON in, a line out.

const { createRequire } = require("node:module");
const readline = require("node:readline");

// The packages lie where the setup installed them.
const installed = createRequire(`${process.argv[2]}/package.json`);
const { Webhook } = installed("standardwebhooks");
const { HTTP } = installed("cloudevents");

function verified({ headers, body, secret, event }) {
  const verified = new Webhook(secret).verify(body, headers);
  if (!event) return { verified };
  const parsed = HTTP.toEvent({ headers, body });
  parsed.validate();
  return { event: parsed.toJSON() };
}

readline.createInterface({ input: process.stdin }).on("line", (line) => {
  let answer;
  try {
    answer = verified(JSON.parse(line));
  } catch (error) {
    answer = { error: `${error.name}: ${error.message}` };
  }
  console.log(JSON.stringify(answer));
});

// A small host in Node with a sidebar of sessions: it starts
// the service, keeps a map, and prints a line for each event.
//
//   node sidebar.mjs PROGRAM ARGUMENT…

import { spawn } from "node:child_process";
import { createInterface } from "node:readline";

const [program, ...args] = process.argv.slice(2);
const service = spawn(program, ["serve", "--stdio", ...args], {
  stdio: ["pipe", "pipe", "inherit"],
});
const sessions = new Map();

for await (const line of createInterface({ input: service.stdout })) {
  const event = JSON.parse(line);
  switch (event.type) {
    case "snapshot":
      sessions.clear();
      for (const session of event.sessions) sessions.set(session.id, session);
      break;
    case "change":
      for (const session of event.upserted) sessions.set(session.id, session);
      for (const id of event.removed) sessions.delete(id);
      break;
  }
  const titles = [...sessions.values()].map((session) => session.title).sort();
  console.log(JSON.stringify({ event: event.type, titles }));
}
console.log(JSON.stringify({ event: "exit" }));

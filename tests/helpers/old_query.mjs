// The query that sidebars ran before, as they ran it: in Node's own SQLite, each time in a new
// worker thread that opens the database, asks, and closes it. Called by ./scripts/bench.
//
//   node old_query.mjs DATABASE QUERY
//
// Answers each line of standard input with a line: how long it took until the rows were in the
// main thread, in nanoseconds; the processor time, in microseconds; how many rows there were; and
// in how many of them the last column was true.

import { createInterface } from "node:readline";
import { Worker, isMainThread, parentPort, workerData } from "node:worker_threads";

if (isMainThread) {
  const [db, query] = process.argv.slice(2);
  const ask = () =>
    new Promise((resolve, reject) => {
      const worker = new Worker(new URL(import.meta.url), {
        workerData: { db, query },
        execArgv: ["--disable-warning=ExperimentalWarning"],
      });
      worker.on("message", resolve);
      worker.on("error", reject);
    });
  for await (const _ of createInterface({ input: process.stdin })) {
    const used = process.cpuUsage();
    const began = process.hrtime.bigint();
    const rows = await ask();
    const took = process.hrtime.bigint() - began;
    const { user, system } = process.cpuUsage(used);
    const marked = rows.filter((row) => row.marked === 1);
    console.log(`${took} ${user + system} ${rows.length} ${marked.length}`);
  }
} else {
  const { DatabaseSync } = await import("node:sqlite");
  const db = new DatabaseSync(workerData.db, { readOnly: true });
  db.exec("PRAGMA busy_timeout = 5000");
  const rows = db.prepare(workerData.query).all();
  db.close();
  parentPort.postMessage(rows);
}

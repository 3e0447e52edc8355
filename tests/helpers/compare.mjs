// Takes turns with several ways to list sessions and prints the median of each. Called by
// scripts/compare.
//
//   node compare.mjs SCRATCH OPENCODE-SESSIONS OPENCODE DATABASE
//
// Without DATABASE the one in SCRATCH/data is listed. An empty OPENCODE is left out.

import { spawnSync } from "node:child_process";
import { createHash } from "node:crypto";
import { existsSync, mkdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { cpus, loadavg } from "node:os";
import { join } from "node:path";

const [scratch, ours, opencode, named] = process.argv.slice(2);
const ROUNDS = 10;

const db = named || join(scratch, "data/opencode/opencode.db");
const project = join(scratch, "project");
const cache = join(scratch, "cache");
for (const name of ["home", "config", "state", "tmp", "project"]) mkdirSync(join(scratch, name), { recursive: true });
const models = join(scratch, "models.json");
writeFileSync(models, "{}");
const env = {
  PATH: process.env.PATH,
  HOME: join(scratch, "home"),
  TMPDIR: join(scratch, "tmp"),
  XDG_DATA_HOME: join(scratch, "data"),
  XDG_CONFIG_HOME: join(scratch, "config"),
  XDG_STATE_HOME: join(scratch, "state"),
  XDG_CACHE_HOME: cache,
  OPENCODE_CONFIG_CONTENT: JSON.stringify({ autoupdate: false, share: "disabled" }),
  OPENCODE_DISABLE_AUTOUPDATE: "1",
  OPENCODE_DISABLE_MODELS_FETCH: "1",
  OPENCODE_DISABLE_LSP_DOWNLOAD: "1",
  OPENCODE_DISABLE_DEFAULT_PLUGINS: "1",
  OPENCODE_MODELS_PATH: models,
};

const ROOTS = "FROM session s WHERE parent_id IS NULL AND time_archived IS NULL ORDER BY time_updated DESC";
const COLUMNS = "SELECT s.id, s.title, s.directory, s.time_updated";
const IS_SUBAGENT =
  "EXISTS (SELECT 1 FROM part p WHERE p.session_id = s.id AND p.data LIKE '%<freshell-session-metadata origin=3-views%')";
const sql = (query) => ["sqlite3", "-readonly", db, query];
const forget = () => rmSync(cache, { recursive: true, force: true });
const list = [ours, "list", "--db", db];

const ways = [
  ...(opencode && !named ? [{ name: "opencode session list", command: [opencode, "session", "list"] }] : []),
  { name: "opencode-sessions list, the first time", command: list, before: forget },
  { name: "opencode-sessions list", command: list },
  { name: "sqlite3, the sessions alone", command: sql(`${COLUMNS} ${ROOTS}`) },
  { name: "sqlite3, with who is a subagent", command: sql(`${COLUMNS}, ${IS_SUBAGENT} ${ROOTS}`) },
];

/** Runs it; the time in milliseconds, or null where it cannot be run. */
function run([program, ...args]) {
  const before = performance.now();
  const { status } = spawnSync(program, args, { env, cwd: project, stdio: "ignore", timeout: 60_000 });
  return status === 0 ? performance.now() - before : null;
}

const bytes = () =>
  [db, `${db}-wal`]
    .map((path) => (existsSync(path) ? createHash("sha256").update(readFileSync(path)).digest("hex") : ""))
    .join();

console.log(`${cpus().length} cores, load ${loadavg()[0].toFixed(1)}; median of ${ROUNDS} rounds, and the shortest`);
const times = new Map(ways.map(({ name }) => [name, []]));
const writes = new Set();
// The first round warms up.
for (let round = 0; round <= ROUNDS; round++) {
  for (const { name, command, before } of ways) {
    before?.();
    // Only of a small database: hashing a large one would take longer than listing it.
    const old = named || round === 0 ? "" : bytes();
    const time = run(command);
    if (!named && round > 0 && bytes() !== old) writes.add(name);
    if (round > 0) times.get(name).push(time);
  }
}
for (const [name, all] of times) {
  if (all.includes(null)) {
    console.log(`${name.padEnd(40)} cannot be run here`);
    continue;
  }
  all.sort((a, b) => a - b);
  const median = (all[ROUNDS / 2 - 1] + all[ROUNDS / 2]) / 2;
  const changed = writes.has(name) ? "   writes to the database" : "";
  console.log(`${name.padEnd(40)} ${median.toFixed(0).padStart(6)} ms ${all[0].toFixed(0).padStart(6)} ms${changed}`);
}

// Lets a real OpenCode write from four sessions at once, with a model made up
// here, lists its sessions meanwhile, and compares with the query that defines
// which of them are marked. Called by scripts/real-opencode.
//
//   node real_opencode.mjs OPENCODE PROGRAMS SCRATCH FINDING
//
// PROGRAMS is the directory of the two programs, SCRATCH an empty directory, and
// FINDING where the database is left if an answer is wrong.

import { execFile, spawn } from "node:child_process";
import { copyFileSync, cpSync, existsSync, mkdirSync, openSync, readFileSync, readdirSync, rmSync, statSync, writeFileSync } from "node:fs";
import { createServer } from "node:http";
import { join } from "node:path";
import { createInterface } from "node:readline";
import { setTimeout as sleep } from "node:timers/promises";
import { promisify } from "node:util";

const [opencode, programs, scratch, finding] = process.argv.slice(2);
const run = promisify(execFile);

const MARKER = "<freshell-session-metadata origin=3-views";
const CONTENT = { part: "data", message: "data", session_message: "data", session_input: "prompt" };
const ROUNDS = 6;
const ROUND_MS = 10_000;
const EVERY_MS = 500;
const SHARE = 0.95;
const LIMIT_MS = 160_000;
// How long a turn takes, about. Four at once are then some 600 frames of the log a
// second: it is restarted every 1.5 seconds or so. At more than twice that, listings
// every half second must lose the thread.
const TURN_MS = 1000;

const readLog = (path) => (existsSync(path) ? readFileSync(path, "utf8") : "");
const home = join(scratch, "home");
const project = join(scratch, "project");
const db = join(scratch, "data/opencode/opencode.db");
const cache = join(scratch, "scan-cache");
const log = join(scratch, "opencode.log");
const serviceLog = join(scratch, "service.log");
const lister = join(programs, "opencode-lister");
for (const name of ["home", "project", "tmp", "data", "config/opencode", "cache", "state", "index"]) {
  mkdirSync(join(scratch, name), { recursive: true });
}

/** What goes wrong in a way that one sentence says. */
class Wrong extends Error {}
/** An answer that is not the oracle's. */
class Different extends Wrong {}

// Processes, each the leader of a group, which the script that called us ends
// should we not come to it.

const groups = new Map();
const noteGroups = () => writeFileSync(join(scratch, "groups"), [...groups.keys()].map((id) => `${id}\n`).join(""));

function start(program, args, options) {
  const child = spawn(program, args, { ...options, detached: true });
  const ended = new Promise((done) => child.once("close", done).once("error", done));
  if (child.pid !== undefined) {
    groups.set(child.pid, ended);
    noteGroups();
  }
  return child;
}

async function endAll() {
  for (const [group, ended] of groups) {
    try {
      process.kill(-group, "SIGKILL");
    } catch {
      // It has ended by itself.
    }
    await ended;
  }
  groups.clear();
  noteGroups();
}

// Text with the marker in it, or almost. A short text stays within its page of the
// database, a long one goes over several, with the marker anywhere on them, and
// across two of them as well.

const below = (n) => Math.floor(Math.random() * n);
const lorem = (most) => "Lorem ipsum dolor sit amet. ".repeat(below(most)) + "x".repeat(below(40));
const short = (middle) => `${lorem(20)} ${middle} ${lorem(20)}`;
const long = (middle) => `${lorem(500)} ${middle} ${lorem(500)}`;
const marker = () => (below(2) ? MARKER : MARKER.replace(/[a-z]/g, (c) => (below(2) ? c : c.toUpperCase())));
const almost = () => [MARKER.slice(0, 20), MARKER.slice(20), MARKER.replace("3", "2")][below(12)] ?? "";
const plain = () => (below(10) ? short(almost()) : long(""));
// One long text a round has its marker on pages of its own.
let longWanted = false;
function marked() {
  const text = longWanted ? long(marker()) : short(marker());
  longWanted = false;
  return text;
}

// The model. A prompt says which turn it belongs to, and the turn what to answer.

const answers = new Map();
let turns = 0;

const model = createServer(async (request, response) => {
  let body = "";
  for await (const piece of request) body += piece;
  const { messages } = JSON.parse(body);
  const text = ({ content }) => (typeof content === "string" ? content : JSON.stringify(content));
  const asked = messages.findLast(({ role }) => role === "user");
  const turn = Number(/turn (\d+)\./.exec(asked ? text(asked) : "")?.[1]);
  const answer = answers.get(turn) ?? { text: "" };
  response.writeHead(200, { "content-type": "text/event-stream" });
  const send = (delta, more = {}) =>
    response.write(
      `data: ${JSON.stringify({ id: "a", object: "chat.completion.chunk", created: 1, model: "made-up", choices: [{ index: 0, delta, finish_reason: null, ...more }] })}\n\n`,
    );
  send({ role: "assistant", content: "" });
  let reason = "stop";
  if (/title generator/.test(text(messages[0]))) {
    // A title is not content: with a marker in it, a session is still not marked.
    send({ content: `About ${marker()}` });
  } else if (answer.reads && messages.at(-1).role !== "tool") {
    const call = { name: "read", arguments: JSON.stringify({ filePath: answer.reads }) };
    send({ tool_calls: [{ index: 0, id: `call_${turn}`, type: "function", function: call }] });
    reason = "tool_calls";
  } else {
    // In pieces, so that no piece has the marker whole.
    const step = 15 + Math.floor(answer.text.length / 20);
    for (let at = 0; at < answer.text.length; at += step) send({ content: answer.text.slice(at, at + step) });
  }
  send({}, { finish_reason: reason });
  response.end("data: [DONE]\n\n");
});

// OpenCode.

let origin;

async function startOpenCode() {
  await new Promise((done) => model.listen(0, "127.0.0.1", done));
  const port = await new Promise((done) => {
    const free = createServer().listen(0, "127.0.0.1", () => {
      const { port } = free.address();
      free.close(() => done(port));
    });
  });
  origin = `http://127.0.0.1:${port}`;
  const config = {
    autoupdate: false,
    share: "disabled",
    model: "local/made-up",
    small_model: "local/made-up",
    provider: {
      local: {
        npm: "@ai-sdk/openai-compatible",
        options: { baseURL: `http://127.0.0.1:${model.address().port}/v1`, apiKey: "none" },
        models: { "made-up": { limit: { context: 10_000_000, output: 10_000 } } },
      },
    },
  };
  // A file and no variable: the routes of /api/session read files only.
  writeFileSync(join(scratch, "config/opencode/opencode.json"), JSON.stringify(config));
  writeFileSync(join(scratch, "models.json"), "{}");
  writeFileSync(join(project, "marked.txt"), `A file with ${MARKER} in it.\n`);
  const output = openSync(log, "a");
  const child = start(opencode, ["serve", "--hostname", "127.0.0.1", "--port", `${port}`, "--print-logs"], {
    cwd: project,
    stdio: ["ignore", output, output],
    env: {
      PATH: process.env.PATH,
      HOME: home,
      TMPDIR: join(scratch, "tmp"),
      XDG_DATA_HOME: join(scratch, "data"),
      XDG_CONFIG_HOME: join(scratch, "config"),
      XDG_CACHE_HOME: join(scratch, "cache"),
      XDG_STATE_HOME: join(scratch, "state"),
      OPENCODE_DISABLE_AUTOUPDATE: "1",
      OPENCODE_DISABLE_MODELS_FETCH: "1",
      OPENCODE_DISABLE_LSP_DOWNLOAD: "1",
      OPENCODE_DISABLE_DEFAULT_PLUGINS: "1",
      OPENCODE_MODELS_PATH: join(scratch, "models.json"),
      // It would install a package in the background: nobody answers there.
      HTTP_PROXY: "http://127.0.0.1:9",
      HTTPS_PROXY: "http://127.0.0.1:9",
      NO_PROXY: "127.0.0.1,localhost",
    },
  });
  // Requests that arrive just after it starts to listen are never answered.
  for (const end = Date.now() + 30_000; ; await sleep(200)) {
    const answered = await fetch(`${origin}/session`, { signal: AbortSignal.timeout(1000) }).catch(() => undefined);
    if (answered?.ok) return;
    if (Date.now() > end || child.exitCode !== null || child.signalCode !== null || child.pid === undefined) {
      const last = readFileSync(log, "utf8").split("\n").slice(-10).join("\n");
      throw new Wrong(`OpenCode does not start. It said:\n${last}`);
    }
  }
}

async function ask(method, path, body) {
  const response = await fetch(origin + path, {
    method,
    headers: { "content-type": "application/json" },
    body: body && JSON.stringify(body),
    signal: AbortSignal.timeout(20_000),
  }).catch((error) => {
    throw new Wrong(`OpenCode does not answer ${method} ${path}: ${error.message}`);
  });
  const text = await response.text();
  if (!response.ok) throw new Wrong(`OpenCode answers ${method} ${path} with ${response.status}: ${text.slice(0, 300)}`);
  return text === "" ? undefined : JSON.parse(text);
}

// What each of the two kinds of routes can do. `mark` says where the marker comes
// from in this turn, if it does.

const MODEL = { providerID: "local", modelID: "made-up" };

const prompt = (mark) => {
  turns += 1;
  answers.set(turns, {
    text: mark === "answer" || mark === "erased" ? marked() : plain(),
    reads: mark === "tool" ? join(project, "marked.txt") : undefined,
  });
  return `turn ${turns}. ${mark === "prompt" ? marked() : plain()}`;
};

const sessionRoutes = {
  marks: ["prompt", "answer", "tool", "erased", "edited"],
  create: async () => (await ask("POST", `/session?directory=${encodeURIComponent(project)}`, {})).id,
  async turn(id, mark) {
    const parts = [{ type: "text", text: prompt(mark) }];
    const answer = await ask("POST", `/session/${id}/message`, { model: MODEL, parts });
    if (mark !== "erased" && mark !== "edited") return;
    // A part is written anew in place, without the marker or with it.
    const part = answer.parts.find(({ type }) => type === "text");
    const text = mark === "edited" ? marked() : plain();
    await ask("PATCH", `/session/${id}/message/${part.messageID}/part/${part.id}`, { ...part, text });
  },
  remove: (id) => ask("DELETE", `/session/${id}`),
};

const apiRoutes = {
  marks: ["prompt", "answer"],
  async create() {
    const model = { id: MODEL.modelID, providerID: MODEL.providerID };
    return (await ask("POST", "/api/session", { model, location: { directory: project } })).data.id;
  },
  async turn(id, mark) {
    await ask("POST", `/api/session/${id}/prompt`, { prompt: { text: prompt(mark) } });
    do await sleep(20);
    while (id in (await ask("GET", "/api/session/active")).data);
  },
  remove: sessionRoutes.remove,
};

/**
 * One text longer than the log usually is. A restarted log keeps its length, which an
 * OpenCode that has run for a while has; a log that ends just where the generation
 * before did may have been truncated, and makes a listing full.
 */
async function pasteMuch() {
  const id = await sessionRoutes.create();
  const parts = [{ type: "text", text: "x".repeat(5 << 20) }];
  await ask("POST", `/session/${id}/message`, { model: MODEL, noReply: true, parts });
}

/** One session after the other until `end`; in half of them one turn marks it. */
async function write(routes, end) {
  while (Date.now() < end) {
    const id = await routes.create();
    const length = 1 + below(8);
    const marking = below(2) ? below(length) : -1;
    const mark = routes.marks[below(routes.marks.length)];
    for (let turn = 0; turn < length && Date.now() < end; turn += 1) {
      const paced = sleep(TURN_MS / 2 + below(TURN_MS));
      await routes.turn(id, turn === marking ? mark : undefined);
      await paced;
    }
    if (below(4) === 0) await routes.remove(id);
  }
}

// The oracle: the query itself, by whatever SQLite there is.

async function findOracle() {
  const uri = `file:${encodeURI(db).replace(/[?#]/g, encodeURIComponent)}?mode=ro`;
  const sqlite = await import("node:sqlite").catch(() => undefined);
  if (sqlite) {
    return async (sql) => {
      const database = new sqlite.DatabaseSync(db, { readOnly: true });
      try {
        return database.prepare(sql).all().map((row) => Object.values(row).map(String));
      } finally {
        database.close();
      }
    };
  }
  const python = "import sqlite3,sys\nfor row in sqlite3.connect(sys.argv[1], uri=True).execute(sys.argv[2]): print(*row, sep='|')";
  for (const [program, before] of [
    ["python3", ["-c", python]],
    ["sqlite3", ["-readonly", "-batch", "-separator", "|"]],
  ]) {
    const query = async (sql) => {
      const { stdout } = await run(program, [...before, uri, sql], { maxBuffer: 1 << 26 });
      return stdout.split("\n").filter(Boolean).map((line) => line.split("|"));
    };
    const works = await query("SELECT 1").catch(() => undefined);
    if (works) return query;
  }
  throw new Wrong("SQLite is missing, to compare with: Node 22, python3, or the program sqlite3 has it");
}

async function define(query) {
  const tables = (await query("SELECT name FROM sqlite_master WHERE type = 'table'")).flat();
  const has = Object.entries(CONTENT)
    .filter(([table]) => tables.includes(table))
    .map(([table, column]) => `EXISTS (SELECT 1 FROM ${table} x WHERE x.session_id = s.id AND x.${column} LIKE '%${MARKER}%')`);
  const rows = await query(`SELECT s.id, ${has.join(" OR ")} FROM session s`);
  return new Map(rows.map(([id, is]) => [id, is === "1"]));
}

// The programs.

const listings = [];
const fullWhy = [];

async function list(...more) {
  const started = performance.now();
  const { stdout } = await run(lister, ["--db", db, ...more], { maxBuffer: 1 << 26 }).catch((error) => {
    throw new Wrong(`opencode-lister failed: ${error.stderr || error.message} ${error.stdout?.slice(-300) ?? ""}`);
  });
  const lines = stdout.trimEnd().split("\n").map((line) => JSON.parse(line));
  const { database, scan, elapsedMs } = lines.at(-1);
  if (database !== "ready") throw new Wrong(`opencode-lister says that the database is ${database}`);
  const sessions = new Map(lines.filter(({ type }) => type === "session").map(({ id, marked }) => [id, marked]));
  return { sessions, scan, elapsedMs, ms: performance.now() - started };
}

async function listNew() {
  const before = `${cache}.before`;
  if (existsSync(cache)) copyFileSync(cache, before);
  const listing = await list("--scan-cache", cache);
  if (listing.scan.mode === "full" && existsSync(before)) {
    // A listing does not say why; a moment later it is most likely the same.
    const { stdout } = await run(lister, ["explain", "--db", db, "--scan-cache", before]);
    fullWhy.push(/^marker:.*\n.*/m.exec(stdout)?.[0].replace(/\s+/g, " ") ?? stdout);
  }
  listings.push(listing);
  return listing.sessions;
}

/** Lists as long as OpenCode writes, and now and then compares in one snapshot. */
async function watch(end) {
  for (let next = Date.now(), count = 1; next < end; next = Math.max(next + EVERY_MS, Date.now()), count += 1) {
    await sleep(next - Date.now());
    await listNew();
    if (count % 5 === 0) {
      await run(lister, ["verify", "--db", db, "--scan-cache", cache]).catch((error) => {
        throw new Different(`opencode-lister verify, while OpenCode writes: ${error.stdout}${error.stderr}`);
      });
    }
  }
}

const known = new Map();
const replies = new Map();
let service;
let commands = 0;

function startService() {
  service = start(join(programs, "opencode-sessions"), ["serve", "--stdio", "--db", db, "--state-dir", join(scratch, "index")], {
    stdio: ["pipe", "pipe", openSync(serviceLog, "a")],
    env: { PATH: process.env.PATH, HOME: home },
  });
  service.stdin.on("error", () => {});
  createInterface({ input: service.stdout }).on("line", (line) => {
    const event = JSON.parse(line);
    if (event.type === "snapshot") known.clear();
    for (const { id, marked } of event.sessions ?? event.upserted ?? []) known.set(id, marked);
    for (const id of event.removed ?? []) known.delete(id);
    if (event.type === "reply") replies.get(event.id)?.(event);
  });
}

async function command(type) {
  commands += 1;
  const id = commands;
  const replied = new Promise((done) => replies.set(id, done));
  service.stdin.write(`${JSON.stringify({ type, id })}\n`);
  const reply = await Promise.race([replied, sleep(20_000, undefined, { ref: false })]);
  if (!reply) throw new Wrong(`the service does not reply to ${type}`);
  return reply;
}

// Comparing.

function keep() {
  rmSync(finding, { recursive: true, force: true });
  mkdirSync(finding, { recursive: true });
  cpSync(cache, join(finding, "scan-cache"));
  for (const suffix of ["", "-wal", "-shm"]) cpSync(db + suffix, join(finding, `opencode.db${suffix}`));
  console.error(`The database, its log and the scan cache are in ${finding}`);
}

function differences(expected, got) {
  const ids = new Set([...expected.keys(), ...got.keys()]);
  return [...ids]
    .filter((id) => expected.get(id) !== got.get(id))
    .map((id) => `${id}: the query says ${expected.get(id) ?? "no such session"}, it says ${got.get(id) ?? "not listed"}`);
}

function demandSame(who, expected, got) {
  const wrong = differences(expected, got);
  if (wrong.length === 0) return;
  throw new Different(`${who} is wrong:\n${wrong.slice(0, 10).join("\n")}`);
}

const state = () => ["", "-wal"].map((suffix) => statSync(db + suffix)).map(({ size, mtimeMs }) => `${size} ${mtimeMs}`).join();

/** Does it in a moment when OpenCode writes nothing, from half a second before on. */
async function inQuiet(what) {
  for (const end = Date.now() + 15_000; Date.now() < end; ) {
    const before = state();
    await sleep(500);
    if (state() !== before) continue;
    const result = await what().catch((error) => error);
    // What was found does not count if something changed meanwhile.
    if (state() !== before) continue;
    if (result instanceof Error) throw result;
    return result;
  }
  throw new Wrong("OpenCode writes on and on, though nobody asks it anything");
}

const middle = (numbers) => numbers.toSorted((a, b) => a - b)[Math.floor(numbers.length / 2)];
const times = (numbers) => `p50 ${middle(numbers).toFixed(1)} ms, max ${Math.max(...numbers).toFixed(1)} ms`;

async function main() {
  await startOpenCode();
  const query = await findOracle();
  await pasteMuch();
  startService();
  let written = 0;
  let expected;
  for (let round = 1; round <= ROUNDS; round += 1) {
    const started = Date.now();
    const end = started + ROUND_MS;
    longWanted = true;
    const writers = [sessionRoutes, sessionRoutes, sessionRoutes, apiRoutes].map((routes) => write(routes, end));
    await Promise.all([...writers, watch(end)]);
    written += Date.now() - started;
    expected = await inQuiet(async () => {
      const defined = await define(query);
      demandSame("opencode-lister --scan-cache", defined, await listNew());
      const { type, outcome, refreshed } = await command("refresh");
      demandSame(`the service (${JSON.stringify(refreshed ?? outcome ?? type)})`, defined, known);
      return defined;
    });
    const count = [...expected.values()].filter(Boolean).length;
    console.log(`round ${round} of ${ROUNDS}: the same answers, ${count} of ${expected.size} sessions are marked`);
    if (count === 0 || count === expected.size) throw new Wrong("all sessions are alike, which proves nothing");
  }

  // Once more without any help: from the ground, and what the service finds out
  // by itself. Its next look at the database can be five seconds away.
  await write(sessionRoutes, Date.now() + 500);
  await inQuiet(async () => {
    expected = await define(query);
    demandSame("opencode-lister, from the ground", expected, (await list()).sessions);
  });
  const settled = Date.now() + 10_000;
  while (differences(expected, known).length > 0 && Date.now() < settled) await sleep(100);
  demandSame("what the service knows by itself", expected, known);
  for (const table of Object.keys(CONTENT)) {
    const [[rows]] = await query(`SELECT count(*) FROM ${table}`);
    console.log(`rows of ${table}: ${rows}`);
    if (rows === "0") throw new Wrong(`OpenCode wrote no ${table}, so nothing is known about it`);
  }
  if ((await command("shutdown")).done !== true) throw new Wrong("the service does not take its leave");
  report(written);
}

function report(written) {
  const modes = { full: 0, tail: 0, unchanged: 0 };
  for (const { scan } of listings) modes[scan.mode] = (modes[scan.mode] ?? 0) + 1;
  const later = listings.slice(1);
  const share = later.filter(({ scan }) => scan.mode !== "full").length / later.length;
  const frames = listings.reduce((sum, { scan }) => sum + scan.frames, 0);
  const logs = readdirSync(join(scratch, "data/opencode/log")).map((name) => join(scratch, "data/opencode/log", name));
  const locked = [log, ...logs].flatMap((path) => readFileSync(path, "utf8").match(/.*(database is locked|SQLITE_BUSY).*/gi) ?? []);
  console.log(`listings: ${listings.length} (${Object.entries(modes).map((mode) => mode.join(" ")).join(", ")})`);
  console.log(`tail or unchanged, of those after the first: ${(share * 100).toFixed(1)} %`);
  console.log(`time of a listing, as the caller sees it: ${times(listings.map(({ ms }) => ms))}`);
  console.log(`time of a listing, as the helper says it: ${times(listings.map(({ elapsedMs }) => elapsedMs))}`);
  console.log(`written by OpenCode: ${Math.round(frames / (written / 1000))} frames a second in ${turns} turns`);
  console.log(`the log at the end: ${statSync(`${db}-wal`).size} bytes`);
  console.log(`"database is locked" in what OpenCode logged: ${locked[0] ?? "never"}`);
  for (const why of fullWhy) console.log(`full: ${why}`);
  if (share < SHARE) throw new Wrong(`only ${(share * 100).toFixed(1)} % of the listings read only what was new`);
}

let stopped = false;
process.on("SIGTERM", () => {
  stopped = true;
  endAll().then(() => process.exit(143));
});
try {
  await Promise.race([
    main(),
    sleep(LIMIT_MS, undefined, { ref: false }).then(() => {
      throw new Wrong(`it is not done after ${LIMIT_MS / 1000} seconds`);
    }),
  ]);
} catch (error) {
  // Told to stop, it ended OpenCode itself, which is no failure.
  if (!stopped) {
    console.error(error instanceof Wrong ? error.message : error);
    if (error instanceof Different) keep();
    process.stderr.write(readLog(serviceLog));
  }
  process.exitCode = stopped ? 143 : 1;
}
await endAll();
process.exit();

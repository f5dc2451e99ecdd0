// A candidate of a leader election with the npm package `consul`: takes the lock, holds it for a
// moment, gives it back, over and over, until its input ends. Prints, for each time that it held it,
// when that began and ended, on the machine's monotonic clock in nanoseconds.
// elect.js KEY PORT ADDRESS...
const Consul = require("consul");

const key = process.argv[2];
const port = Number(process.argv[3]);
const addresses = process.argv.slice(4);
const HOLD_MS = 100;
let over = false;
let turn = 0;

process.stdin.on("end", () => {
  over = true;
});
process.stdin.resume();

const sleep = (ms) => new Promise((resolve) => setTimeout(resolve, ms));

function next() {
  turn += 1;
  return new Consul({ host: addresses[turn % addresses.length], port, defaults: { timeout: 5000 } });
}

async function hold(client, session) {
  if (!(await client.kv.set({ key, value: session, acquire: session }))) {
    return false;
  }
  const began = process.hrtime.bigint();
  await sleep(HOLD_MS);
  const ended = process.hrtime.bigint(); // Before it asks for the release.
  await client.kv.set({ key, value: "", release: session });
  console.log(began + " " + ended);
  return true;
}

// A session of unknown state is ended before another is made.
async function forget(session) {
  for (let i = 0; i < 100 && session !== null; i += 1) {
    try {
      await next().session.destroy(session);
      return;
    } catch (error) {
      await sleep(100);
    }
  }
}

async function main() {
  let client = next();
  let session = null;

  while (!over) {
    try {
      if (session === null) {
        session = (await client.session.create({ name: "elect", checks: [], ttl: "30s", lockdelay: "0s" })).ID;
      }
      await client.session.renew(session);
      if (!(await hold(client, session))) {
        await sleep(20);
      }
    } catch (error) {
      await forget(session);
      session = null;
      client = next();
      await sleep(50);
    }
  }
  await forget(session);
}

main();

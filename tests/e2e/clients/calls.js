// The calls of the npm package `consul`, one after the other; prints what came as JSON.
// calls.js ADDRESS PORT
const Consul = require("consul");

async function main() {
  const client = new Consul({ host: process.argv[2], port: Number(process.argv[3]) });
  const seen = {};

  seen.set = await client.kv.set("node/key", "value");
  const entry = await client.kv.get("node/key");
  seen.get = [entry.Key, entry.Value];
  seen.missing = await client.kv.get("node/none");
  seen.cas = [
    await client.kv.set({ key: "node/key", value: "2", cas: String(entry.ModifyIndex) }),
    // The package makes nothing of the answer "false".
    Boolean(await client.kv.set({ key: "node/key", value: "3", cas: String(entry.ModifyIndex) })),
  ];
  const session = await client.session.create({ name: "js", ttl: "600s", lockdelay: "0s" });
  seen.acquire = await client.kv.set({ key: "node/lock", value: "js", acquire: session.ID });
  const other = await client.session.create({ name: "other", ttl: "600s" });
  seen.refused = Boolean(
    await client.kv.set({ key: "node/lock", value: "other", acquire: other.ID }),
  );
  seen.holder = (await client.kv.get("node/lock")).Session === session.ID;
  seen.renew = (await client.session.renew(session.ID))[0].TTL;
  seen.release = await client.kv.set({ key: "node/lock", value: "", release: session.ID });
  seen.sessions = (await client.session.list()).map((one) => one.Name).sort();
  await client.session.destroy(session.ID);
  await client.session.destroy(other.ID);
  seen.destroyed = (await client.session.get(session.ID)) === undefined;
  seen.keys = await client.kv.keys("node/");
  await client.transaction.create([
    { KV: { Verb: "set", Key: "node/txn", Value: Buffer.from("t").toString("base64") } },
  ]);
  seen.txn = (await client.kv.get("node/txn")).Value;
  await client.agent.service.register({ name: "js-service", port: 5432, tags: ["a"] });
  seen.services = Object.keys(await client.agent.services());
  seen.leader = await client.status.leader();
  seen.peers = (await client.status.peers()).length;
  seen.members = (await client.agent.members()).length;
  seen.datacenters = await client.catalog.datacenters();
  for (let i = 0; i < 600 && !seen.health; i += 1) {
    // The agent tells the catalog a moment later.
    seen.health = (await client.health.service("js-service")).length;
    await new Promise((resolve) => setTimeout(resolve, 100));
  }
  seen.nodes = (await client.catalog.node.list()).length;
  await client.agent.service.deregister("js-service");
  await client.kv.del({ key: "node/", recurse: true });
  seen.deleted = await client.kv.get({ key: "node/", recurse: true });
  console.log(JSON.stringify(seen));
}

main().catch((error) => {
  console.error(error);
  process.exit(1);
});

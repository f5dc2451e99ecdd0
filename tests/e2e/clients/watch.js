// Watches one key with the npm package `consul` and prints each value that it is told of, one a
// line, until it is "end". watch.js ADDRESS PORT KEY
const Consul = require("consul");

const client = new Consul({ host: process.argv[2], port: Number(process.argv[3]) });
const watch = client.watch({
  method: client.kv.get,
  options: { key: process.argv[4], wait: "20s" },
  backoffFactor: 10,
  backoffMax: 200,
});

watch.on("change", (entry) => {
  console.log(entry === undefined ? "none" : entry.Value);
  if (entry !== undefined && entry.Value === "end") {
    watch.end();
  }
});
watch.on("error", () => {}); // It tries again by itself.

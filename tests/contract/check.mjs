// What other people's tools make of the contract and of the server that keeps it: `node check.mjs [check…]`.
//
// The server is the program that TASKPACT names (target/debug/taskpact). Each check starts and stops what it needs.

import { client } from "./client.mjs";
import { generatedClients as clients } from "./clients.mjs";
import { browser } from "../browser/browser.mjs";
import { conforms as conformance } from "./conformance.mjs";
import { journeys } from "./journeys.mjs";
import { kept } from "./kept.mjs";
import { lint } from "./lint.mjs";
import { metrics } from "./metrics.mjs";
import { pools } from "./pools.mjs";
import { readme } from "./readme.mjs";
import { released } from "./released.mjs";
import { traces } from "./traces.mjs";

const CHECKS = { lint, client, clients, journeys, conformance, pools, browser, released, kept, metrics, readme };
// It needs another build of the server, so it runs only where it is named.
const NAMED = { ...CHECKS, traces };

const asked = process.argv.slice(2);
for (const name of asked.length > 0 ? asked : Object.keys(CHECKS)) {
  if (!NAMED[name]) throw new Error(`There is no check "${name}", only ${Object.keys(NAMED).join(", ")}.`);
  const since = Date.now();
  console.log(`\n--- ${name}`);
  try {
    await NAMED[name]();
  } catch (error) {
    console.error(`\n${name} failed: ${error.message}`);
    process.exit(1);
  }
  console.log(`${name}: passed in ${((Date.now() - since) / 1000).toFixed(1)} s`);
}
process.exit(0);

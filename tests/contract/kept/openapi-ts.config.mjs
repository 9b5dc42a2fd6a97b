// hey-api with zod: every answer that is not an error is validated when it comes. Requests are not, so that the server sees
// invalid ones.

import { readFileSync } from "node:fs";
import { parse } from "yaml";

// hey-api writes the characters themselves for \u2028 and \u2029, and no regular expression can have these (hey-api/hey-api#4431;
// 0.99.0 still does). They are in \s, too, which stands beside them.
const text = readFileSync(process.env.CONTRACT, "utf8").replaceAll("\\u2028-\\u202F", "\\u202A-\\u202F");

export default {
  input: parse(text),
  output: "generated/hey-api",
  logs: { file: false },
  plugins: ["@hey-api/client-fetch", "@hey-api/typescript", "zod", { name: "@hey-api/sdk", validator: { response: "zod" } }],
};

// Beside the contract, orval is told three things: that headers are arguments (If-Match, Idempotency-Key), that ids may
// have any character, and what sends the requests. For infinite queries it is told which parameter leads to the next page.
const told = { headers: true, urlEncodeParameters: true };
const mutator = { path: "orval-fetch.ts", name: "send" };

module.exports = {
  taskpact: {
    input: process.env.CONTRACT,
    output: { target: "generated/orval.ts", client: "fetch", ...told, override: { mutator } },
  },
  queries: {
    input: process.env.CONTRACT,
    output: {
      target: "generated/orval-query.ts",
      client: "react-query",
      httpClient: "fetch",
      ...told,
      override: { mutator, operations: { listTasks: { query: { useInfinite: true, useInfiniteQueryParam: "cursor" } } } },
    },
  },
};

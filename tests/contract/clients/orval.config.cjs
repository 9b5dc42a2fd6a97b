// Beside the contract, orval is told three things: that headers are arguments (If-Match, Idempotency-Key), that ids may
// have any character, and what sends the requests.
module.exports = {
  taskpact: {
    input: process.env.CONTRACT,
    output: {
      target: "generated/orval.ts",
      client: "fetch",
      headers: true,
      urlEncodeParameters: true,
      override: { mutator: { path: "orval-fetch.ts", name: "send" } },
    },
  },
};

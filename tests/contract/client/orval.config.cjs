module.exports = {
  taskpact: {
    input: process.env.CONTRACT,
    output: {
      target: "orval.ts",
      client: "fetch",
      headers: true,
      urlEncodeParameters: true,
      override: { mutator: { path: "orval-fetch.ts", name: "orvalFetch" } },
    },
  },
};

// hey-api with zod: every answer that is not an error is validated when it comes. Requests are not, so that the server sees
// invalid ones.

export default {
  input: process.env.CONTRACT,
  output: "generated/hey-api",
  logs: { file: false },
  plugins: ["@hey-api/client-fetch", "@hey-api/typescript", "zod", { name: "@hey-api/sdk", validator: { response: "zod" } }],
};

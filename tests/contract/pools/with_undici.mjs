import { Pool } from "undici";
import { plan, rounds } from "./rounds.mjs";

const pool = new Pool(plan.url, { connections: 1 });
let connected = 0;
pool.on("connect", () => connected++);

await rounds(
  async ({ method, path, headers, body }) => {
    const answer = await pool.request({ method, path, headers, body });
    return { status: answer.statusCode, headers: answer.headers, body: await answer.body.json() };
  },
  () => connected,
);

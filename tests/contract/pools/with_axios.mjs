import { Agent } from "node:http";
import axios from "axios";
import { plan, rounds } from "./rounds.mjs";

class CountingAgent extends Agent {
  connected = 0;
  createConnection(...args) {
    this.connected++;
    return super.createConnection(...args);
  }
}
const httpAgent = new CountingAgent({ keepAlive: true, maxSockets: 1 });
const client = axios.create({ baseURL: plan.url, httpAgent, validateStatus: () => true });

await rounds(
  async ({ method, path, headers, body }) => {
    // Of a text that is no JSON axios makes one that is.
    const answer = await client.request({ method, url: path, headers, data: body && Buffer.from(body) });
    return { status: answer.status, headers: answer.headers, body: answer.data, sent: answer.request.getHeader("content-type") };
  },
  () => httpAgent.connected,
);

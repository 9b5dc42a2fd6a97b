// What lies between a client and the server, and fails: it loses answers, breaks them off, or answers itself as a proxy does.

import { createServer, connect } from "node:net";

/** A relay to this address. It makes one fault at a time, with requests of one method; all others pass. */
export async function relay(url) {
  const { hostname, port } = new URL(url);
  let fault = { times: 0 };
  const sockets = new Set();
  const server = createServer((client) => {
    sockets.add(client.on("close", () => sockets.delete(client)));
    const upstream = connect(Number(port), hostname);
    let request = Buffer.alloc(0);
    let what;
    const end = () => (client.destroy(), upstream.destroy());
    client.on("data", (chunk) => {
      request = Buffer.concat([request, chunk]);
      if (!isWhole(request)) return;
      const [method] = request.toString("latin1").split(" ", 1);
      what = undefined;
      if (fault.times > 0 && fault.method === method) {
        fault.times--;
        what = fault.what;
      }
      if (what?.status) client.end(answer(what));
      else if (what !== "stall") upstream.write(request);
      request = Buffer.alloc(0);
    });
    upstream.on("data", (chunk) => {
      // The server has done its work by now.
      if (what === "lose") return end();
      if (what === "halve") return client.end(chunk.subarray(0, chunk.length - 1));
      client.write(chunk);
    });
    for (const socket of [client, upstream]) socket.on("error", end).on("close", end);
  });
  await new Promise((resolve) => server.listen(0, "127.0.0.1", resolve));
  return {
    url: `http://127.0.0.1:${server.address().port}`,
    fault: (next) => (fault = { ...next }),
    close: () => (server.close(), sockets.forEach((socket) => socket.destroy())),
  };
}

/** Whether all of a request is there. */
function isWhole(request) {
  const end = request.indexOf("\r\n\r\n");
  if (end < 0) return false;
  const head = request.subarray(0, end).toString("latin1").toLowerCase();
  if (head.includes("transfer-encoding: chunked")) return request.subarray(-5).toString("latin1") === "0\r\n\r\n";
  return request.length >= end + 4 + Number(/content-length: (\d+)/.exec(head)?.[1] ?? 0);
}

/** An answer that any page may read. */
function answer({ status, headers = {}, body = "" }) {
  const all = { "Access-Control-Allow-Origin": "*", "Access-Control-Expose-Headers": "Retry-After", ...headers, "Content-Length": Buffer.byteLength(body), Connection: "close" };
  const lines = Object.entries(all).map(([name, value]) => `${name}: ${value}\r\n`);
  return `HTTP/1.1 ${status} By the proxy\r\n${lines.join("")}\r\n${body}`;
}

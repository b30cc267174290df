// The thread that talks to bitcoind, so that the one that runs LDK may wait for an answer inside a callback.
import http from "node:http";
import { workerData } from "node:worker_threads";

const { flag, port, url, user, password } = workerData;
const agent = new http.Agent({ keepAlive: true });

port.on("message", ({ method, params, wallet }) => {
  const answer = (message) => {
    port.postMessage(message);
    Atomics.store(flag, 0, 1);
    Atomics.notify(flag, 0);
  };
  const body = JSON.stringify({ jsonrpc: "1.0", id: 1, method, params });
  const options = { method: "POST", agent, auth: `${user}:${password}`, timeout: 120_000 };
  const request = http.request(wallet ? `${url}/wallet/${wallet}` : url, options, (response) => {
    const parts = [];
    response.on("data", (part) => parts.push(part));
    response.on("end", () => {
      try {
        const { result, error } = JSON.parse(Buffer.concat(parts).toString());
        answer(error ? { error: `${method}: ${error.message}`, code: error.code } : { result });
      } catch {
        answer({ error: `${method}: bitcoind answers HTTP ${response.statusCode}`, code: 0 });
      }
    });
  });
  request.on("timeout", () => request.destroy(new Error("bitcoind does not answer")));
  request.on("error", (error) => answer({ error: `${method}: ${error.message}`, code: 0 }));
  request.end(body);
});

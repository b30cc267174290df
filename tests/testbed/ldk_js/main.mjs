// `node main.mjs SETTINGS`: an LDK node that obeys commands, one line of JSON each, as long as its stdin is open.
import { readFileSync } from "node:fs";
import { createRequire } from "node:module";
import net from "node:net";
import process from "node:process";
import readline from "node:readline";

import * as ldk from "lightningdevkit";

import { RpcError } from "./bitcoind.mjs";
import { ObedientNode } from "./commands.mjs";
import { Refused } from "./words.mjs";

const PANICKED = 70;
const settings = JSON.parse(process.argv[2]);
const log = (text) => process.stdout.write(`${new Date().toISOString()} ${text}\n`);

// LDK writes why it panics to stdout, then the whole instance is dead: so are we.
process.on("uncaughtException", (error) => {
  log(`PANIC ${error?.stack ?? error}`);
  process.exit(PANICKED);
});
process.on("unhandledRejection", (error) => {
  throw error;
});
process.stdin.on("end", () => process.exit(0)).resume();

const find = createRequire(import.meta.url);
const wasm = readFileSync(find.resolve("lightningdevkit/liblightningjs.wasm"));
await ldk.initializeWasmFromBinary(new Uint8Array(wasm));
const version = JSON.parse(readFileSync(find.resolve("lightningdevkit/package.json"))).version;
const node = new ObedientNode(settings, log);
await node.start();

const commands = {
  info: () => ({ node_id: node.node_id, version }),
  height: () => node.height(),
  new_address: () => node.bitcoind.new_address(),
  confirmed_sat: () => Math.round(node.bitcoind.wallet_rpc("getbalance", "*", 1) * 1e8),
  set_feerate: ({ sat_per_kw }) => node.set_feerate(sat_per_kw),
  connect: ({ node_id, host, port }) => node.connect(node_id, host, port),
  disconnect: ({ node_id }) => node.disconnect(node_id),
  connected: () => node.connected(),
  open_channel: (params) => node.open_channel(params),
  channels: () => node.channels(),
  close_channel: (params) => node.close_channel(params),
  create_invoice: (params) => node.create_invoice(params),
  invoice_paid_msat: ({ payment_hash }) => node.invoice_paid_msat(payment_hash),
  start_payment: (params) => node.start_payment(params),
  payment: ({ payment_hash }) => node.payment(payment_hash),
  settle_hold_invoice: ({ payment_hash, preimage }) => node.settle_hold_invoice(payment_hash, preimage),
  cancel_hold_invoice: ({ payment_hash }) => node.cancel_hold_invoice(payment_hash),
  stop: () => void setTimeout(() => process.exit(0), 10),
};

const server = net.createServer((socket) => {
  socket.on("error", () => {});
  readline.createInterface({ input: socket }).on("line", async (line) => {
    const { method, params } = JSON.parse(line);
    let answer;
    try {
      answer = { result: (await commands[method](params)) ?? null };
    } catch (error) {
      if (!(error instanceof Refused) && !(error instanceof RpcError)) throw error;
      answer = { error: error.message };
      log(`REFUSED ${method}: ${error.message}`);
    }
    socket.write(`${JSON.stringify(answer)}\n`);
  });
});
server.listen(settings.control_port, "127.0.0.1", () => log("READY"));

// bitcoind as LDK's chain and as its wallet: synchronous calls, for LDK asks for coins and signatures in callbacks.
import { MessageChannel, Worker, receiveMessageOnPort } from "node:worker_threads";

export const hex = (bytes) => Buffer.from(bytes).toString("hex");
export const bytes = (text) => new Uint8Array(Buffer.from(text, "hex"));
export const reversed = (data) => Uint8Array.from(data).reverse();
/** A transaction id or block hash as people write it, and as LDK has it. */
export const shown = (hash) => hex(reversed(hash));
export const raw = (text) => reversed(bytes(text));
export const btc = (sat) => (Number(sat) / 1e8).toFixed(8);

export class RpcError extends Error {
  constructor(text, code) {
    super(text);
    this.code = code;
  }
}

export class Bitcoind {
  constructor({ rpc_port, rpc_user, rpc_password, wallet }) {
    this.flag = new Int32Array(new SharedArrayBuffer(4));
    const { port1, port2 } = new MessageChannel();
    this.port = port1;
    this.wallet = wallet;
    const url = `http://127.0.0.1:${rpc_port}`;
    const workerData = { flag: this.flag, port: port2, url, user: rpc_user, password: rpc_password };
    this.worker = new Worker(new URL("./rpc_worker.mjs", import.meta.url), { workerData, transferList: [port2] });
    this.worker.unref();
  }

  rpc(method, ...params) {
    return this.#ask({ method, params });
  }

  wallet_rpc(method, ...params) {
    return this.#ask({ method, params, wallet: this.wallet });
  }

  #ask(question) {
    this.port.postMessage(question);
    // A wake-up may be that of the answer before, which was there already when we looked.
    while (Atomics.load(this.flag, 0) === 0) Atomics.wait(this.flag, 0, 0);
    Atomics.store(this.flag, 0, 0);
    const { result, error, code } = receiveMessageOnPort(this.port).message;
    if (error !== undefined) throw new RpcError(error, code);
    return result;
  }

  /** Loads the wallet; makes it the first time. bitcoind forgets loaded wallets when it restarts. */
  load_wallet() {
    if (this.rpc("listwallets").includes(this.wallet)) return;
    const known = this.rpc("listwalletdir").wallets.some(({ name }) => name === this.wallet);
    if (known) this.rpc("loadwallet", this.wallet, true);
    else this.rpc("createwallet", this.wallet, false, false, "", false, true, true);
  }

  new_address() {
    return this.wallet_rpc("getnewaddress", "", "bech32");
  }

  /** The output script that pays to an address. */
  script_of(address) {
    const found = this.rpc("validateaddress", address);
    if (!found.isvalid) throw new Error(`no address of this network: ${address}`);
    return bytes(found.scriptPubKey);
  }

  /** A signed transaction of our coins, which stay locked for it. */
  fund(address, sat, sat_per_kw) {
    const bare = this.rpc("createrawtransaction", [], [{ [address]: btc(sat) }]);
    const fee_rate = Math.max(1, (sat_per_kw * 4) / 1000).toFixed(3);
    const funded = this.wallet_rpc("fundrawtransaction", bare, { fee_rate, lockUnspents: true });
    const signed = this.wallet_rpc("signrawtransactionwithwallet", funded.hex);
    if (!signed.complete) throw new Error("the wallet does not sign its funding transaction");
    return bytes(signed.hex);
  }

  /** Signs the inputs that are ours and leaves the others without a witness; takes a PSBT, returns a transaction. */
  sign_psbt(psbt) {
    const signed = this.wallet_rpc("signrawtransactionwithwallet", hex(unsigned_transaction(psbt)));
    return bytes(signed.hex);
  }
}

/** The first entry of a PSBT's global map (BIP 174). */
function unsigned_transaction(psbt) {
  const view = Buffer.from(psbt);
  if (view.readUInt16BE(5) !== 0x0100) throw new Error("a PSBT without its transaction in front");
  const lengths = { 0xfd: [view.readUInt16LE(8), 10], 0xfe: [view.readUInt32LE(8), 12] };
  const [length, start] = lengths[view[7]] ?? [view[7], 8];
  return view.subarray(start, start + length);
}

// One LDK node: its turns, its chain and its events.
//
// Everything happens in turns: whatever arrives (bytes of a peer, a block, a command) is given to LDK, its events are
// handled until there are no more, the state is written, and only then messages and transactions leave. The state is
// one file that is replaced as a whole, so that a kill between any two instructions leaves a node that can go on.
import { existsSync, mkdirSync, readFileSync, renameSync, writeFileSync } from "node:fs";
import { join } from "node:path";

import * as ldk from "lightningdevkit";

import { RpcError, bytes, hex } from "./bitcoind.mjs";
import { FLOOR_SAT_PER_KW, Parts } from "./parts.mjs";
import {
  Refused,
  api_error,
  closure_text,
  enum_name,
  outpoint_text,
  outpoint_text_of,
  small_id,
  some,
  some_outpoint,
  turned,
} from "./words.mjs";

const TICK_MS = 60_000;
const PING_MS = 10_000;
const POLL_MS = 200;

export class LdkNode extends Parts {
  async start() {
    mkdirSync(this.settings.folder, { recursive: true });
    this.bitcoind.load_wallet();
    this.make_services();
    const file = join(this.settings.folder, "state.json");
    if (existsSync(file)) this.load(JSON.parse(readFileSync(file)));
    else this.make();
    this.make_peers();
    this.sync();
    await this.sockets.listen("127.0.0.1", this.settings.port);
    setInterval(() => this.sync(), POLL_MS);
    setInterval(() => this.tick(), TICK_MS);
    setInterval(() => {
      this.peer_manager.timer_tick_occurred();
      this.turn();
    }, PING_MS);
  }

  // -- a turn --------------------------------------------------------------------------------------------------------

  turn() {
    do {
      for (const event of this.waiting.splice(0)) this.handle(event);
      for (const provider of this.providers) provider.process_pending_events(this.handler);
      this.peer_manager.process_events();
    } while (this.waiting.length > 0);
    this.save();
    this.sockets.flush();
    for (const transactions of this.broadcasts.splice(0)) this.broadcast(transactions);
  }

  save() {
    if (!this.manager.get_and_clear_needs_persistence() && !this.dirty) return;
    this.dirty = false;
    const state = {
      tip: this.tip,
      feerate: this.feerate,
      records: this.records,
      manager: hex(this.manager.write()),
      monitors: Object.fromEntries(this.monitors),
    };
    const file = join(this.settings.folder, "state.json");
    writeFileSync(`${file}.new`, JSON.stringify(state));
    renameSync(`${file}.new`, file);
  }

  broadcast(transactions) {
    for (const transaction of transactions) {
      const known = this.bitcoind.rpc("decoderawtransaction", transaction);
      for (const { txid, vout } of known.vin) this.spent(`${txid}:${vout}`, known.txid);
      try {
        this.bitcoind.rpc("sendrawtransaction", transaction);
        this.log(`BROADCAST ${known.txid}`);
      } catch (error) {
        if (!(error instanceof RpcError)) throw error;
        this.log(`BROADCAST ${known.txid} refused: ${error.message}`);
      }
    }
  }

  spent(outpoint, txid, height = null) {
    const record = this.records.channels[outpoint];
    if (!record || (record.closing_txid === txid && record.closed_at === height)) return;
    record.closing_txid = txid;
    record.closed_at = height;
    this.dirty = true;
  }

  tick() {
    this.manager.timer_tick_occurred();
    this.turn();
  }

  // -- chain ---------------------------------------------------------------------------------------------------------

  /** Follow bitcoind to its tip, over a reorganisation if there was one. */
  sync() {
    const best = this.bitcoind.rpc("getbestblockhash");
    if (best === this.tip.hash) return;
    this.tip = this.rewind(this.tip, (header, height) => {
      for (const listener of this.listeners) listener.block_disconnected(header, height);
      for (const record of Object.values(this.records.channels)) if (record.closed_at === height) record.closed_at = null;
    });
    while (this.tip.hash !== best) {
      const height = this.tip.height + 1;
      const hash = this.bitcoind.rpc("getblockhash", height);
      const block = bytes(this.bitcoind.rpc("getblock", hash, 0));
      for (const listener of this.listeners) listener.block_connected(block, height);
      for (const tx of this.bitcoind.rpc("getblock", hash, 2).tx) {
        delete this.records.sweeps[tx.txid];
        for (const { txid, vout } of tx.vin) this.spent(`${txid}:${vout}`, tx.txid, height);
      }
      this.tip = { hash, height };
    }
    this.dirty = true;
    this.chain_monitor.rebroadcast_pending_claims();
    for (const sweep of Object.values(this.records.sweeps)) this.broadcasts.push([sweep]);
    this.turn();
  }

  /** Back to a block of the best chain; `leave` is told of every one that is left, the highest first. */
  rewind(at, leave) {
    let { hash, height } = at;
    for (;;) {
      const block = this.bitcoind.rpc("getblockheader", hash);
      if (block.confirmations >= 1) return { hash, height };
      leave(bytes(this.bitcoind.rpc("getblockheader", hash, false)), height);
      hash = block.previousblockhash;
      height -= 1;
    }
  }

  // -- events --------------------------------------------------------------------------------------------------------

  handle(event) {
    this.log(`EVENT ${event.constructor.name}`);
    const handle = this[`on_${event.constructor.name.slice("Event_".length)}`];
    if (handle) handle.call(this, event);
  }

  on_OpenChannelRequest(event) {
    const { temporary_channel_id: id, counterparty_node_id: peer } = event;
    const done = this.manager.accept_inbound_channel(id, peer, small_id());
    if (!done.is_ok()) this.log(`OPEN refused: ${api_error(done.err)}`);
  }

  on_FundingGenerationReady(event) {
    const { temporary_channel_id: id, counterparty_node_id: peer } = event;
    try {
      const address = this.bitcoind.rpc("decodescript", hex(event.output_script)).address;
      const funding = this.bitcoind.fund(address, event.channel_value_satoshis, this.feerate);
      const done = this.manager.funding_transaction_generated(id, peer, funding);
      if (!done.is_ok()) throw new Error(api_error(done.err));
    } catch (error) {
      this.manager.force_close_without_broadcasting_txn(id, peer, "no funding transaction");
      this.opened(event.user_channel_id, null, error.message);
    }
  }

  on_ChannelPending(event) {
    const funding = outpoint_text(event.funding_txo);
    const details = this.manager.list_channels().find((one) => outpoint_text_of(one) === funding);
    if (details) this.records.channels[funding] = this.record(details);
    this.dirty = true;
    this.opened(event.user_channel_id, funding);
  }

  record(details) {
    const type = details.get_channel_type();
    return {
      remote_node_id: hex(details.get_counterparty().get_node_id()),
      capacity_sat: Number(details.get_channel_value_satoshis()),
      kind: type.supports_anchors_zero_fee_htlc_tx() ? "anchors" : "static_remotekey",
      public: Boolean(details.get_is_announced()),
      peer_is_funder: Boolean(details.get_is_outbound()),
      closing_txid: null,
      closed_at: null,
    };
  }

  opened(user_channel_id, funding, reason) {
    const id = turned(user_channel_id);
    const answer = this.opening.get(id);
    this.opening.delete(id);
    if (answer) funding ? answer.resolve(funding) : answer.reject(new Refused(reason));
  }

  on_ChannelClosed(event) {
    const reason = closure_text(event.reason);
    this.log(`CLOSED ${hex(event.channel_id.get_a())}: ${reason}`);
    const funding = some_outpoint(event.channel_funding_txo);
    const record = funding && this.records.channels[funding];
    if (record) record.reason = reason;
    this.dirty = true;
    this.opened(event.user_channel_id, null, reason);
  }

  on_PaymentClaimable(event) {
    const payment_hash = hex(event.payment_hash);
    const hold = this.records.holds[payment_hash];
    if (hold) {
      hold.msat = Number(event.amount_msat);
      this.dirty = true;
      return;
    }
    const preimage = some(event.purpose.preimage());
    if (preimage) this.manager.claim_funds(preimage);
    else this.manager.fail_htlc_backwards(event.payment_hash);
  }

  on_PaymentClaimed(event) {
    const payment_hash = hex(event.payment_hash);
    this.records.received[payment_hash] = Number(event.amount_msat);
    delete this.records.holds[payment_hash];
    this.dirty = true;
  }

  on_PaymentSent(event) {
    this.records.payments[hex(event.payment_hash)] = { ok: true, preimage: hex(event.payment_preimage), reason: "" };
    this.dirty = true;
  }

  on_PaymentPathFailed(event) {
    const { failure } = event;
    if (failure instanceof ldk.PathFailure_InitialSend) this.onion_error = api_error(failure.err);
  }

  on_PaymentFailed(event) {
    const reason = event.reason.some === undefined ? "failed" : enum_name(ldk.PaymentFailureReason, event.reason.some);
    const said = this.onion_error ? `${reason}: ${this.onion_error}` : reason;
    this.onion_error = null;
    this.records.payments[hex(event.payment_id)] = { ok: false, preimage: "", reason: said };
    this.dirty = true;
  }

  on_PendingHTLCsForwardable() {
    this.manager.process_pending_htlc_forwards();
  }

  on_BumpTransaction(event) {
    this.bumper.handle_event(event.bump_transaction);
  }

  on_SpendableOutputs(event) {
    const ours = event.outputs.filter((output) => !(output instanceof ldk.SpendableOutputDescriptor_StaticOutput));
    if (ours.length === 0) return; // what went to an address is in the wallet already
    const swept = this.keys
      .as_OutputSpender()
      .spend_spendable_outputs(
        ours,
        [],
        this.wallet_script(),
        Math.max(this.feerate, FLOOR_SAT_PER_KW),
        ldk.Option_u32Z.constructor_none(),
      );
    if (!swept.is_ok()) return this.log("SWEEP: not worth its fee");
    const transaction = hex(swept.res);
    this.records.sweeps[this.bitcoind.rpc("decoderawtransaction", transaction).txid] = transaction;
    this.dirty = true;
    this.broadcasts.push([transaction]);
  }
}

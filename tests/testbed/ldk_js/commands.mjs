// What an LDK node can be told to do. A command that it cannot obey is answered with ``Refused``.
import * as ldk from "lightningdevkit";

import { bytes, hex } from "./bitcoind.mjs";
import { LdkNode } from "./node.mjs";
import { FLOOR_SAT_PER_KW } from "./parts.mjs";
import { Refused, api_error, enum_name, outpoint_text_of, small_id, some } from "./words.mjs";

const CLOSED_DEPTH = 6;

export class ObedientNode extends LdkNode {
  height() {
    this.sync();
    return this.tip.height;
  }

  set_feerate(sat_per_kw) {
    this.feerate = Math.max(sat_per_kw, FLOOR_SAT_PER_KW);
    this.dirty = true;
    this.tick();
  }

  connected() {
    return this.peer_manager.list_peers().map((peer) => hex(peer.get_counterparty_node_id()));
  }

  async connect(node_id, host, port) {
    if (this.connected().includes(node_id)) return;
    let gone = false;
    try {
      const socket = await this.sockets.connect(host, port, bytes(node_id));
      socket.once("close", () => {
        gone = true;
      });
    } catch (error) {
      throw new Refused(`no connection to ${host}:${port}: ${error.message}`);
    }
    while (!this.connected().includes(node_id)) {
      if (gone) throw new Refused("the peer ended the connection before its init");
      await new Promise((resolve) => setTimeout(resolve, 10));
    }
  }

  disconnect(node_id) {
    this.peer_manager.disconnect_by_node_id(bytes(node_id));
    this.turn();
  }

  /** Waits until the funding transaction is out. */
  open_channel({ node_id, sat, push_sat, public: announce, kind, close_address }) {
    const id = small_id();
    const opened = new Promise((resolve, reject) => this.opening.set(id, { resolve, reject }));
    opened.catch(() => {});
    const config = this.config({ anchors: kind === "anchors", announce });
    this.close_script = close_address ? this.bitcoind.script_of(close_address) : null;
    const begun = this.manager.create_channel(bytes(node_id), BigInt(sat), BigInt(push_sat) * 1000n, id, null, config);
    this.close_script = null;
    if (!begun.is_ok()) {
      this.opening.delete(id);
      throw new Refused(api_error(begun.err));
    }
    this.turn();
    return opened;
  }

  channels() {
    const live = new Map();
    for (const details of this.manager.list_channels()) {
      const funding = outpoint_text_of(details);
      if (funding) live.set(funding, this.view(funding, details));
    }
    for (const [funding, record] of Object.entries(this.records.channels)) {
      if (live.has(funding)) continue;
      const deep = record.closed_at !== null && this.tip.height - record.closed_at + 1 >= CLOSED_DEPTH;
      if (!deep) live.set(funding, { funding, usable: false, htlcs: 0, local_msat: 0, remote_msat: 0, ...record });
    }
    return [...live.values()];
  }

  view(funding, details) {
    const capacity = Number(details.get_channel_value_satoshis()) * 1000;
    const out = Number(details.get_outbound_capacity_msat());
    const into = Number(details.get_inbound_capacity_msat());
    const incoming = details.get_pending_inbound_htlcs().map((htlc) => Number(htlc.get_amount_msat()));
    const outgoing = details.get_pending_outbound_htlcs().map((htlc) => Number(htlc.get_amount_msat()));
    const sum = (amounts) => amounts.reduce((total, amount) => total + amount, 0);
    const own_reserve = Number(some(details.get_unspendable_punishment_reserve()) ?? 0n) * 1000;
    const reserve = Number(details.get_counterparty().get_unspendable_punishment_reserve()) * 1000;
    // LDK tells capacities, which stop at zero when a side is below its reserve: then the other side's tells all.
    let local = out + own_reserve;
    let remote = into + reserve;
    if (out > 0) remote = capacity - local - sum(incoming) - sum(outgoing);
    else local = capacity - remote - sum(incoming) - sum(outgoing);
    const scid = some(details.get_short_channel_id());
    return {
      ...this.record(details),
      funding,
      local_msat: local,
      remote_msat: remote,
      usable: Boolean(details.get_is_usable()),
      htlcs: incoming.length + outgoing.length,
      short_channel_id: scid === null ? null : `${scid >> 40n}x${(scid >> 16n) & 0xffffffn}x${scid & 0xffffn}`,
      closing_txid: this.records.channels[funding]?.closing_txid ?? null,
    };
  }

  details(funding) {
    const details = this.manager.list_channels().find((one) => outpoint_text_of(one) === funding);
    if (!details) throw new Refused(`no open channel ${funding}`);
    return [details.get_channel_id(), details.get_counterparty().get_node_id()];
  }

  close_channel({ funding, force, sat_per_kw }) {
    const [id, peer] = this.details(funding);
    let done;
    if (force) done = this.manager.force_close_broadcasting_latest_txn(id, peer, "closed on command");
    else if (sat_per_kw) {
      const feerate = ldk.Option_u32Z.constructor_some(sat_per_kw);
      done = this.manager.close_channel_with_feerate_and_script(id, peer, feerate, null);
    } else done = this.manager.close_channel(id, peer);
    this.turn();
    if (!done.is_ok()) throw new Refused(api_error(done.err));
  }

  create_invoice({ msat, memo, expiry, payment_hash }) {
    const amount = msat === null ? ldk.Option_u64Z.constructor_none() : ldk.Option_u64Z.constructor_some(BigInt(msat));
    const cltv = ldk.Option_u16Z.constructor_none();
    const make = ldk.UtilMethods;
    const made = payment_hash
      ? make.constructor_create_invoice_from_channelmanager_with_payment_hash(
          this.manager,
          amount,
          memo,
          expiry,
          bytes(payment_hash),
          cltv,
        )
      : make.constructor_create_invoice_from_channelmanager(this.manager, amount, memo, expiry, cltv);
    if (!made.is_ok()) throw new Refused("LDK makes no such invoice");
    if (payment_hash) {
      this.records.holds[payment_hash] = { msat: null };
      this.dirty = true;
      this.turn();
    }
    return made.res.to_str();
  }

  invoice_paid_msat(payment_hash) {
    return this.records.received[payment_hash] ?? 0;
  }

  /** Returns the payment hash; how it ends is in `payment`. */
  start_payment({ bolt11 }) {
    const parsed = ldk.Bolt11Invoice.constructor_from_str(bolt11);
    if (!parsed.is_ok()) throw new Refused("LDK does not understand this invoice");
    const invoice = parsed.res;
    if (some(invoice.amount_milli_satoshis()) === null) throw new Refused("this invoice has no amount");
    const params = ldk.UtilMethods.constructor_payment_parameters_from_invoice(invoice);
    if (!params.is_ok()) throw new Refused("LDK does not pay this invoice");
    const [hash, onion, route] = [params.res.get_a(), params.res.get_b(), params.res.get_c()];
    const retries = ldk.Retry.constructor_attempts(2);
    const payment_hash = hex(hash);
    const begun = this.manager.send_payment(hash, onion, hash, route, retries);
    if (!begun.is_ok()) {
      const reason = enum_name(ldk.RetryableSendFailure, begun.err);
      this.records.payments[payment_hash] = { ok: false, preimage: "", reason };
    } else delete this.records.payments[payment_hash];
    this.dirty = true;
    this.turn();
    return payment_hash;
  }

  payment(payment_hash) {
    return this.records.payments[payment_hash] ?? null;
  }

  settle_hold_invoice(payment_hash, preimage) {
    this.held(payment_hash);
    this.manager.claim_funds(bytes(preimage));
    this.turn();
  }

  cancel_hold_invoice(payment_hash) {
    this.held(payment_hash);
    this.manager.fail_htlc_backwards(bytes(payment_hash));
    delete this.records.holds[payment_hash];
    this.dirty = true;
    this.turn();
  }

  held(payment_hash) {
    const hold = this.records.holds[payment_hash];
    if (!hold) throw new Refused(`no hold invoice ${payment_hash}`);
    if (hold.msat === null) throw new Refused(`nothing was paid to the hold invoice ${payment_hash}`);
  }
}

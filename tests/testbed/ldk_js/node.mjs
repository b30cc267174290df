// One LDK node: its keys, its state on disk, its chain and its events.
//
// Everything happens in turns: whatever arrives (bytes of a peer, a block, a command) is given to LDK, its events are
// handled until there are no more, the state is written, and only then messages and transactions leave. The state is
// one file that is replaced as a whole, so that a kill between any two instructions leaves a node that can go on.
import { randomBytes } from "node:crypto";
import { existsSync, mkdirSync, readFileSync, renameSync, writeFileSync } from "node:fs";
import { join } from "node:path";

import * as ldk from "lightningdevkit";

import { Bitcoind, RpcError, bytes, hex, raw, reversed, shown } from "./bitcoind.mjs";
import { Sockets } from "./sockets.mjs";

const MINIMUM_DEPTH = 3;
const CLOSED_DEPTH = 6;
const FLOOR_SAT_PER_KW = 253;
const START_SAT_PER_KW = 1250;
const DUST_EXPOSURE_MSAT = 100_000_000n;
const WITNESS_WEIGHT_P2WPKH = 4n + 109n;
const TICK_MS = 60_000;
const PING_MS = 10_000;
const POLL_MS = 200;

const some = (option) => option?.some ?? null;
const outpoint_text = (outpoint) => `${shown(outpoint.get_txid())}:${outpoint.get_index()}`;
const enum_name = (of, value) => String(of[value] ?? value).replace(/^LDK\w*?_/, "");
const seconds = () => Math.floor(Date.now() / 1000);

// The bindings write a 128-bit number with its lowest byte first and read it with its highest byte first.
const small_id = () => BigInt(randomBytes(4).readUInt32BE());
const turned = (id) => BigInt(`0x${hex(reversed(bytes(id.toString(16).padStart(32, "0"))))}`);

export class Refused extends Error {}

export class LdkNode {
  constructor(settings, log) {
    this.settings = settings;
    this.log = log;
    this.bitcoind = new Bitcoind(settings);
    this.feerate = START_SAT_PER_KW;
    this.monitors = new Map();
    this.dirty = false;
    this.broadcasts = [];
    this.waiting = [];
    this.opening = new Map();
    this.onion_error = null;
    this.keep = []; // what LDK calls back must not be collected
  }

  async start() {
    mkdirSync(this.settings.folder, { recursive: true });
    this.bitcoind.load_wallet();
    this.#make_services();
    const file = join(this.settings.folder, "state.json");
    if (existsSync(file)) this.#load(JSON.parse(readFileSync(file)));
    else this.#make();
    this.#make_peers();
    this.sync();
    await this.sockets.listen("127.0.0.1", this.settings.port);
    setInterval(() => this.sync(), POLL_MS);
    setInterval(() => this.tick(), TICK_MS);
    setInterval(() => {
      this.peer_manager.timer_tick_occurred();
      this.turn();
    }, PING_MS);
  }

  // -- making it -----------------------------------------------------------------------------------------------------

  #make_services() {
    const node = this;
    const seed_file = join(this.settings.folder, "seed");
    if (!existsSync(seed_file)) writeFileSync(seed_file, randomBytes(32), { mode: 0o600 });
    const now = BigInt(Date.now());
    this.keys = ldk.KeysManager.constructor_new(
      new Uint8Array(readFileSync(seed_file)),
      now / 1000n,
      Number((now % 1000n) * 1_000_000n),
    );
    this.entropy = this.keys.as_EntropySource();
    this.node_signer = this.keys.as_NodeSigner();
    this.own_signer = this.keys.as_SignerProvider();
    // Keys as LDK derives them; only the addresses are those of the wallet in bitcoind.
    this.signer = ldk.SignerProvider.new_impl({
      generate_channel_keys_id: (inbound, sat) => this.own_signer.generate_channel_keys_id(inbound, sat, 0n),
      derive_channel_signer: (...words) => this.own_signer.derive_channel_signer(...words),
      read_chan_signer: (data) => this.own_signer.read_chan_signer(data),
      get_destination_script: () => ldk.Result_CVec_u8ZNoneZ.constructor_ok(this.#wallet_script()),
      get_shutdown_scriptpubkey: () => ldk.Result_ShutdownScriptNoneZ.constructor_ok(this.#shutdown_script()),
    });
    this.logger = ldk.Logger.new_impl({
      log(record) {
        const level = record.get_level();
        if (level < ldk.Level.LDKLevel_Debug) return;
        const text = record.get_args();
        if (text.startsWith("Onion Error[")) node.onion_error = text;
        node.log(`${enum_name(ldk.Level, level)} ${record.get_module_path()}: ${text}`);
      },
    });
    this.fees = ldk.FeeEstimator.new_impl({ get_est_sat_per_1000_weight: (target) => this.#estimate(target) });
    this.broadcaster = ldk.BroadcasterInterface.new_impl({
      broadcast_transactions: (transactions) => {
        this.broadcasts.push(transactions.map(hex));
      },
    });
    const keep = (outpoint, monitor) => {
      this.monitors.set(hex(outpoint.write()), hex(monitor.write()));
      this.dirty = true;
      return ldk.ChannelMonitorUpdateStatus.LDKChannelMonitorUpdateStatus_Completed;
    };
    this.persister = ldk.Persist.new_impl({
      persist_new_channel: (outpoint, monitor) => keep(outpoint, monitor),
      update_persisted_channel: (outpoint, _update, monitor) => keep(outpoint, monitor),
      archive_persisted_channel: (outpoint) => {
        this.monitors.delete(hex(outpoint.write()));
        this.dirty = true;
      },
    });
    this.chain_monitor = ldk.ChainMonitor.constructor_new(
      ldk.Option_FilterZ.constructor_none(),
      this.broadcaster,
      this.logger,
      this.fees,
      this.persister,
    );
    this.watch = this.chain_monitor.as_Watch();
    this.graph = ldk.NetworkGraph.constructor_new(ldk.Network.LDKNetwork_Regtest, this.logger);
    const decay = ldk.ProbabilisticScoringDecayParameters.constructor_default();
    this.scorer = ldk.ProbabilisticScorer.constructor_new(decay, this.graph, this.logger);
    this.score = ldk.MultiThreadedLockableScore.constructor_new(this.scorer.as_Score());
    this.router = ldk.DefaultRouter.constructor_new(
      this.graph,
      this.logger,
      this.entropy,
      this.score.as_LockableScore(),
      ldk.ProbabilisticScoringFeeParameters.constructor_default(),
    );
    this.message_router = ldk.DefaultMessageRouter.constructor_new(this.graph, this.entropy);
    const coins = this.#coins();
    const wallet = ldk.Wallet.constructor_new(coins, this.logger);
    this.bumper = ldk.BumpTransactionEventHandler.constructor_new(
      this.broadcaster,
      wallet.as_CoinSelectionSource(),
      this.signer,
      this.logger,
    );
    this.keep.push(coins, wallet);
  }

  #coins() {
    return ldk.WalletSource.new_impl({
      list_confirmed_utxos: () => {
        const coins = this.bitcoind.wallet_rpc("listunspent", 1).map((coin) => {
          const value = BigInt(Math.round(coin.amount * 1e8));
          const outpoint = ldk.OutPoint.constructor_new(raw(coin.txid), coin.vout);
          const output = ldk.TxOut.constructor_new(value, bytes(coin.scriptPubKey));
          return ldk.Utxo.constructor_new(outpoint, output, WITNESS_WEIGHT_P2WPKH);
        });
        return ldk.Result_CVec_UtxoZNoneZ.constructor_ok(coins);
      },
      get_change_script: () => ldk.Result_CVec_u8ZNoneZ.constructor_ok(this.#wallet_script()),
      sign_psbt: (psbt) => {
        try {
          return ldk.Result_TransactionNoneZ.constructor_ok(this.bitcoind.sign_psbt(psbt));
        } catch (error) {
          this.log(`WALLET ${error.message}`);
          return ldk.Result_TransactionNoneZ.constructor_err();
        }
      },
    });
  }

  #config({ anchors = true, announce = false, upfront = true } = {}) {
    const config = ldk.UserConfig.constructor_default();
    config.set_manually_accept_inbound_channels(true); // the only way to accept anchors
    const handshake = config.get_channel_handshake_config();
    handshake.set_minimum_depth(MINIMUM_DEPTH);
    handshake.set_max_inbound_htlc_value_in_flight_percent_of_channel(100);
    handshake.set_negotiate_anchors_zero_fee_htlc_tx(anchors);
    handshake.set_announce_for_forwarding(announce);
    handshake.set_commit_upfront_shutdown_pubkey(upfront);
    config.set_channel_handshake_config(handshake);
    const limits = config.get_channel_handshake_limits();
    limits.set_force_announced_channel_preference(false);
    config.set_channel_handshake_limits(limits);
    const channel = config.get_channel_config();
    channel.set_max_dust_htlc_exposure(ldk.MaxDustHTLCExposure.constructor_fixed_limit_msat(DUST_EXPOSURE_MSAT));
    config.set_channel_config(channel);
    return config;
  }

  #make() {
    const height = this.bitcoind.rpc("getblockcount");
    const hash = this.bitcoind.rpc("getblockhash", height);
    this.tip = { hash, height };
    const best = ldk.BestBlock.constructor_new(raw(hash), height);
    this.manager = ldk.ChannelManager.constructor_new(
      this.fees,
      this.watch,
      this.broadcaster,
      this.router.as_Router(),
      this.message_router.as_MessageRouter(),
      this.logger,
      this.entropy,
      this.node_signer,
      this.signer,
      this.#config(),
      ldk.ChainParameters.constructor_new(ldk.Network.LDKNetwork_Regtest, best),
      seconds(),
    );
    this.records = { holds: {}, received: {}, payments: {}, channels: {}, sweeps: {} };
    this.dirty = true;
  }

  #load(state) {
    const read = (data) =>
      ldk.UtilMethods.constructor_C2Tuple_ThirtyTwoBytesChannelMonitorZ_read(bytes(data), this.entropy, this.signer);
    const monitors = Object.entries(state.monitors).map(([key, data]) => {
      const found = read(data);
      if (!found.is_ok()) throw new Error(`LDK does not read its own channel ${key}`);
      this.monitors.set(key, data);
      return found.res.get_b();
    });
    const found = ldk.UtilMethods.constructor_C2Tuple_ThirtyTwoBytesChannelManagerZ_read(
      bytes(state.manager),
      this.entropy,
      this.node_signer,
      this.signer,
      this.fees,
      this.watch,
      this.broadcaster,
      this.router.as_Router(),
      this.message_router.as_MessageRouter(),
      this.logger,
      this.#config(),
      monitors,
    );
    if (!found.is_ok()) throw new Error("LDK does not read its own state");
    this.manager = found.res.get_b();
    this.records = state.records;
    this.feerate = state.feerate;
    // A channel is written when it changes, not with every block: each is brought up to the tip of the whole.
    this.tip = state.tip;
    for (const monitor of monitors) {
      const best = monitor.current_best_block();
      let at = { hash: shown(best.get_block_hash()), height: best.get_height() };
      at = this.#rewind(at, (header, height) =>
        monitor.block_disconnected(header, height, this.broadcaster, this.fees, this.logger),
      );
      while (at.height < this.tip.height && this.bitcoind.rpc("getblockcount") > at.height) {
        at = { hash: this.bitcoind.rpc("getblockhash", at.height + 1), height: at.height + 1 };
        const block = this.bitcoind.rpc("getblock", at.hash, 2);
        const pairs = block.tx.map((tx, index) => ldk.TwoTuple_usizeTransactionZ.constructor_new(index, bytes(tx.hex)));
        const header = bytes(this.bitcoind.rpc("getblockheader", at.hash, false));
        monitor.block_connected(header, pairs, at.height, this.broadcaster, this.fees, this.logger);
      }
    }
    for (const monitor of monitors) this.watch.watch_channel(monitor.get_funding_txo().get_a(), monitor);
  }

  #make_peers() {
    const nothing = ldk.IgnoringMessageHandler.constructor_new();
    const gossip = ldk.P2PGossipSync.constructor_new(
      this.graph,
      ldk.Option_UtxoLookupZ.constructor_none(),
      this.logger,
    );
    this.messenger = ldk.OnionMessenger.constructor_new(
      this.entropy,
      this.node_signer,
      this.logger,
      this.manager.as_NodeIdLookUp(),
      this.message_router.as_MessageRouter(),
      this.manager.as_OffersMessageHandler(),
      this.manager.as_AsyncPaymentsMessageHandler(),
      this.manager.as_DNSResolverMessageHandler(),
      nothing.as_CustomOnionMessageHandler(),
    );
    this.peer_manager = ldk.PeerManager.constructor_new(
      this.manager.as_ChannelMessageHandler(),
      gossip.as_RoutingMessageHandler(),
      this.messenger.as_OnionMessageHandler(),
      nothing.as_CustomMessageHandler(),
      seconds(),
      this.entropy.get_secure_random_bytes(),
      this.logger,
      this.node_signer,
    );
    this.sockets = new Sockets(this.peer_manager, () => this.turn());
    this.listeners = [this.manager.as_Listen(), this.chain_monitor.as_Listen()];
    this.providers = [this.manager, this.chain_monitor, this.messenger].map((source) => source.as_EventsProvider());
    this.handler = ldk.EventHandler.new_impl({
      handle_event: (event) => {
        this.waiting.push(event);
        return ldk.Result_NoneReplayEventZ.constructor_ok();
      },
    });
    this.keep.push(nothing, gossip);
    this.node_id = hex(this.manager.get_our_node_id());
  }

  // -- what LDK asks for ---------------------------------------------------------------------------------------------

  #estimate(target) {
    const { ConfirmationTarget: Target } = ldk;
    switch (target) {
      case Target.LDKConfirmationTarget_MinAllowedAnchorChannelRemoteFee:
      case Target.LDKConfirmationTarget_MinAllowedNonAnchorChannelRemoteFee:
      case Target.LDKConfirmationTarget_ChannelCloseMinimum:
        return FLOOR_SAT_PER_KW;
      case Target.LDKConfirmationTarget_MaximumFeeEstimate:
        return Math.max(this.feerate * 10, 100_000);
      default:
        return this.feerate;
    }
  }

  #wallet_script() {
    return this.bitcoind.script_of(this.bitcoind.new_address());
  }

  #shutdown_script() {
    const script = this.close_script ?? this.#wallet_script();
    if (script.length === 22) return ldk.ShutdownScript.constructor_new_p2wpkh(script.slice(2));
    if (script[0] === 0) return ldk.ShutdownScript.constructor_new_p2wsh(script.slice(2));
    const program = ldk.WitnessProgram.constructor_new(ldk.WitnessVersion.constructor_new(script[0] - 0x50), script.slice(2));
    return ldk.ShutdownScript.constructor_new_witness_program(program).res;
  }

  // -- a turn --------------------------------------------------------------------------------------------------------

  turn() {
    do {
      for (const event of this.waiting.splice(0)) this.#handle(event);
      for (const provider of this.providers) provider.process_pending_events(this.handler);
      this.peer_manager.process_events();
    } while (this.waiting.length > 0);
    this.#save();
    this.sockets.flush();
    for (const transactions of this.broadcasts.splice(0)) this.#broadcast(transactions);
  }

  #save() {
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

  #broadcast(transactions) {
    for (const transaction of transactions) {
      const known = this.bitcoind.rpc("decoderawtransaction", transaction);
      for (const { txid, vout } of known.vin) this.#spent(`${txid}:${vout}`, known.txid);
      try {
        this.bitcoind.rpc("sendrawtransaction", transaction);
        this.log(`BROADCAST ${known.txid}`);
      } catch (error) {
        if (!(error instanceof RpcError)) throw error;
        this.log(`BROADCAST ${known.txid} refused: ${error.message}`);
      }
    }
  }

  #spent(outpoint, txid, height = null) {
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
    this.tip = this.#rewind(this.tip, (header, height) => {
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
        for (const { txid, vout } of tx.vin) this.#spent(`${txid}:${vout}`, tx.txid, height);
      }
      this.tip = { hash, height };
    }
    this.dirty = true;
    this.chain_monitor.rebroadcast_pending_claims();
    for (const sweep of Object.values(this.records.sweeps)) this.broadcasts.push([sweep]);
    this.turn();
  }

  /** Back to a block of the best chain; `leave` is told of every one that is left, the highest first. */
  #rewind(at, leave) {
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

  #handle(event) {
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
      this.#opened(event.user_channel_id, null, error.message);
    }
  }

  on_ChannelPending(event) {
    const funding = outpoint_text(event.funding_txo);
    const details = this.manager.list_channels().find((one) => outpoint_text_of(one) === funding);
    if (details) this.records.channels[funding] = this.#record(details);
    this.dirty = true;
    this.#opened(event.user_channel_id, funding);
  }

  #opened(user_channel_id, funding, reason) {
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
    this.#opened(event.user_channel_id, null, reason);
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
        this.#wallet_script(),
        Math.max(this.feerate, FLOOR_SAT_PER_KW),
        ldk.Option_u32Z.constructor_none(),
      );
    if (!swept.is_ok()) return this.log("SWEEP: not worth its fee");
    const transaction = hex(swept.res);
    this.records.sweeps[this.bitcoind.rpc("decoderawtransaction", transaction).txid] = transaction;
    this.dirty = true;
    this.broadcasts.push([transaction]);
  }

  // -- commands ------------------------------------------------------------------------------------------------------

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
    const config = this.#config({ anchors: kind === "anchors", announce });
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
      if (funding) live.set(funding, this.#view(funding, details));
    }
    for (const [funding, record] of Object.entries(this.records.channels)) {
      if (live.has(funding)) continue;
      const deep = record.closed_at !== null && this.tip.height - record.closed_at + 1 >= CLOSED_DEPTH;
      if (!deep) live.set(funding, { funding, usable: false, htlcs: 0, local_msat: 0, remote_msat: 0, ...record });
    }
    return [...live.values()];
  }

  #record(details) {
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

  #view(funding, details) {
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
      ...this.#record(details),
      funding,
      local_msat: local,
      remote_msat: remote,
      usable: Boolean(details.get_is_usable()),
      htlcs: incoming.length + outgoing.length,
      short_channel_id: scid === null ? null : `${scid >> 40n}x${(scid >> 16n) & 0xffffffn}x${scid & 0xffffn}`,
      closing_txid: this.records.channels[funding]?.closing_txid ?? null,
    };
  }

  #details(funding) {
    const details = this.manager.list_channels().find((one) => outpoint_text_of(one) === funding);
    if (!details) throw new Refused(`no open channel ${funding}`);
    return [details.get_channel_id(), details.get_counterparty().get_node_id()];
  }

  close_channel({ funding, force, sat_per_kw }) {
    const [id, peer] = this.#details(funding);
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
  start_payment({ bolt11, msat }) {
    const parsed = ldk.Bolt11Invoice.constructor_from_str(bolt11);
    if (!parsed.is_ok()) throw new Refused("LDK does not understand this invoice");
    const invoice = parsed.res;
    const fixed = some(invoice.amount_milli_satoshis()) !== null;
    if (!fixed && msat === null) throw new Refused("this invoice has no amount");
    const params = fixed
      ? ldk.UtilMethods.constructor_payment_parameters_from_invoice(invoice)
      : ldk.UtilMethods.constructor_payment_parameters_from_variable_amount_invoice(invoice, BigInt(msat));
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
    this.#held(payment_hash);
    this.manager.claim_funds(bytes(preimage));
    this.turn();
  }

  cancel_hold_invoice(payment_hash) {
    this.#held(payment_hash);
    this.manager.fail_htlc_backwards(bytes(payment_hash));
    delete this.records.holds[payment_hash];
    this.dirty = true;
    this.turn();
  }

  #held(payment_hash) {
    const hold = this.records.holds[payment_hash];
    if (!hold) throw new Refused(`no hold invoice ${payment_hash}`);
    if (hold.msat === null) throw new Refused(`nothing was paid to the hold invoice ${payment_hash}`);
  }
}

function some_outpoint(outpoint) {
  return outpoint && outpoint.ptr !== 0n ? outpoint_text(outpoint) : null;
}

function outpoint_text_of(details) {
  return some_outpoint(details.get_funding_txo());
}

function api_error(error) {
  return error.err ?? error.constructor.name;
}

function closure_text(reason) {
  if (reason instanceof ldk.ClosureReason_ProcessingError) return reason.err;
  return reason.to_str();
}

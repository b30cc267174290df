// What an LDK node is made of: keys, wallet, fees, storage of channels, router, peers. New, or from its state on disk.
import { randomBytes } from "node:crypto";
import { existsSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";

import * as ldk from "lightningdevkit";

import { Bitcoind, bytes, hex, raw, shown } from "./bitcoind.mjs";
import { Sockets } from "./sockets.mjs";
import { enum_name, seconds } from "./words.mjs";

const MINIMUM_DEPTH = 3;
const START_SAT_PER_KW = 1250;
const DUST_EXPOSURE_MSAT = 100_000_000n;
const WITNESS_WEIGHT_P2WPKH = 4n + 109n;
export const FLOOR_SAT_PER_KW = 253;

export class Parts {
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

  make_services() {
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
      get_destination_script: () => ldk.Result_CVec_u8ZNoneZ.constructor_ok(this.wallet_script()),
      get_shutdown_scriptpubkey: () => ldk.Result_ShutdownScriptNoneZ.constructor_ok(this.shutdown_script()),
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
    this.fees = ldk.FeeEstimator.new_impl({ get_est_sat_per_1000_weight: (target) => this.estimate(target) });
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
    const coins = this.coins();
    const wallet = ldk.Wallet.constructor_new(coins, this.logger);
    this.bumper = ldk.BumpTransactionEventHandler.constructor_new(
      this.broadcaster,
      wallet.as_CoinSelectionSource(),
      this.signer,
      this.logger,
    );
    this.keep.push(coins, wallet);
  }

  coins() {
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
      get_change_script: () => ldk.Result_CVec_u8ZNoneZ.constructor_ok(this.wallet_script()),
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

  config({ anchors = true, announce = false, upfront = true } = {}) {
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

  make() {
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
      this.config(),
      ldk.ChainParameters.constructor_new(ldk.Network.LDKNetwork_Regtest, best),
      seconds(),
    );
    this.records = { holds: {}, received: {}, payments: {}, channels: {}, sweeps: {} };
    this.dirty = true;
  }

  load(state) {
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
      this.config(),
      monitors,
    );
    if (!found.is_ok()) throw new Error("LDK does not read its own state");
    this.manager = found.res.get_b();
    this.records = state.records;
    this.feerate = state.feerate;
    // A channel is written when it changes, not with every block: each is brought up to the tip of the whole.
    this.tip = state.tip;
    const reachable = Math.min(this.tip.height, this.bitcoind.rpc("getblockcount"));
    const blocks = new Map();
    const block_at = (height) => {
      if (!blocks.has(height)) {
        const hash = this.bitcoind.rpc("getblockhash", height);
        const transactions = this.bitcoind.rpc("getblock", hash, 2).tx.map((tx) => bytes(tx.hex));
        blocks.set(height, { header: bytes(this.bitcoind.rpc("getblockheader", hash, false)), transactions });
      }
      return blocks.get(height);
    };
    for (const monitor of monitors) {
      const best = monitor.current_best_block();
      const at = { hash: shown(best.get_block_hash()), height: best.get_height() };
      let { height } = this.rewind(at, (header, left) =>
        monitor.block_disconnected(header, left, this.broadcaster, this.fees, this.logger),
      );
      while (height < reachable) {
        height += 1;
        const { header, transactions } = block_at(height);
        const pairs = transactions.map((data, index) => ldk.TwoTuple_usizeTransactionZ.constructor_new(index, data));
        monitor.block_connected(header, pairs, height, this.broadcaster, this.fees, this.logger);
      }
    }
    for (const monitor of monitors) this.watch.watch_channel(monitor.get_funding_txo().get_a(), monitor);
  }

  make_peers() {
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

  estimate(target) {
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

  wallet_script() {
    return this.bitcoind.script_of(this.bitcoind.new_address());
  }

  shutdown_script() {
    const script = this.close_script ?? this.wallet_script();
    if (script.length === 22) return ldk.ShutdownScript.constructor_new_p2wpkh(script.slice(2));
    if (script[0] === 0) return ldk.ShutdownScript.constructor_new_p2wsh(script.slice(2));
    const program = ldk.WitnessProgram.constructor_new(ldk.WitnessVersion.constructor_new(script[0] - 0x50), script.slice(2));
    return ldk.ShutdownScript.constructor_new_witness_program(program).res;
  }
}

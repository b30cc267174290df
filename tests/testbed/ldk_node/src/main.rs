//! `ldk-node-peer SETTINGS`: an LDK Node that obeys commands, one line of JSON each, as long as its stdin is open.

mod store;

use std::collections::{HashMap, HashSet};
use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::exit;
use std::str::FromStr;
use std::sync::{Arc, Condvar, Mutex};
use std::time::Duration;

use ldk_node::bitcoin::hashes::Hash;
use ldk_node::bitcoin::secp256k1::PublicKey;
use ldk_node::bitcoin::Network;
use ldk_node::config::{ChannelConfig, MaxDustHTLCExposure};
use ldk_node::lightning::ln::channelmanager::PaymentId;
use ldk_node::lightning::ln::msgs::SocketAddress;
use ldk_node::lightning::ln::types::ChannelId;
use ldk_node::lightning_invoice::{Bolt11Invoice, Bolt11InvoiceDescription, Description};
use ldk_node::lightning_types::payment::{PaymentHash, PaymentPreimage};
use ldk_node::logger::{LogLevel, LogRecord, LogWriter};
use ldk_node::payment::{PaymentDetails, PaymentDirection, PaymentKind, PaymentStatus};
use ldk_node::{Builder, ChannelDetails, Event, LightningBalance, Node, UserChannelId};
use serde::{Deserialize, Serialize};
use serde_json::{json, Value};

use crate::store::{Store, Watch};

const PANICKED: i32 = 70;
const OPEN_SECONDS: u64 = 100;
const DUST_EXPOSURE_MSAT: u64 = 100_000_000;
const ANCHORS_MSAT: u64 = 660_000;

type Answer = Result<Value, String>;

/// What the events and the log of the node told; the log alone says why a payment failed and what closed a channel.
#[derive(Default)]
struct Known {
    opened: HashMap<u128, Result<String, String>>,
    failed: HashMap<[u8; 32], String>,
    onion_error: Option<String>,
    closing: HashMap<String, String>,
    channels: HashMap<ChannelId, Value>,
    /// By node id, whether the last channel with it was to have anchors: asked for by us, or accepted from it.
    anchors: HashMap<String, bool>,
    kept: Kept,
}

/// What has to survive a restart and LDK Node does not tell again: hold invoices with their HTLC, channels with anchors.
#[derive(Default, Deserialize, Serialize)]
struct Kept {
    held: HashSet<String>,
    anchors: HashSet<String>,
}

struct Log {
    known: Arc<(Mutex<Known>, Condvar)>,
}

impl LogWriter for Log {
    fn log<'a>(&self, record: LogRecord<'a>) {
        if record.level < LogLevel::Debug {
            return;
        }
        let text = record.args.to_string();
        println!("{} {}: {}", record.level, record.module_path, text);
        if text.starts_with("Onion Error[") {
            self.known.0.lock().unwrap().onion_error = Some(text);
        } else if let Some((channel, txid)) = text.split_once(" closed by funding output spend in txid ") {
            let channel = channel.trim_start_matches("Channel ").to_string();
            let txid = txid.trim_end_matches('.').to_string();
            self.known.0.lock().unwrap().closing.insert(channel, txid);
        } else if text.starts_with("Accepting inbound") {
            let peer = text.rsplit(' ').next().unwrap_or("").to_string();
            self.known
                .0
                .lock()
                .unwrap()
                .anchors
                .insert(peer, text.contains(" Anchor channel "));
        }
    }
}

struct Peer {
    node: Node,
    known: Arc<(Mutex<Known>, Condvar)>,
    kept_file: PathBuf,
    written: Watch,
}

impl Peer {
    fn new(settings: &Value) -> Result<Peer, String> {
        let folder = PathBuf::from(text(settings, "folder")?);
        fs::create_dir_all(&folder).map_err(shown)?;
        let kept_file = folder.join("kept.json");
        let mut known = Known::default();
        if let Ok(data) = fs::read_to_string(&kept_file) {
            known.kept = serde_json::from_str(&data).map_err(shown)?;
        }
        let known = Arc::new((Mutex::new(known), Condvar::new()));
        let mut builder = Builder::new();
        builder.set_network(Network::Regtest);
        builder.set_storage_dir_path(text(settings, "folder")?);
        builder.set_custom_logger(Arc::new(Log {
            known: Arc::clone(&known),
        }));
        builder.set_gossip_source_p2p();
        builder.set_chain_source_bitcoind_rpc(
            "127.0.0.1".to_string(),
            number(settings, "rpc_port")? as u16,
            text(settings, "rpc_user")?,
            text(settings, "rpc_password")?,
        );
        let address = SocketAddress::from_str(&format!("127.0.0.1:{}", number(settings, "port")?)).map_err(shown)?;
        builder.set_listening_addresses(vec![address]).map_err(shown)?;
        builder.set_node_alias("ldk-node".to_string()).map_err(shown)?;
        let written = Watch::default();
        let store = Store::new(folder, written.clone()).map_err(shown)?;
        let node = builder.build_with_store(Arc::new(store)).map_err(shown)?;
        node.start().map_err(shown)?;
        Ok(Peer {
            node,
            known,
            kept_file,
            written,
        })
    }

    fn known(&self) -> std::sync::MutexGuard<'_, Known> {
        self.known.0.lock().unwrap()
    }

    /// Handle events for ever. An event is done with only after what it told is kept.
    fn follow(&self) {
        loop {
            let event = self.node.wait_next_event();
            println!("EVENT {event:?}");
            match event {
                Event::ChannelPending {
                    user_channel_id,
                    funding_txo,
                    channel_id,
                    counterparty_node_id,
                    ..
                } => {
                    let mut known = self.known();
                    if known.anchors.remove(&counterparty_node_id.to_string()).unwrap_or(true) {
                        known.kept.anchors.insert(channel_id.to_string());
                        self.keep(&known.kept);
                    }
                    drop(known);
                    self.opened(user_channel_id, Ok(funding_txo.to_string()));
                }
                Event::ChannelClosed {
                    user_channel_id,
                    reason,
                    ..
                } => {
                    let reason = reason.map_or("closed".to_string(), |reason| reason.to_string());
                    self.opened(user_channel_id, Err(reason));
                }
                Event::PaymentFailed {
                    payment_id: Some(id),
                    reason,
                    ..
                } => {
                    let mut known = self.known();
                    let mut said = reason.map_or("failed".to_string(), |reason| format!("{reason:?}"));
                    if let Some(error) = known.onion_error.take() {
                        said = format!("{said}: {error}");
                    }
                    known.failed.insert(id.0, said);
                }
                Event::PaymentClaimable { payment_hash, .. } => self.hold(&hex(&payment_hash.0), true),
                Event::PaymentReceived { payment_hash, .. } => self.hold(&hex(&payment_hash.0), false),
                _ => {}
            }
            if let Err(error) = self.node.event_handled() {
                println!("EVENT not kept: {error}");
            }
        }
    }

    fn opened(&self, id: UserChannelId, outcome: Result<String, String>) {
        self.known().opened.entry(id.0).or_insert(outcome);
        self.known.1.notify_all();
    }

    fn hold(&self, payment_hash: &str, holds: bool) {
        let mut known = self.known();
        if holds {
            known.kept.held.insert(payment_hash.to_string());
        } else if !known.kept.held.remove(payment_hash) {
            return;
        }
        self.keep(&known.kept);
    }

    fn keep(&self, kept: &Kept) {
        let fresh = self.kept_file.with_extension("new");
        fs::write(&fresh, json!(kept).to_string()).expect("the folder of the node is writable");
        fs::rename(&fresh, &self.kept_file).expect("the folder of the node is writable");
    }

    fn obey(&self, method: &str, params: &Value) -> Answer {
        match method {
            "info" => Ok(json!({ "node_id": self.node.node_id().to_string(), "version": "" })),
            "height" => {
                self.node.sync_wallets().map_err(shown)?;
                Ok(json!(self.node.status().current_best_block.height))
            }
            "die" => self.written.die_when_whole(),
            "new_address" => Ok(json!(self
                .node
                .onchain_payment()
                .new_address()
                .map_err(shown)?
                .to_string())),
            "confirmed_sat" => {
                self.node.sync_wallets().map_err(shown)?;
                Ok(json!(self.node.list_balances().total_onchain_balance_sats))
            }
            "connect" => {
                let (id, address) = target(params)?;
                self.node.connect(id, address, false).map_err(shown)?;
                Ok(Value::Null)
            }
            "disconnect" => {
                self.node.disconnect(key(params)?).map_err(shown)?;
                Ok(Value::Null)
            }
            "connected" => Ok(self
                .node
                .list_peers()
                .iter()
                .filter(|peer| peer.is_connected)
                .map(|peer| peer.node_id.to_string())
                .collect()),
            "open_channel" => self.open_channel(params),
            "channels" => Ok(self.channels()),
            "close_channel" => {
                let funding = text(params, "funding")?;
                let found = self
                    .node
                    .list_channels()
                    .into_iter()
                    .find(|one| outpoint(one) == Some(funding.clone()));
                let channel = found.ok_or(format!("no open channel {funding}"))?;
                let (id, peer) = (&channel.user_channel_id, channel.counterparty_node_id);
                if params["force"].as_bool().unwrap_or(false) {
                    self.node.force_close_channel(id, peer, None).map_err(shown)?;
                } else {
                    self.node.close_channel(id, peer).map_err(shown)?;
                }
                Ok(Value::Null)
            }
            "create_invoice" => self.create_invoice(params),
            "invoice_paid_msat" => {
                let found = self.node.payment(&PaymentId(bytes(&text(params, "payment_hash")?)?));
                Ok(json!(found
                    .filter(|one| one.direction == PaymentDirection::Inbound && one.status == PaymentStatus::Succeeded)
                    .and_then(|one| one.amount_msat)
                    .unwrap_or(0)))
            }
            "start_payment" => {
                let invoice = Bolt11Invoice::from_str(&text(params, "bolt11")?).map_err(shown)?;
                let begun = self.node.bolt11_payment().send(&invoice, None);
                let hash = invoice.payment_hash().to_byte_array();
                if let Err(error) = begun {
                    self.known().failed.insert(hash, error.to_string());
                }
                Ok(json!(hex(&hash)))
            }
            "payment" => self.payment(bytes(&text(params, "payment_hash")?)?),
            "settle_hold_invoice" => {
                let hash = self.held(params)?;
                let preimage = PaymentPreimage(bytes(&text(params, "preimage")?)?);
                let msat = self
                    .node
                    .payment(&PaymentId(hash.0))
                    .and_then(|one| one.amount_msat)
                    .unwrap_or(0);
                self.node
                    .bolt11_payment()
                    .claim_for_hash(hash, msat, preimage)
                    .map_err(shown)?;
                Ok(Value::Null)
            }
            "cancel_hold_invoice" => {
                let hash = self.held(params)?;
                self.node.bolt11_payment().fail_for_hash(hash).map_err(shown)?;
                self.hold(&hex(&hash.0), false);
                Ok(Value::Null)
            }
            "stop" => {
                let _ = self.node.stop();
                exit(0)
            }
            _ => Err(format!("no command {method}")),
        }
    }

    /// Waits until the funding transaction is known to both sides.
    fn open_channel(&self, params: &Value) -> Answer {
        let (id, address) = target(params)?;
        let sat = number(params, "sat")?;
        let anchors = text(params, "kind")? == "anchors";
        self.known().anchors.insert(id.to_string(), anchors);
        let push_msat = number(params, "push_sat")? * 1000;
        let config = ChannelConfig {
            max_dust_htlc_exposure: MaxDustHTLCExposure::FixedLimit {
                limit_msat: DUST_EXPOSURE_MSAT,
            },
            ..Default::default()
        };
        let opened = if params["public"].as_bool().unwrap_or(false) {
            self.node
                .open_announced_channel(id, address, sat, Some(push_msat), Some(config))
        } else {
            self.node.open_channel(id, address, sat, Some(push_msat), Some(config))
        };
        let user_channel_id = opened.map_err(shown)?.0;
        let (known, waited) = self
            .known
            .1
            .wait_timeout_while(self.known(), Duration::from_secs(OPEN_SECONDS), |known| {
                !known.opened.contains_key(&user_channel_id)
            })
            .unwrap();
        if waited.timed_out() {
            return Err("the channel did not get its funding transaction".to_string());
        }
        known.opened[&user_channel_id].clone().map(|funding| json!(funding))
    }

    /// Open ones, and closed ones of which something is left to claim.
    fn channels(&self) -> Value {
        let balances = self.node.list_balances().lightning_balances;
        let live = self.node.list_channels();
        let mut known = self.known();
        let mut found = Vec::new();
        for channel in &live {
            if let Some(funding) = outpoint(channel) {
                let anchors = known.kept.anchors.contains(&channel.channel_id.to_string());
                let view = view(channel, &funding, anchors, &balances);
                known.channels.insert(channel.channel_id, view.clone());
                found.push(view);
            }
        }
        let waiting: HashSet<ChannelId> = balances.iter().map(channel_of).collect();
        for id in waiting
            .iter()
            .filter(|id| live.iter().all(|channel| channel.channel_id != **id))
        {
            if let Some(last) = known.channels.get(id) {
                let mut view = last.clone();
                view["usable"] = json!(false);
                view["closing_txid"] = json!(known.closing.get(&id.to_string()));
                found.push(view);
            }
        }
        json!(found)
    }

    fn create_invoice(&self, params: &Value) -> Answer {
        let memo = Description::new(text(params, "memo")?).map_err(shown)?;
        let memo = Bolt11InvoiceDescription::Direct(memo);
        let expiry = number(params, "expiry")? as u32;
        let payments = self.node.bolt11_payment();
        let made = match (params["msat"].as_u64(), params["payment_hash"].as_str()) {
            (Some(msat), Some(hash)) => payments.receive_for_hash(msat, &memo, expiry, PaymentHash(bytes(hash)?)),
            (None, Some(hash)) => payments.receive_variable_amount_for_hash(&memo, expiry, PaymentHash(bytes(hash)?)),
            (Some(msat), None) => payments.receive(msat, &memo, expiry),
            (None, None) => payments.receive_variable_amount(&memo, expiry),
        };
        Ok(json!(made.map_err(shown)?.to_string()))
    }

    fn payment(&self, id: [u8; 32]) -> Answer {
        let found = self.node.payment(&PaymentId(id));
        let status = found.as_ref().map(|one| one.status);
        if status == Some(PaymentStatus::Pending) {
            return Ok(Value::Null);
        }
        if let (Some(PaymentStatus::Succeeded), Some(preimage)) = (status, found.as_ref().and_then(preimage_of)) {
            return Ok(json!({ "ok": true, "preimage": hex(&preimage.0), "reason": "" }));
        }
        // The store knows of a failure before the event says why.
        match (self.known().failed.get(&id), status) {
            (Some(reason), _) => Ok(json!({ "ok": false, "preimage": "", "reason": reason })),
            _ => Ok(Value::Null),
        }
    }

    fn held(&self, params: &Value) -> Result<PaymentHash, String> {
        let hash = text(params, "payment_hash")?;
        if !self.known().kept.held.contains(&hash) {
            return Err(format!("nothing was paid to a hold invoice {hash}"));
        }
        Ok(PaymentHash(bytes(&hash)?))
    }
}

fn view(channel: &ChannelDetails, funding: &str, anchors: bool, balances: &[LightningBalance]) -> Value {
    let capacity = channel.channel_value_sats * 1000;
    let (htlcs, in_flight) = in_flight(channel.channel_id, balances);
    let (out, into) = (channel.outbound_capacity_msat, channel.inbound_capacity_msat);
    // LDK tells capacities: without the reserve, and on the funder's side without the anchors.
    let put_by = if anchors { ANCHORS_MSAT } else { 0 };
    let (own, others) = if channel.is_outbound { (put_by, 0) } else { (0, put_by) };
    let mut local = out + channel.unspendable_punishment_reserve.unwrap_or(0) * 1000 + own;
    let mut remote = into + channel.counterparty_unspendable_punishment_reserve * 1000 + others;
    // They stop at zero when a side is below its reserve: then the other side's tells all.
    if out == 0 {
        local = capacity.saturating_sub(remote + in_flight);
    } else if into == 0 {
        remote = capacity.saturating_sub(local + in_flight);
    }
    // Of one that it opened it does not tell the type that both came to.
    let accepted = if anchors { "anchors" } else { "static_remotekey" };
    let kind = (!channel.is_outbound).then_some(accepted);
    let scid = channel
        .short_channel_id
        .map(|id| format!("{}x{}x{}", id >> 40, (id >> 16) & 0xff_ffff, id & 0xffff));
    json!({
        "funding": funding,
        "remote_node_id": channel.counterparty_node_id.to_string(),
        "capacity_sat": channel.channel_value_sats,
        "local_msat": local,
        "remote_msat": remote,
        "usable": channel.is_usable,
        "htlcs": htlcs,
        "kind": kind,
        "public": channel.is_announced,
        "peer_is_funder": channel.is_outbound,
        "short_channel_id": scid,
    })
}

/// How many HTLCs there are and their sum in msat. Those below dust count as one: LDK Node tells only their sum.
fn in_flight(channel: ChannelId, balances: &[LightningBalance]) -> (u64, u64) {
    let (mut count, mut msat) = (0, 0);
    for balance in balances.iter().filter(|balance| channel_of(balance) == channel) {
        match balance {
            LightningBalance::MaybeTimeoutClaimableHTLC { amount_satoshis, .. }
            | LightningBalance::MaybePreimageClaimableHTLC { amount_satoshis, .. } => {
                count += 1;
                msat += amount_satoshis * 1000;
            }
            LightningBalance::ClaimableOnChannelClose {
                outbound_payment_htlc_rounded_msat,
                outbound_forwarded_htlc_rounded_msat,
                inbound_claiming_htlc_rounded_msat,
                inbound_htlc_rounded_msat,
                ..
            } => {
                let rounded = outbound_payment_htlc_rounded_msat
                    + outbound_forwarded_htlc_rounded_msat
                    + inbound_claiming_htlc_rounded_msat
                    + inbound_htlc_rounded_msat;
                count += u64::from(rounded > 0);
                msat += rounded;
            }
            _ => {}
        }
    }
    (count, msat)
}

fn channel_of(balance: &LightningBalance) -> ChannelId {
    match balance {
        LightningBalance::ClaimableOnChannelClose { channel_id, .. }
        | LightningBalance::ClaimableAwaitingConfirmations { channel_id, .. }
        | LightningBalance::ContentiousClaimable { channel_id, .. }
        | LightningBalance::MaybeTimeoutClaimableHTLC { channel_id, .. }
        | LightningBalance::MaybePreimageClaimableHTLC { channel_id, .. }
        | LightningBalance::CounterpartyRevokedOutputClaimable { channel_id, .. } => *channel_id,
    }
}

fn preimage_of(payment: &PaymentDetails) -> Option<PaymentPreimage> {
    match payment.kind {
        PaymentKind::Bolt11 { preimage, .. } => preimage,
        _ => None,
    }
}

fn outpoint(channel: &ChannelDetails) -> Option<String> {
    channel.funding_txo.map(|funding| funding.to_string())
}

fn text(params: &Value, name: &str) -> Result<String, String> {
    params[name]
        .as_str()
        .map(str::to_string)
        .ok_or(format!("{name} is missing"))
}

fn number(params: &Value, name: &str) -> Result<u64, String> {
    params[name].as_u64().ok_or(format!("{name} is missing"))
}

fn key(params: &Value) -> Result<PublicKey, String> {
    PublicKey::from_str(&text(params, "node_id")?).map_err(shown)
}

fn target(params: &Value) -> Result<(PublicKey, SocketAddress), String> {
    let address = format!("{}:{}", text(params, "host")?, number(params, "port")?);
    Ok((key(params)?, SocketAddress::from_str(&address).map_err(shown)?))
}

fn hex(data: &[u8]) -> String {
    data.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn bytes(text: &str) -> Result<[u8; 32], String> {
    let mut data = [0; 32];
    if text.len() != 64 || !text.is_ascii() {
        return Err(format!("not 32 bytes in hex: {text}"));
    }
    for (index, byte) in data.iter_mut().enumerate() {
        *byte = u8::from_str_radix(&text[2 * index..2 * index + 2], 16).map_err(shown)?;
    }
    Ok(data)
}

fn shown<E: std::fmt::Debug>(error: E) -> String {
    format!("{error:?}")
}

fn serve(peer: &Peer, connection: TcpStream) -> std::io::Result<()> {
    let mut answers = connection.try_clone()?;
    for line in BufReader::new(connection).lines() {
        let question: Value = serde_json::from_str(&line?)?;
        let answer = match peer.obey(question["method"].as_str().unwrap_or(""), &question["params"]) {
            Ok(result) => json!({ "result": result }),
            Err(error) => json!({ "error": error }),
        };
        writeln!(answers, "{answer}")?;
    }
    Ok(())
}

fn main() {
    // A panic in any thread of LDK is the end of the node, as it would be for its owner.
    let usual = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        println!("PANIC {panic}");
        usual(panic);
        exit(PANICKED);
    }));
    std::thread::spawn(|| {
        let _ = std::io::stdin().read_to_end(&mut Vec::new());
        exit(0);
    });
    let settings: Value = serde_json::from_str(&std::env::args().nth(1).expect("settings")).expect("settings are JSON");
    let peer = match Peer::new(&settings) {
        Ok(peer) => Arc::new(peer),
        Err(error) => {
            println!("no node: {error}");
            exit(1);
        }
    };
    let port = number(&settings, "control_port").expect("a control port") as u16;
    let listener = TcpListener::bind(("127.0.0.1", port)).expect("the control port is free");
    let follower = Arc::clone(&peer);
    std::thread::spawn(move || follower.follow());
    println!("READY");
    for connection in listener.incoming().flatten() {
        let peer = Arc::clone(&peer);
        std::thread::spawn(move || {
            if let Err(error) = serve(&peer, connection) {
                println!("a command broke off: {error}");
            }
        });
    }
}

// Small words between LDK's types and ours.
import { randomBytes } from "node:crypto";

import * as ldk from "lightningdevkit";

import { bytes, hex, reversed, shown } from "./bitcoind.mjs";

/** Said to whoever gave a command that cannot be obeyed. */
export class Refused extends Error {}

export const some = (option) => option?.some ?? null;
export const outpoint_text = (outpoint) => `${shown(outpoint.get_txid())}:${outpoint.get_index()}`;
export const enum_name = (of, value) => String(of[value] ?? value).replace(/^LDK\w*?_/, "");
export const seconds = () => Math.floor(Date.now() / 1000);

// The bindings write a 128-bit number with its lowest byte first and read it with its highest byte first.
export const small_id = () => BigInt(randomBytes(4).readUInt32BE());
export const turned = (id) => BigInt(`0x${hex(reversed(bytes(id.toString(16).padStart(32, "0"))))}`);

export function some_outpoint(outpoint) {
  return outpoint && outpoint.ptr !== 0n ? outpoint_text(outpoint) : null;
}

export function outpoint_text_of(details) {
  return some_outpoint(details.get_funding_txo());
}

export function api_error(error) {
  return error.err ?? error.constructor.name;
}

export function closure_text(reason) {
  if (reason instanceof ldk.ClosureReason_ProcessingError) return reason.err;
  return reason.to_str();
}

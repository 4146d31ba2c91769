//! Verifies an export of the audit trail with nothing but the public keys: no code of majordomo, so that somebody who does
//! not trust it can read this, or write it anew. The format: docs/AUDIT.md.
//!
//! `cargo run --example verify_audit -- trail.jsonl keys.json [held.json]`

#![allow(clippy::print_stdout, clippy::indexing_slicing, reason = "for a terminal; an absent field is null")]

use std::fs::File;
use std::io::{BufRead, BufReader, Read};

use ed25519_dalek::{Signature, VerifyingKey};
use serde_json::Value;
use sha2::{Digest, Sha256};

fn main() -> Result<(), String> {
    let mut paths = std::env::args().skip(1);
    let (Some(export), Some(keys)) = (paths.next(), paths.next()) else {
        return Err("usage: verify_audit EXPORT KEYS [HELD_HEAD]".to_owned());
    };
    let read = |path: String| std::fs::read_to_string(&path).map_err(|error| format!("{path}: {error}"));
    let export = BufReader::new(File::open(&export).map_err(|error| format!("{export}: {error}"))?);
    println!("OK: {}", verify(export, &read(keys)?, paths.next().map(read).transpose()?.as_deref())?);
    Ok(())
}

/// Verifies an export against the keys and, if given, a head that was held outside; answers with the signed end.
pub fn verify(mut export: impl BufRead, keys: &str, held: Option<&str>) -> Result<String, String> {
    let keys = json(keys)?;
    let held = held.map(json).transpose()?;
    held.iter().try_for_each(|held| check_signature(held, "held", &[], &keys))?;
    let (mut chain, mut header, mut end, mut is_held_met) = (None::<Chain>, Vec::new(), None, held.is_none());
    for number in 1_u64.. {
        let mut line = Vec::new();
        let wrong = |reason: String| format!("line {number}: {reason}");
        export.by_ref().take(256 * 1024 + 1).read_until(b'\n', &mut line).map_err(|error| wrong(error.to_string()))?;
        let Some(last) = line.pop() else { break };
        let line = String::from_utf8(line).map_err(|_| wrong("no text".to_owned()))?;
        if last != b'\n' || end.is_some() {
            return Err(wrong("cut off, too long, or behind the end".to_owned()));
        }
        match &mut chain {
            None => {
                header = Sha256::digest(&line).to_vec();
                chain = Some(begin(&line).map_err(wrong)?);
            }
            Some(chain) if line.starts_with("{\"head\":") => {
                check_head(&json(&line).map_err(wrong)?["head"], "export", &header, &keys, chain).map_err(wrong)?;
                end = Some(line);
            }
            Some(chain) => follow(chain, &line, &keys).map_err(wrong)?,
        }
        if let (Some(held), Some(chain)) = (&held, &chain) {
            let is_here = held["number"] == chain.number;
            if bytes(&held["store"]) != chain.store || (is_here && bytes(&held["hash"]) != chain.hash) {
                return Err(wrong("not the history that the held head is over".to_owned()));
            }
            is_held_met |= is_here;
        }
    }
    let end = end.ok_or("the signed end is missing")?;
    if is_held_met { Ok(end) } else { Err("the export does not go over the head that is held".to_owned()) }
}

/// How far the chain has been followed.
struct Chain {
    store: Vec<u8>,
    number: u64,
    seq: u64,
    hash: Vec<u8>,
    unsigned: u64,
}

fn begin(line: &str) -> Result<Chain, String> {
    let header = json(line)?;
    let (store, hash) = (bytes(&header["store"]), bytes(&header["previous"]));
    let (number, seq) = (header["number"].as_u64().ok_or("no number")?, header["seq"].as_u64().ok_or("no place")?);
    let is_first = seq == 0 && hash == Sha256::digest(fields(&[b"majordomo/v1/audit_genesis", &store])).to_vec();
    let fits = header["majordomo_audit"] == 1 && (number > 0 || is_first);
    fits.then_some(Chain { store, number, seq, hash, unsigned: 0 }).ok_or("no header of this format".to_owned())
}

/// Follows the chain by one link: `{"number":N,"hash":"H","body":B}`, where H covers the bytes of B as they stand there.
fn follow(chain: &mut Chain, line: &str, keys: &Value) -> Result<(), String> {
    let parts = line.strip_prefix("{\"number\":").and_then(|rest| rest.split_once(",\"hash\":\""));
    let (number, rest) = parts.ok_or("neither a link nor the end")?;
    let (hash, body) = rest.split_once("\",\"body\":").ok_or("a link without a body")?;
    let body = body.strip_suffix('}').ok_or("a link without an end")?;
    let (next, place) = (chain.number + 1, chain.seq + 1);
    if number != next.to_string() {
        return Err(format!("link {next} should be here, and link {number} is"));
    }
    let covered = fields(&[b"majordomo/v1/audit_link", &chain.hash, &next.to_be_bytes(), body.as_bytes()]);
    if bytes(&hash.into()) != Sha256::digest(covered).to_vec() {
        return Err(format!("link {next} (place {place}) was altered, or does not belong here"));
    }
    let body = json(body)?;
    chain.unsigned = if body["checkpoint"].is_object() { 0 } else { chain.unsigned + 1 };
    let (from, to) = if chain.unsigned == 0 {
        check_head(&body["checkpoint"], "checkpoint", &[], keys, chain)?;
        (Some(place), Some(chain.seq))
    } else if body["gap"].is_object() {
        (body["gap"]["from"].as_u64(), body["gap"]["to"].as_u64())
    } else {
        (body["record"]["seq"].as_u64(), body["record"]["seq"].as_u64())
    };
    (chain.number, chain.seq, chain.hash) = (next, to.unwrap_or_default(), bytes(&hash.into()));
    let fits = from == Some(place) && chain.unsigned <= 4_096;
    fits.then_some(()).ok_or(format!("link {next} does not follow on the place before {place}, or is not signed"))
}

/// Checks that a head is rightly signed, and over what was read so far.
fn check_head(head: &Value, purpose: &str, header: &[u8], keys: &Value, chain: &Chain) -> Result<(), String> {
    check_signature(head, purpose, header, keys)?;
    let is_here = head["number"] == chain.number && head["seq"] == chain.seq;
    let fits = is_here && bytes(&head["store"]) == chain.store && bytes(&head["hash"]) == chain.hash;
    if fits { Ok(()) } else { Err("a head over something else: links are missing, or of another trail".to_owned()) }
}

fn check_signature(head: &Value, purpose: &str, header: &[u8], keys: &Value) -> Result<(), String> {
    let key = keys.as_array().and_then(|keys| keys.iter().find(|key| key["id"] == head["key"]));
    let public = bytes(&key.ok_or("a head signed under an unknown key")?["public"]).try_into().ok();
    let public = public.and_then(|public| VerifyingKey::from_bytes(&public).ok()).ok_or("no public key")?;
    let whole = |name: &str| head[name].as_u64().unwrap_or_default().to_be_bytes();
    let (store, hash, key) = (bytes(&head["store"]), bytes(&head["hash"]), bytes(&head["key"]));
    let (domain, at) = (b"majordomo/v1/audit_head", head["at"].as_i64().unwrap_or_default().to_be_bytes());
    let message =
        fields(&[domain, purpose.as_bytes(), &store, &whole("seq"), &whole("number"), &hash, &at, &key, header]);
    let signature = Signature::from_slice(&bytes(&head["signature"])).map_err(|_| "no signature")?;
    let fits = head["purpose"] == purpose && bytes(&head["header"]) == header;
    let is_signed = fits && public.verify_strict(&message, &signature).is_ok();
    if is_signed { Ok(()) } else { Err("a forged or altered head".to_owned()) }
}

fn json(text: &str) -> Result<Value, String> {
    serde_json::from_str(text).map_err(|_| "no JSON".to_owned())
}

/// Every field behind its length in bytes: 64 bits, the most significant first.
fn fields(fields: &[&[u8]]) -> Vec<u8> {
    fields.iter().flat_map(|field| [&(field.len() as u64).to_be_bytes(), *field].concat()).collect()
}

/// The bytes that lower-case hexadecimal digits stand for, hyphens aside; none for anything else.
fn bytes(value: &Value) -> Vec<u8> {
    let digits: Vec<_> = value.as_str().unwrap_or_default().bytes().filter(|digit| *digit != b'-').collect();
    let digit = |digit: u8| "0123456789abcdef".bytes().position(|known| known == digit);
    let pair = |pair: &[u8]| Some((digit(*pair.first()?)? << 4 | digit(*pair.get(1)?)?) as u8);
    digits.chunks(2).map(pair).collect::<Option<_>>().unwrap_or_default()
}

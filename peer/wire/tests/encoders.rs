//! Compact encodings and frames beside JavaScript's encoders, byte by byte: thousands of each kind.

#[path = "../../../tests/js/encode.rs"]
mod encode;

use datdot_wire::{
    encoding::{Reader, Writer},
    mux::Mux,
};
use encode::{Dice, JavaScript, bytes};
use serde_json::{Value, json};

fn written(write: impl FnOnce(&mut Writer)) -> Vec<u8> {
    let mut writer = Writer::new();
    write(&mut writer);
    writer.into_vec()
}

#[test]
fn compact_encodings_and_frames_are_those_of_javascript() {
    let (mut js, mut dice) = (JavaScript::start(), Dice(1));
    js.compare("uint", || {
        let n = dice.uint();
        let ours = written(|w| _ = w.uint(n));
        assert_eq!(Reader::new(&ours).uint(), Ok(n));
        (json!(n), ours)
    });
    js.compare("buffer", || {
        let value = dice.bytes(300);
        let ours = written(|w| _ = w.buffer(&value));
        assert_eq!(Reader::new(&ours).buffer(), Ok(&value[..]));
        (bytes(&value), ours)
    });
    js.compare("optional buffer", || {
        let value = dice.perhaps(|dice| dice.bytes(3));
        let ours = written(|w| _ = w.optional_buffer(value.as_deref()));
        assert_eq!(Reader::new(&ours).optional_buffer(), Ok(value.as_deref().filter(|value| !value.is_empty())));
        (value.map_or(Value::Null, bytes), ours)
    });
    js.compare("string", || {
        let value: String = dice.list(80, |dice| ["a", "ß", "→", "🦀", "\0", "\""][dice.below(6) as usize]).concat();
        let ours = written(|w| _ = w.string(&value));
        assert_eq!(Reader::new(&ours).string(), Ok(&value[..]));
        (json!(value), ours)
    });
    js.compare("words", || {
        let words = dice.list(300, |dice| dice.below(1 << 32) as u32);
        let ours = written(|w| _ = w.words(&words));
        assert_eq!(Reader::new(&ours).words(300).as_ref(), Ok(&words));
        (json!({ "words": words }), ours)
    });
    js.compare("array", || {
        let list = dice.list(5, |dice| dice.bytes(300));
        let ours = written(|w| _ = w.array(&list, |w, item| _ = w.buffer(item)));
        assert_eq!(Reader::new(&ours).array(5, |r| Ok(r.buffer()?.to_vec())).as_ref(), Ok(&list));
        (list.iter().map(bytes).collect(), ours)
    });
    js.compare("mux", || frame(&mut dice));
}

/// What one side does in one go: opens channels, sends on them, closes them.
fn frame(dice: &mut Dice) -> (Value, Vec<u8>) {
    let (mut mux, mut channels, mut open, mut steps) = (Mux::new(), Vec::new(), Vec::new(), Vec::new());
    for _ in 0..1 + dice.below(20) {
        match dice.below(6) {
            _ if open.is_empty() => {}
            0 => {}
            1 => {
                let at = open.swap_remove(dice.below(open.len() as u64) as usize);
                mux.close(channels[at]);
                steps.push(json!(["close", at]));
                continue;
            }
            _ => {
                let at: usize = open[dice.below(open.len() as u64) as usize];
                let (kind, body) = (dice.below(300), dice.bytes(300));
                mux.send(channels[at], kind, &body).expect("it is open");
                steps.push(json!(["send", at, kind, bytes(&body)]));
                continue;
            }
        }
        let protocol = ["hypercore/alpha", "blind-relay", "", "ünlich"][dice.below(4) as usize];
        let (id, handshake) = (dice.bytes(40), dice.bytes(70));
        open.push(channels.len());
        channels.push(mux.open(protocol, &id, &handshake).expect("a few are allowed"));
        steps.push(json!(["open", protocol, bytes(&id), bytes(&handshake)]));
    }
    (steps.into(), mux.take_output().expect("something was said"))
}
